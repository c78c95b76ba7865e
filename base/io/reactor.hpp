// base/io/reactor.hpp - the one thread of a daemon: timers, descriptors, signals, and a worker thread for slow things.
#pragma once
#include "base/fd.hpp"
#include "base/io/task.hpp"
#include "base/log.hpp"
#include "base/result.hpp"
#include "base/time.hpp"

#include <coroutine>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// Runs coroutines and callbacks, one at a time, on the thread that calls run(). Between two co_awaits nothing else
/// runs, so there are no locks. Destroying a Reactor destroys the spawned coroutines that have not ended.
class Reactor {
public:
    Reactor();
    ~Reactor();
    Reactor(const Reactor&) = delete;
    Reactor& operator=(const Reactor&) = delete;

    /// Until stop().
    void run();
    void stop();
    /// Runs `callback` on the reactor's thread, soon. The only member that other threads may call.
    void post(std::function<void()> callback);
    TimePoint now() const;

    /// Waits at least `duration`. Not cancelled by anything: use Event::wait_for or Timer where that matters.
    Task<void> sleep(Duration duration);
    /// Each lane is a thread of its own, started at first use; its work is done one at a time, in order.
    enum class Lane { Work, Names };
    /// Runs `work` on a worker thread and gives its result back on the reactor's thread.
    template <typename Work>
    Task<std::invoke_result_t<Work>> worker(Work work, Lane lane = Lane::Work);
    /// Resumes with the number of the next of these signals. Later ones are queued while nobody waits.
    Task<int> wait_for_signal();
    /// From now on these signals come to wait_for_signal() instead of their default action.
    void catch_signals(std::initializer_list<int> signals);

    struct Impl;
    Impl& impl() { return *impl_; }

private:
    friend void spawn(Reactor&, std::string, Task<void>);
    void post_to_worker(Lane lane, std::function<void()> work);

    std::unique_ptr<Impl> impl_;
};

/// Starts a coroutine that nobody waits for; an exception that leaves it is logged under `name`.
void spawn(Reactor& reactor, std::string name, Task<void> task);
/// The same for coroutines that can fail: an error in the end is logged under `name`.
void spawn(Reactor& reactor, std::string name, Task<Result<void>> task);

/// Calls back once, later; re-arming or destroying it cancels.
class Timer {
public:
    explicit Timer(Reactor& reactor);
    ~Timer();
    Timer(Timer&&) noexcept;
    Timer& operator=(Timer&&) noexcept;
    void after(Duration duration, std::function<void()> callback);
    void cancel();

    struct Impl;

private:
    std::shared_ptr<Impl> impl_;
};

/// Something happened. notify() wakes everyone who waits; when nobody waits it is remembered for the next to wait.
class Event {
public:
    explicit Event(Reactor& reactor) : reactor_(reactor) {}
    ~Event();
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;

    void notify();
    Task<void> wait();
    /// False when `duration` passed first.
    Task<bool> wait_for(Duration duration);

private:
    struct Waiter;
    struct WaitAwaiter;
    Reactor& reactor_;
    bool set_ = false;
    std::vector<Waiter*> waiters_;
};

/// A non-blocking descriptor and the wish to be told when it is ready. At most one waiter a direction.
class Descriptor {
public:
    Descriptor(Reactor& reactor, Fd fd);
    ~Descriptor();
    Descriptor(Descriptor&&) noexcept;
    Descriptor& operator=(Descriptor&&) noexcept;

    enum class Direction { Read, Write };
    struct Impl;
    /// Awaitable; gives Result<void>. Fails with ECANCELED after close().
    class Wait {
    public:
        Wait(std::shared_ptr<Impl> impl, Direction direction) : impl_(std::move(impl)), direction_(direction) {}
        bool await_ready() const noexcept { return false; }
        void await_suspend(std::coroutine_handle<> waiting);
        Result<void> await_resume() const;

    private:
        std::shared_ptr<Impl> impl_;
        Direction direction_;
        int error_ = 0;
    };
    Wait readable() { return Wait{impl_, Direction::Read}; }
    Wait writable() { return Wait{impl_, Direction::Write}; }

    int fd() const; ///< -1 after close()
    /// Waiters end with ECANCELED.
    void close();
    /// Gives the descriptor away, no longer watched.
    Fd release();
    Reactor& reactor() const;

private:
    std::shared_ptr<Impl> impl_;
};

namespace detail {

/// Suspends, hands its handle to `start`, and is resumed by whoever that told.
template <typename Start>
struct Suspend {
    Start start;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiting) { start(waiting); }
    void await_resume() const noexcept {}
};
template <typename Start>
Suspend(Start) -> Suspend<Start>;

} // namespace detail

template <typename Work>
Task<std::invoke_result_t<Work>> Reactor::worker(Work work, Lane lane) {
    using Value = std::invoke_result_t<Work>;
    if constexpr (std::is_void_v<Value>) {
        auto start = [this, &work, lane](std::coroutine_handle<> waiting) {
            post_to_worker(lane, [this, &work, waiting] {
                work();
                post([waiting] { waiting.resume(); });
            });
        };
        co_await detail::Suspend{start};
    } else {
        std::optional<Value> value;
        auto start = [this, &work, &value, lane](std::coroutine_handle<> waiting) {
            post_to_worker(lane, [this, &work, &value, waiting] {
                value.emplace(work());
                post([waiting] { waiting.resume(); });
            });
        };
        co_await detail::Suspend{start};
        co_return std::move(*value);
    }
}

} // namespace tailrace
