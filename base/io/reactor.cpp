#include "base/io/reactor.hpp"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <mutex>
#include <thread>
#include <unordered_set>

namespace tailrace {

namespace asio = boost::asio;
using ErrorCode = boost::system::error_code;

namespace {

// The frame at the bottom of every spawned coroutine. It frees itself at its end; until then the reactor knows it.
struct Root {
    struct promise_type {
        std::unordered_set<void*>* registry = nullptr;
        Root get_return_object() { return Root{std::coroutine_handle<promise_type>::from_promise(*this)}; }
        std::suspend_always initial_suspend() const noexcept { return {}; }
        struct Final {
            bool await_ready() const noexcept { return false; }
            void await_suspend(std::coroutine_handle<promise_type> self) const noexcept {
                self.promise().registry->erase(self.address());
                self.destroy();
            }
            void await_resume() const noexcept {}
        };
        Final final_suspend() const noexcept { return {}; }
        void return_void() const noexcept {}
        void unhandled_exception() const { std::terminate(); } // run_root catches everything
    };
    std::coroutine_handle<promise_type> handle;
};

Root run_root(std::string name, Task<void> task) {
    try {
        co_await std::move(task);
    } catch (const std::exception& e) {
        log::error("coroutine ended with an exception", {{"name", name}, {"error", e.what()}});
    }
}

Task<void> report_error(std::string name, Task<Result<void>> task) {
    auto done = co_await std::move(task);
    if (!done) log::error("coroutine ended with an error", {{"name", name}, {"error", done.error()}});
}

// One thread for slow work, in order. Started at first use.
class Worker {
public:
    ~Worker() { stop(); }
    void stop() {
        {
            std::lock_guard lock{mutex_};
            stopping_ = true;
        }
        wake_.notify_one();
        if (thread_.joinable()) thread_.join();
    }
    void post(std::function<void()> work) {
        std::lock_guard lock{mutex_};
        queue_.push_back(std::move(work));
        if (!thread_.joinable()) thread_ = std::thread{[this] { run(); }};
        wake_.notify_one();
    }

private:
    void run() {
        std::unique_lock lock{mutex_};
        for (;;) {
            wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
            if (stopping_) return; // what was not begun is dropped together with its coroutine
            auto work = std::move(queue_.front());
            queue_.pop_front();
            lock.unlock();
            work();
            lock.lock();
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<std::function<void()>> queue_;
    bool stopping_ = false;
    std::thread thread_;
};

} // namespace

struct Reactor::Impl {
    asio::io_context context{1};
    asio::executor_work_guard<asio::io_context::executor_type> guard{context.get_executor()};
    asio::signal_set signals{context};
    std::unordered_set<void*> roots;
    std::array<Worker, 2> workers; // by Lane
};

Reactor::Reactor() : impl_(std::make_unique<Impl>()) {
    std::signal(SIGPIPE, SIG_IGN); // a peer that left is an error of write(), not the end of the daemon
}

Reactor::~Reactor() {
    for (auto& worker : impl_->workers)
        worker.stop(); // afterwards nobody touches a coroutine's frame from another thread
    while (!impl_->roots.empty()) {
        void* address = *impl_->roots.begin();
        impl_->roots.erase(address);
        std::coroutine_handle<>::from_address(address).destroy();
    }
}

void Reactor::run() {
    impl_->context.run();
}
void Reactor::stop() {
    impl_->context.stop();
}
void Reactor::post(std::function<void()> callback) {
    asio::post(impl_->context, std::move(callback));
}
TimePoint Reactor::now() const {
    return std::chrono::time_point_cast<Duration>(std::chrono::steady_clock::now());
}
void Reactor::post_to_worker(Lane lane, std::function<void()> work) {
    impl_->workers[static_cast<std::size_t>(lane)].post(std::move(work));
}

Task<void> Reactor::sleep(Duration duration) {
    asio::steady_timer timer{impl_->context, duration};
    auto start = [&timer](std::coroutine_handle<> waiting) {
        timer.async_wait([waiting](const ErrorCode& problem) {
            if (!problem) waiting.resume();
        });
    };
    co_await detail::Suspend{start};
}

void Reactor::catch_signals(std::initializer_list<int> signals) {
    for (int signal : signals) impl_->signals.add(signal);
}

Task<int> Reactor::wait_for_signal() {
    int caught = 0;
    auto start = [this, &caught](std::coroutine_handle<> waiting) {
        impl_->signals.async_wait([&caught, waiting](const ErrorCode& problem, int signal) {
            if (problem) return;
            caught = signal;
            waiting.resume();
        });
    };
    co_await detail::Suspend{start};
    co_return caught;
}

void spawn(Reactor& reactor, std::string name, Task<void> task) {
    Root root = run_root(std::move(name), std::move(task));
    auto& roots = reactor.impl().roots;
    root.handle.promise().registry = &roots;
    roots.insert(root.handle.address());
    auto handle = root.handle;
    reactor.post([handle] { handle.resume(); });
}

void spawn(Reactor& reactor, std::string name, Task<Result<void>> task) {
    auto reporting = report_error(name, std::move(task));
    spawn(reactor, std::move(name), std::move(reporting));
}

// ---- Timer

struct Timer::Impl {
    explicit Impl(asio::io_context& context) : timer(context) {}
    asio::steady_timer timer;
    std::uint64_t armed = 0; // a callback of an earlier arming must not run
};

Timer::Timer(Reactor& reactor) : impl_(std::make_shared<Impl>(reactor.impl().context)) {}
Timer::~Timer() {
    if (impl_) cancel();
}
Timer::Timer(Timer&&) noexcept = default;
Timer& Timer::operator=(Timer&& other) noexcept {
    if (this != &other) {
        if (impl_) cancel();
        impl_ = std::move(other.impl_);
    }
    return *this;
}

void Timer::after(Duration duration, std::function<void()> callback) {
    impl_->timer.expires_after(duration);
    std::weak_ptr<Impl> weak = impl_;
    impl_->timer.async_wait([weak, armed = ++impl_->armed, callback = std::move(callback)](const ErrorCode& problem) {
        auto alive = weak.lock();
        if (!problem && alive && alive->armed == armed) callback();
    });
}

void Timer::cancel() {
    ++impl_->armed;
    impl_->timer.cancel();
}

// ---- Event

struct Event::Waiter {
    std::coroutine_handle<> handle;
    bool notified = false;
};

struct Event::WaitAwaiter {
    Event& event;
    Waiter waiter;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiting) {
        waiter.handle = waiting;
        event.waiters_.push_back(&waiter);
    }
    void await_resume() const noexcept {}
};

Event::~Event() = default;

void Event::notify() {
    if (waiters_.empty()) {
        set_ = true;
        return;
    }
    auto woken = std::move(waiters_);
    waiters_.clear();
    for (Waiter* waiter : woken) {
        waiter->notified = true;
        auto handle = waiter->handle;
        reactor_.post([handle] { handle.resume(); });
    }
}

Task<void> Event::wait() {
    if (std::exchange(set_, false)) co_return;
    WaitAwaiter awaiter{*this, {}};
    co_await awaiter;
}

Task<bool> Event::wait_for(Duration duration) {
    if (std::exchange(set_, false)) co_return true;
    WaitAwaiter awaiter{*this, {}};
    Timer timer{reactor_};
    timer.after(duration, [this, &awaiter] {
        auto at = std::find(waiters_.begin(), waiters_.end(), &awaiter.waiter);
        if (at == waiters_.end()) return; // notified meanwhile: it resumes on its own
        waiters_.erase(at);
        awaiter.waiter.handle.resume();
    });
    co_await awaiter;
    co_return awaiter.waiter.notified;
}

// ---- Descriptor

struct Descriptor::Impl {
    Impl(Reactor& owner, Fd fd) : reactor(owner), descriptor(owner.impl().context, fd.release()) {}
    Reactor& reactor;
    asio::posix::stream_descriptor descriptor;
};

Descriptor::Descriptor(Reactor& reactor, Fd fd) {
    if (fd) ::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) | O_NONBLOCK);
    impl_ = std::make_shared<Impl>(reactor, std::move(fd));
}
Descriptor::~Descriptor() {
    if (impl_) close();
}
Descriptor::Descriptor(Descriptor&&) noexcept = default;
Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
    if (this != &other) {
        if (impl_) close();
        impl_ = std::move(other.impl_);
    }
    return *this;
}

void Descriptor::Wait::await_suspend(std::coroutine_handle<> waiting) {
    auto type = direction_ == Direction::Read ? asio::posix::descriptor_base::wait_read
                                              : asio::posix::descriptor_base::wait_write;
    if (!impl_->descriptor.is_open()) {
        error_ = ECANCELED;
        impl_->reactor.post([waiting] { waiting.resume(); });
        return;
    }
    impl_->descriptor.async_wait(type, [this, waiting](const ErrorCode& problem) {
        error_ = problem ? ECANCELED : 0;
        waiting.resume();
    });
}

Result<void> Descriptor::Wait::await_resume() const {
    if (error_ != 0) return Error::from_errno(error_, "wait");
    return {};
}

int Descriptor::fd() const {
    return impl_->descriptor.is_open() ? impl_->descriptor.native_handle() : -1;
}

void Descriptor::close() {
    ErrorCode ignored;
    if (impl_->descriptor.is_open()) impl_->descriptor.close(ignored); // NOLINT(bugprone-unused-return-value)
}

Fd Descriptor::release() {
    return Fd{impl_->descriptor.is_open() ? impl_->descriptor.release() : -1};
}
Reactor& Descriptor::reactor() const {
    return impl_->reactor;
}

} // namespace tailrace
