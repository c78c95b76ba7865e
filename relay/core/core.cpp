// relay/core/core.cpp - the loop of a core: events, mail from other cores, timers, and then one write to each client.
#include "relay/core/core.hpp"

#include "relay/net/listen.hpp"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>

namespace tailrace::relay {
namespace {

constexpr int kEventsAtOnce = 128;
constexpr std::size_t kScratchBytes = 128 * 1024;
constexpr int kAcceptsAtOnce = 64;
constexpr Duration kAcceptPause = std::chrono::milliseconds{200};
constexpr std::size_t kBatchesAtOnce = 64; // from one core, before clients have their turn

TimePoint steady_now() {
    return std::chrono::time_point_cast<Duration>(std::chrono::steady_clock::now());
}

// Slots stay far below: the high half of a tag is a generation for connections, and this for the rest.
constexpr std::uint64_t kSpecialMark = 0xffffff00;

std::uint64_t special_tag(std::uint32_t which, std::uint32_t index) {
    return (kSpecialMark | which) << 32 | index;
}

bool watch_fd(int epoll, int fd, std::uint64_t tag) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = tag;
    return ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

} // namespace

Core::Core(Shared& shared, std::uint32_t number, Fd epoll, Fd wake)
    : shared_(shared), settings_(shared.settings), number_(number),
      cores_(static_cast<std::uint32_t>(shared.rings.size())), epoll_(std::move(epoll)), wake_(std::move(wake)),
      now_(steady_now()), scratch_(kScratchBytes), timers_(now_), table_(number), batches_(cores_), presence_(cores_) {}

Result<std::unique_ptr<Core>> Core::create(Shared& shared, std::uint32_t number) {
    Fd epoll{::epoll_create1(EPOLL_CLOEXEC)};
    Fd wake{::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    if (!epoll || !wake ||
        !watch_fd(epoll.get(), wake.get(), special_tag(static_cast<std::uint32_t>(Special::Wake), 0)))
        return Error::from_errno(errno, "start core {}", number);
    return std::unique_ptr<Core>{new Core(shared, number, std::move(epoll), std::move(wake))};
}

Core::~Core() {
    join();
}

void Core::start() {
    thread_ = std::thread{[this] { run(); }};
}

void Core::join() {
    if (thread_.joinable()) thread_.join();
}

// -- what other threads may call

void Core::post(std::function<void(Core&)> job) {
    {
        std::lock_guard lock{inbox_mutex_};
        jobs_.push_back(std::move(job));
        inbox_full_.store(true, std::memory_order_seq_cst);
    }
    wake_if_asleep();
}

void Core::give(std::unique_ptr<Connection> connection) {
    {
        std::lock_guard lock{inbox_mutex_};
        arrivals_.push_back(std::move(connection));
        inbox_full_.store(true, std::memory_order_seq_cst);
    }
    wake_if_asleep();
}

// Whoever finds it asleep wakes it; the others need not.
void Core::wake_if_asleep() {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (!asleep_.load(std::memory_order_relaxed) || !asleep_.exchange(false)) return;
    std::uint64_t one = 1;
    (void)!::write(wake_.get(), &one, sizeof one); // it fails only when the core has been woken 2^64 times
}

// -- the loop

void Core::run() {
    while (!stopped_) one_round();
    for (auto& connection : connections_)
        if (connection) close(*connection, "the relay stops");
    finish_round();
}

bool Core::has_work_waiting() {
    if (inbox_full_.load(std::memory_order_seq_cst) || !again_.empty()) return true;
    for (std::uint32_t from = 0; from < cores_; ++from)
        if (shared_.rings[from][number_] && !shared_.rings[from][number_]->empty()) return true;
    return false;
}

int Core::wait_ms() {
    Duration wait = timers_.empty() ? std::chrono::seconds{10} : TimerWheel::kTick;
    if (!paused_.empty()) wait = std::min(wait, paused_.top().until - now_);
    if (accepting_paused_) wait = std::min(wait, accept_again_ - now_);
    auto ms = std::chrono::ceil<std::chrono::milliseconds>(wait).count();
    return static_cast<int>(std::clamp<std::int64_t>(ms, 0, 10'000));
}

void Core::one_round() {
    int timeout = wait_ms();
    asleep_.store(true, std::memory_order_seq_cst);
    std::atomic_thread_fence(std::memory_order_seq_cst); // pairs with the one in wake_if_asleep()
    if (has_work_waiting()) timeout = 0;
    std::array<epoll_event, kEventsAtOnce> events;
    int count = ::epoll_wait(epoll_.get(), events.data(), kEventsAtOnce, timeout);
    asleep_.store(false, std::memory_order_seq_cst);
    now_ = steady_now();
    counters_.wakes.add();

    for (int i = 0; i < count; ++i)
        on_event(events[static_cast<std::size_t>(i)].data.u64, events[static_cast<std::size_t>(i)].events);
    auto again = std::move(again_);
    again_.clear();
    for (const ConnectionRef& ref : again) {
        Connection* connection = find(ref.slot, ref.generation);
        if (connection == nullptr) continue;
        connection->again = false;
        if (connection->reading) on_readable(*connection); // else it is paused, and read when it goes on
    }
    take_arrivals();
    while (!paused_.empty() && paused_.top().until <= now_) {
        ConnectionRef ref = paused_.top().who;
        paused_.pop();
        go_on_reading(ref);
    }
    if (accepting_paused_ && accept_again_ <= now_) {
        accepting_paused_ = false;
        for (auto& listener : listeners_) accept_all(listener);
    }
    timers_.advance(now_, [this](Slot slot, std::uint32_t generation) { on_timer(slot, generation); });
    finish_round();
}

void Core::finish_round() {
    if (table_.has_actions()) carry_out(table_.take_actions());
    flush_dirty();
    send_batches();
    graveyard_.clear();
    counters_.keys.set(table_.keys());
    counters_.duplicate_keys.set(table_.duplicate_keys());
    counters_.forwarded_keys.set(table_.forwarded_keys());
}

void Core::on_event(std::uint64_t tag, std::uint32_t events) {
    auto high = static_cast<std::uint32_t>(tag >> 32);
    auto low = static_cast<std::uint32_t>(tag);
    if ((high & kSpecialMark) == kSpecialMark) {
        switch (static_cast<Special>(high & 0xff)) {
        case Special::Wake: {
            std::uint64_t unused = 0;
            (void)!::read(wake_.get(), &unused, sizeof unused); // only its readiness counts
            return;
        }
        case Special::Listener:
            if (low < listeners_.size()) accept_all(listeners_[low]);
            return;
        case Special::Stun:
            if (stun_) stun_->on_readable(counters_);
            return;
        }
        return;
    }
    Connection* connection = find(low, high);
    if (connection == nullptr) return;
    if (connection->phase == Phase::Connecting) return on_connected(*connection);
    if (connection->phase == Phase::TlsHandshake) return continue_handshake(*connection);
    if ((events & EPOLLOUT) != 0) flush(*connection);
    if (connection->closed) return;
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) return;
    if (connection->reading) return on_readable(*connection);
    // Paused: a socket that is broken would be reported again and again.
    if ((events & (EPOLLHUP | EPOLLERR)) != 0) close(*connection, "the client has gone");
}

// Mail comes first: what was posted after it may rely on it.
void Core::take_arrivals() {
    std::vector<std::function<void(Core&)>> jobs;
    std::vector<std::unique_ptr<Connection>> arrivals;
    if (inbox_full_.load(std::memory_order_seq_cst)) {
        std::lock_guard lock{inbox_mutex_};
        jobs.swap(jobs_);
        arrivals.swap(arrivals_);
        inbox_full_.store(false, std::memory_order_seq_cst);
    }
    read_rings();
    for (auto& connection : arrivals) adopt(std::move(connection));
    for (auto& job : jobs) job(*this);
}

// -- mail

void Core::read_rings() {
    for (std::uint32_t from = 0; from < cores_; ++from) {
        BatchRing* ring = shared_.rings[from][number_].get();
        if (ring == nullptr) continue;
        for (std::size_t i = 0; i < kBatchesAtOnce; ++i) {
            Buffer* raw = ring->pop();
            if (raw == nullptr) break;
            BufferPtr batch = pool_.adopt(raw);
            read_mail(*batch, [this, from](const MailHead& head, BytesView packet) { on_mail(from, head, packet); });
        }
    }
}

void Core::on_mail(std::uint32_t from_core, const MailHead& head, BytesView packet) {
    switch (head.type) {
    case MailType::Packet:
    case MailType::Forwarded:
        return deliver(head, from_core, packet);
    case MailType::ToLink:
        return forward_packet({number_, head.slot, head.generation}, NodeKey{head.from}, NodeKey{head.to}, packet);
    case MailType::NotHere:
        return tell_not_here(head.slot, head.generation, NodeKey{head.to});
    }
}

void Core::mail(std::uint32_t core, const MailHead& head, BytesView packet) {
    std::size_t size = sizeof head + packet.size();
    BufferPtr& batch = batches_[core];
    if (batch && batch->room() < size) send_batch(core);
    if (!batch) batch = pool_.take(std::max(size, BufferPool::kLarge));
    write_mail(*batch, head, packet);
}

void Core::send_batch(std::uint32_t core) {
    BufferPtr batch = std::move(batches_[core]);
    if (!batch) return;
    if (shared_.rings[number_][core]->push(batch.get())) {
        (void)batch.release(); // the other core gives it to its own pool
        shared_.cores[core]->wake_if_asleep();
        return;
    }
    // The other core is drowning. Its clients' queues would drop as well; here it costs the least.
    read_mail(*batch, [this](const MailHead&, BytesView packet) {
        counters_.drop(DropReason::CoreBusy, derp::looks_like_disco(packet) ? PacketKind::Disco : PacketKind::Other);
    });
}

void Core::send_batches() {
    for (std::uint32_t core = 0; core < cores_; ++core)
        if (batches_[core]) send_batch(core);
}

// -- accepting

Result<void> Core::add_listener(Fd socket, Door door, bool tls) {
    auto index = static_cast<std::uint32_t>(listeners_.size());
    if (!watch_fd(epoll_.get(), socket.get(), special_tag(static_cast<std::uint32_t>(Special::Listener), index)))
        return Error::from_errno(errno, "watch the listening socket");
    listeners_.push_back({std::move(socket), door, tls});
    return {};
}

Result<void> Core::add_stun(Fd socket) {
    if (!watch_fd(epoll_.get(), socket.get(), special_tag(static_cast<std::uint32_t>(Special::Stun), 0)))
        return Error::from_errno(errno, "watch the STUN socket");
    stun_.emplace(std::move(socket));
    return {};
}

void Core::accept_all(Listener& listener) {
    if (!listener.socket || accepting_paused_) return;
    for (int i = 0; i < kAcceptsAtOnce; ++i) {
        auto accepted = accept_from(listener.socket.get());
        if (!accepted) {
            int code = accepted.error().code();
            if (code == EAGAIN) return;
            if (code == ECONNABORTED || code == EINTR || code == EPROTO) continue;
            // Out of descriptors or memory: those who are here are served, the others wait a moment.
            accepting_paused_ = true;
            accept_again_ = now_ + kAcceptPause;
            return;
        }
        counters_.accepted.add();
        auto connection = std::make_unique<Connection>(std::move(accepted->socket), accepted->peer, listener.door);
        connection->phase = listener.tls ? Phase::TlsHandshake : Phase::HttpHead;
        std::uint32_t core = next_core_++ % cores_;
        if (core == number_)
            adopt(std::move(connection));
        else
            shared_.cores[core]->give(std::move(connection));
    }
}

void Core::close_listeners() {
    for (auto& listener : listeners_) listener.socket.reset();
    stun_.reset();
}

} // namespace tailrace::relay
