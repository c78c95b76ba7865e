// control/store/journal.hpp - many small changes, few transactions: whatever waits while one is written goes into the
// next, and nobody is told "done" before it is on disk.
#pragma once
#include "control/store/store.hpp"

#include <functional>
#include <map>
#include <memory>

namespace tailrace {

/// Lives on one thread. `run` does its work elsewhere and calls back with the outcome on this thread.
class Journal {
public:
    using Outcome = Result<void>;
    using Work = std::function<Outcome()>;
    using Runner = std::function<void(Work work, std::function<void(Outcome)> finished)>;

    Journal(Store& store, Runner run) : store_(store), run_(std::move(run)) {}

    /// `undo` runs when the change could not be written: all that is unwritten is undone, the last one first. Then
    /// `done` hears the error. An empty change is done when everything before it is.
    void append(StoreOperations operations, std::function<void()> undo, std::function<void(const Outcome&)> done);
    /// Reports may wait: they ride on the next change, or on flush_reports().
    void note_report(NodePtr node) { reports_[node->id()] = std::move(node); }
    void flush_reports();
    bool has_reports() const { return !reports_.empty(); }
    bool idle() const { return !busy_ && waiting_.empty(); }
    std::uint64_t transactions() const { return transactions_; }

private:
    struct Change {
        StoreOperations operations;
        std::function<void()> undo;
        std::function<void(const Outcome&)> done;
    };
    void start();
    void finished(const Outcome& outcome);

    Store& store_;
    Runner run_;
    std::vector<Change> waiting_;
    std::vector<Change> in_flight_;
    std::map<NodeId, NodePtr> reports_;
    bool busy_ = false;
    bool flush_wanted_ = false;
    std::uint64_t transactions_ = 0;
};

/// A thread that does one thing after the other.
class WorkerThread {
public:
    WorkerThread();
    ~WorkerThread(); ///< finishes what was given to it
    void run(std::function<void()> work);

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace tailrace
