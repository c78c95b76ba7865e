#include "control/store/journal.hpp"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

namespace tailrace {

void Journal::append(StoreOperations operations, std::function<void()> undo, std::function<void(const Outcome&)> done) {
    waiting_.push_back({std::move(operations), std::move(undo), std::move(done)});
    if (!busy_) start();
}

void Journal::flush_reports() {
    if (busy_)
        flush_wanted_ = true;
    else if (!reports_.empty())
        start();
}

void Journal::start() {
    busy_ = true;
    flush_wanted_ = false;
    ++transactions_;
    in_flight_ = std::move(waiting_);
    waiting_.clear();
    auto groups = std::make_shared<std::vector<StoreOperations>>();
    for (Change& change : in_flight_) groups->push_back(std::move(change.operations));
    StoreOperations reports; // last: a report needs the record of its node
    for (auto& [id, node] : reports_) reports.push_back(PutReport{std::move(node)});
    reports_.clear();
    if (!reports.empty()) groups->push_back(std::move(reports));
    run_([this, groups] { return store_.commit(*groups); }, [this](const Outcome& outcome) { finished(outcome); });
}

void Journal::finished(const Outcome& outcome) {
    auto changes = std::move(in_flight_);
    in_flight_.clear();
    busy_ = false;
    if (!outcome) { // what came later was decided on top of what is lost now
        std::move(waiting_.begin(), waiting_.end(), std::back_inserter(changes));
        waiting_.clear();
        for (auto change = changes.rbegin(); change != changes.rend(); ++change)
            if (change->undo) change->undo();
    }
    for (Change& change : changes)
        if (change.done) change.done(outcome);
    if (!busy_ && (!waiting_.empty() || (flush_wanted_ && !reports_.empty()))) start();
}

struct WorkerThread::Impl {
    std::mutex mutex;
    std::condition_variable wake;
    std::deque<std::function<void()>> work;
    bool stopping = false;
    std::thread thread;

    void loop() {
        for (;;) {
            std::function<void()> next;
            {
                std::unique_lock lock{mutex};
                wake.wait(lock, [&] { return stopping || !work.empty(); });
                if (work.empty()) return;
                next = std::move(work.front());
                work.pop_front();
            }
            next();
        }
    }
};

WorkerThread::WorkerThread() : impl_(std::make_unique<Impl>()) {
    impl_->thread = std::thread{[this] { impl_->loop(); }};
}

WorkerThread::~WorkerThread() {
    {
        std::lock_guard lock{impl_->mutex};
        impl_->stopping = true;
    }
    impl_->wake.notify_one();
    impl_->thread.join();
}

void WorkerThread::run(std::function<void()> work) {
    {
        std::lock_guard lock{impl_->mutex};
        impl_->work.push_back(std::move(work));
    }
    impl_->wake.notify_one();
}

} // namespace tailrace
