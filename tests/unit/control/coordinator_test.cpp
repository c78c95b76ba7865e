// The policy on its way into force: what is not in order, or breaks its own tests, changes nothing.
#include "control/server/coordinator.hpp"

#include "base/file.hpp"
#include "base/random.hpp"
#include "control/store/sqlite_store.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

namespace tailrace {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr const char* kOpen = R"({"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]})";
constexpr const char* kKeepsItsTests = R"({
  "tagOwners": {"tag:a": [], "tag:b": []},
  "acls": [{"action": "accept", "src": ["tag:a"], "dst": ["tag:b:22"]}],
  "tests": [{"src": "tag:a", "accept": ["tag:b:22"], "deny": ["tag:b:23"]}]
})";
constexpr const char* kBreaksItsTests = R"({
  "tagOwners": {"tag:a": [], "tag:b": []},
  "acls": [{"action": "accept", "src": ["tag:a"], "dst": ["tag:b:*"]}],
  "tests": [{"src": "tag:a", "accept": ["tag:b:22"], "deny": ["tag:b:23"]}]
})";
constexpr const char* kBreaksItsSshTests = R"({
  "tagOwners": {"tag:a": [], "tag:b": []},
  "sshTests": [{"src": "tag:a", "dst": ["tag:b"], "accept": ["root"]}]
})";

class PolicyOnItsWay : public testing::Test {
protected:
    using Story = std::function<Task<void>(Coordinator&)>;

    PolicyOnItsWay() { std::filesystem::create_directories(directory_); }
    ~PolicyOnItsWay() override { std::filesystem::remove_all(directory_); }

    enum class Where { File, Store };

    /// A server with this policy, from the start to the end.
    void run(const char* policy, Where where, const Story& story) {
        ControlConfig config = default_config();
        config.state_dir = directory_;
        if (where == Where::File) {
            config.policy_file = file();
            write(policy);
        }
        auto store = SqliteStore::open(directory_ / "control.db");
        ASSERT_TRUE(store) << store.error().message();
        auto document = Document::parse(policy);
        ASSERT_TRUE(document) << document.error().message();
        Reactor reactor;
        Coordinator coordinator{reactor,
                                std::move(config),
                                std::move(*store),
                                StoredTailnet{},
                                std::make_shared<const Document>(std::move(*document)),
                                MapComposer::Fixed{}};
        spawn(reactor, "story", [](Reactor* reactor, Coordinator* coordinator, const Story* story) -> Task<void> {
            co_await (*story)(*coordinator);
            co_await coordinator->settled();
            co_await coordinator->stop();
            reactor->stop();
        }(&reactor, &coordinator, &story));
        reactor.run();
    }
    std::string file() const { return directory_ / "policy.hujson"; }
    void write(std::string_view policy) const { EXPECT_TRUE(write_file_atomically(file(), policy, 0600)); }

    std::filesystem::path directory_ =
        std::filesystem::temp_directory_path() / fmt::format("tailrace-{:x}", random_u64());
};

TEST_F(PolicyOnItsWay, AReloadTakesAFileThatKeepsItsTests) {
    run(kOpen, Where::File, [&](Coordinator& coordinator) -> Task<void> {
        write(kKeepsItsTests);
        co_await coordinator.reload_policy_file();
        EXPECT_EQ(coordinator.policy_text(), kKeepsItsTests);
    });
}

TEST_F(PolicyOnItsWay, AReloadRefusesAFileThatBreaksItsTests) {
    run(kOpen, Where::File, [&](Coordinator& coordinator) -> Task<void> {
        for (const char* bad : {kBreaksItsTests, kBreaksItsSshTests, "{\"acls\": [", "{\"acls\": [{}]}"}) {
            write(bad);
            co_await coordinator.reload_policy_file();
            EXPECT_EQ(coordinator.policy_text(), kOpen) << bad;
        }
        std::filesystem::remove(file());
        co_await coordinator.reload_policy_file();
        EXPECT_EQ(coordinator.policy_text(), kOpen) << "no file at all";
    });
}

TEST_F(PolicyOnItsWay, WhatIsSetMustKeepItsTests) {
    run(kOpen, Where::Store, [&](Coordinator& coordinator) -> Task<void> {
        auto refused = co_await coordinator.set_policy(kBreaksItsTests);
        EXPECT_THAT(refused ? "taken" : refused.error().message(),
                    AllOf(HasSubstr("line 4, column 63: test(s) failed"),
                          HasSubstr("tag:a: address \"tag:b:23\": want: Drop, got: Accept")));
        auto also_refused = co_await coordinator.set_policy(kBreaksItsSshTests);
        EXPECT_FALSE(also_refused);
        EXPECT_EQ(coordinator.policy_text(), kOpen);
        auto taken = co_await coordinator.set_policy(kKeepsItsTests);
        EXPECT_TRUE(taken);
        EXPECT_EQ(coordinator.policy_text(), kKeepsItsTests);
    });
}

TEST_F(PolicyOnItsWay, AtTheStartOnlyTestsOfStrangersAreExcused) {
    run(kBreaksItsTests, Where::File, [&](Coordinator& coordinator) -> Task<void> {
        EXPECT_FALSE(coordinator.check_policy_in_force());
        co_return;
    });
    run(R"({"acls": [], "tests": [{"src": "alice@example.com", "accept": ["bob@example.com:22"]}]})", Where::File,
        [&](Coordinator& coordinator) -> Task<void> {
            EXPECT_TRUE(coordinator.check_policy_in_force()) << "nobody is there yet";
            co_return;
        });
}

} // namespace
} // namespace tailrace
