#include "control/store/journal.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tailrace {
namespace {

using testing::ElementsAre;

struct MemoryStore final : Store {
    std::vector<std::size_t> group_counts;
    bool full = false;
    Result<StoredTailnet> load() override { return StoredTailnet{}; }
    Result<void> commit(const std::vector<StoreOperations>& groups) override {
        group_counts.push_back(groups.size());
        if (full) return Error::make("the disk is full");
        return {};
    }
};

/// Runs the journal's work when told to, as a slow disk would.
struct SlowDisk {
    struct Job {
        Journal::Work work;
        std::function<void(Journal::Outcome)> finished;
    };
    std::vector<Job> jobs;
    Journal::Runner runner() {
        return [this](Journal::Work work, std::function<void(Journal::Outcome)> finished) {
            jobs.push_back({std::move(work), std::move(finished)});
        };
    }
    void finish_one() {
        Job job = std::move(jobs.front());
        jobs.erase(jobs.begin());
        job.finished(job.work());
    }
};

TEST(Journal, WritesInOneTransactionWhatWaitedForTheLast) {
    MemoryStore store;
    SlowDisk disk;
    Journal journal{store, disk.runner()};
    std::vector<int> done;
    for (int i = 1; i <= 5; ++i)
        journal.append({DeleteUser{i}}, nullptr, [&done, i](const auto& outcome) {
            if (outcome) done.push_back(i);
        });
    EXPECT_EQ(disk.jobs.size(), 1u);
    disk.finish_one();
    EXPECT_THAT(done, ElementsAre(1)); // the others are not on disk yet
    disk.finish_one();
    EXPECT_THAT(done, ElementsAre(1, 2, 3, 4, 5));
    EXPECT_THAT(store.group_counts, ElementsAre(1u, 4u));
    EXPECT_TRUE(journal.idle());
}

TEST(Journal, UndoesEverythingUnwrittenInReverseWhenAWriteFails) {
    MemoryStore store;
    SlowDisk disk;
    Journal journal{store, disk.runner()};
    std::vector<std::string> heard;
    for (int i = 1; i <= 3; ++i)
        journal.append(
            {DeleteUser{i}}, [&heard, i] { heard.push_back(fmt::format("undo {}", i)); },
            [&heard, i](const auto& outcome) {
                heard.push_back(fmt::format("{} {}", outcome ? "done" : "failed", i));
            });
    store.full = true;
    disk.finish_one();
    EXPECT_THAT(heard, ElementsAre("undo 3", "undo 2", "undo 1", "failed 1", "failed 2", "failed 3"));
    EXPECT_TRUE(disk.jobs.empty());
    store.full = false;
    heard.clear();
    journal.append({DeleteUser{4}}, nullptr,
                   [&](const auto& outcome) { heard.push_back(outcome ? "done" : "failed"); });
    disk.finish_one();
    EXPECT_THAT(heard, ElementsAre("done"));
}

TEST(Journal, LetsReportsRideOnTheNextChange) {
    MemoryStore store;
    SlowDisk disk;
    Journal journal{store, disk.runner()};
    Node node;
    node.record.id = 1;
    journal.note_report(std::make_shared<const Node>(node));
    journal.note_report(std::make_shared<const Node>(node));
    EXPECT_TRUE(disk.jobs.empty());
    journal.append({DeleteUser{4}}, nullptr, nullptr);
    disk.finish_one();
    EXPECT_THAT(store.group_counts, ElementsAre(2u));
    EXPECT_FALSE(journal.has_reports());
}

} // namespace
} // namespace tailrace
