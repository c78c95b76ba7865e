// relay/core/core_connections.cpp - connections come, wait, write and go.
#include "base/log.hpp"
#include "base/random.hpp"
#include "relay/core/core.hpp"

#include <sys/epoll.h>

#include <algorithm>

namespace tailrace::relay {
namespace {

constexpr std::size_t kMostDirty = 512;            // then they are flushed before the end of the round
constexpr std::size_t kNoticeLimit = 64 * 1024;    // of a slow client
constexpr std::size_t kMeshNoticeLimit = 64 << 20; // a flood of presence: a million keys

} // namespace

Outbox::Way Core::way_of(Connection& connection) {
    return {connection.transport, pool_, connection.websocket.get(), now_};
}

Connection* Core::find(Slot slot, std::uint32_t generation) {
    if (slot >= connections_.size() || generations_[slot] != generation) return nullptr;
    Connection* connection = connections_[slot].get();
    return connection == nullptr || connection->closed ? nullptr : connection;
}

void Core::adopt(std::unique_ptr<Connection> arrived) {
    Slot slot = 0;
    if (free_slots_.empty()) {
        slot = static_cast<Slot>(connections_.size());
        connections_.emplace_back();
        generations_.push_back(0);
    } else {
        slot = free_slots_.back();
        free_slots_.pop_back();
    }
    connections_[slot] = std::move(arrived);
    Connection& connection = *connections_[slot];
    connection.ref = {number_, slot, generations_[slot]};
    connection.wants_write = connection.reading = false;
    connection.timer_tick = 0;
    counters_.connections.add();
    epoll_event event{};
    event.data.u64 = std::uint64_t{connection.ref.generation} << 32 | slot;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, connection.transport.fd(), &event) != 0)
        return close(connection, "epoll refuses its socket");
    if (connection.phase == Phase::Admission) return ask_for_admission(connection); // it has moved here
    connection.deadline = now_ + settings_.login_timeout;
    set_timer(connection, connection.deadline);
    if (connection.phase == Phase::Connecting) {
        connection.wants_write = true;
        return watch(connection);
    }
    set_reading(connection, true);
    if (connection.phase == Phase::TlsHandshake) {
        if (!tls_ || !connection.transport.start_tls_server(tls_->get())) close(connection, "TLS is not available");
    }
}

void Core::close(Connection& connection, std::string_view why) {
    if (connection.closed) return;
    connection.closed = true;
    Slot slot = connection.ref.slot;
    if (log::level() == log::Level::Debug)
        log::debug("connection closed",
                   {{"peer", connection.peer}, {"key", connection.key.short_text()}, {"why", why}});
    counters_.connections.subtract();
    if (connection.link) {
        if (connection.registered) {
            counters_.mesh_links.subtract();
            for_all_cores([ref = connection.ref](Core& core) { core.table_.remove_link(ref); });
        }
        connection.link->on_end(std::string{why}, false);
    } else if (connection.registered) {
        counters_.clients.subtract();
        if (connection.home) counters_.home_clients.subtract();
        if (connection.websocket) counters_.websocket_clients.subtract();
        if (connection.watcher) {
            counters_.watchers.subtract();
            for_all_cores([ref = connection.ref](Core& core) { core.table_.remove_watcher(ref); });
        }
        table_.remove(slot);
    }
    ++generations_[slot];
    if (generations_[slot] >= 0xffffff00) generations_[slot] = 0; // those above mark other things, see core.cpp
    graveyard_.push_back(std::move(connections_[slot]));
    free_slots_.push_back(slot);
}

// -- what epoll and the timers shall tell

void Core::watch(Connection& connection) {
    epoll_event event{};
    event.events = (connection.reading ? EPOLLIN : 0U) | (connection.wants_write ? EPOLLOUT : 0U);
    event.data.u64 = std::uint64_t{connection.ref.generation} << 32 | connection.ref.slot;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, connection.transport.fd(), &event) != 0)
        close(connection, "epoll refuses its socket");
}

void Core::set_reading(Connection& connection, bool reading) {
    if (connection.reading == reading) return;
    connection.reading = reading;
    watch(connection);
}

// A connection has one entry in the wheel that matters, the earliest.
void Core::set_timer(Connection& connection, TimePoint at) {
    TimerWheel::Tick tick = timers_.tick_of(at);
    if (connection.timer_tick != 0 && connection.timer_tick <= tick) return;
    connection.timer_tick = timers_.set(at, connection.ref.slot, connection.ref.generation);
}

void Core::on_timer(Slot slot, std::uint32_t generation) {
    Connection* found = find(slot, generation);
    if (found == nullptr || found->timer_tick != timers_.now()) return;
    Connection& connection = *found;
    connection.timer_tick = 0;
    if (connection.outbox.blocked()) {
        Duration limit = connection.mesh || connection.link ? settings_.mesh_write_timeout : settings_.write_timeout;
        TimePoint until = connection.outbox.blocked_since() + limit;
        if (until <= now_) {
            counters_.write_timeouts.add();
            return close(connection, "it does not take what is written");
        }
        set_timer(connection, until);
    }
    if (connection.deadline > now_) return set_timer(connection, connection.deadline);
    if (connection.phase == Phase::Ready && !connection.link) {
        notice(connection, derp::FrameType::KeepAlive, {});
        auto jitter = settings_.keep_alive_jitter.count() * static_cast<std::int64_t>(slot % 97) / 97;
        connection.deadline = now_ + settings_.keep_alive + Duration{jitter};
        return set_timer(connection, connection.deadline);
    }
    if (connection.phase == Phase::Ready) return close(connection, "the other relay is silent");
    if (connection.phase != Phase::Farewell) counters_.login_timeouts.add();
    close(connection, connection.phase == Phase::Farewell ? "done" : "it took too long");
}

// -- the pace of clients

void Core::limit_rate(Connection& connection) {
    bool limited = rate_limit_.bytes_per_second > 0 && !connection.mesh && !connection.link;
    connection.rate =
        limited ? std::make_unique<TokenBucket>(rate_limit_.bytes_per_second, rate_limit_.burst_bytes, now_) : nullptr;
}

void Core::go_on_reading(const ConnectionRef& paused) {
    Connection* connection = find(paused.slot, paused.generation);
    if (connection == nullptr || connection->phase != Phase::Ready || stopping_reads_) return;
    set_reading(*connection, true);
    if (!connection->closed) on_readable(*connection);
}

void Core::set_rate_limit(const RateLimit& limit) {
    if (limit == rate_limit_) return;
    rate_limit_ = limit;
    for (auto& connection : connections_)
        if (connection && connection->phase == Phase::Ready) limit_rate(*connection);
    // Who waits by the old limit might wait for hours.
    auto paused = std::exchange(paused_, {});
    for (; !paused.empty(); paused.pop()) go_on_reading(paused.top().who);
}

// -- writing

void Core::mark_dirty(Connection& connection) {
    if (connection.outbox.blocked()) {
        if (!connection.wants_write) after_flush(connection, Outbox::Flushed::Blocked);
        return;
    }
    if (connection.dirty) return;
    connection.dirty = true;
    dirty_.push_back(connection.ref);
    if (dirty_.size() >= kMostDirty) flush_dirty();
}

void Core::flush_dirty() {
    // Flushing may close, and closing may tell others, who become dirty.
    while (!dirty_.empty()) {
        auto dirty = std::move(dirty_);
        dirty_.clear();
        for (const ConnectionRef& ref : dirty) {
            Connection* connection = find(ref.slot, ref.generation);
            if (connection == nullptr) continue;
            connection->dirty = false;
            flush(*connection);
        }
        if (table_.has_actions()) carry_out(table_.take_actions());
    }
}

void Core::flush(Connection& connection) {
    after_flush(connection, connection.outbox.flush(way_of(connection)));
}

void Core::after_flush(Connection& connection, Outbox::Flushed flushed) {
    if (flushed == Outbox::Flushed::Failed) return close(connection, "writing fails");
    bool blocked = flushed == Outbox::Flushed::Blocked;
    if (!blocked) connection.pong_waits = false;
    if (blocked) {
        Duration limit = connection.mesh || connection.link ? settings_.mesh_write_timeout : settings_.write_timeout;
        set_timer(connection, connection.outbox.blocked_since() + limit);
    }
    if (blocked != connection.wants_write) {
        connection.wants_write = blocked;
        watch(connection);
    }
    if (!blocked && connection.phase == Phase::Farewell && !connection.closed) connection.transport.finish_writing();
}

void Core::notice(Connection& connection, derp::FrameType type, BytesView payload) {
    if (connection.closed || connection.phase == Phase::Farewell) return;
    std::array<std::byte, 128> small;
    Bytes large;
    std::span<std::byte> frame{small};
    if (derp::kHeaderSize + payload.size() > small.size()) {
        large.resize(derp::kHeaderSize + payload.size());
        frame = large;
    }
    frame = frame.first(derp::kHeaderSize + payload.size());
    derp::write_header(frame.first<derp::kHeaderSize>(), type, payload.size());
    if (!payload.empty()) std::memcpy(frame.data() + derp::kHeaderSize, payload.data(), payload.size());
    std::size_t limit = connection.mesh || connection.link ? kMeshNoticeLimit : kNoticeLimit;
    if (!connection.outbox.add_notice(way_of(connection), frame, limit))
        return close(connection, "too much waits for it");
    mark_dirty(connection);
}

void Core::write_text(Connection& connection, std::string_view text) {
    if (text.empty()) return;
    if (!connection.outbox.add_notice(way_of(connection), as_bytes(text), kMeshNoticeLimit))
        return close(connection, "writing fails");
    mark_dirty(connection);
}

void Core::carry_out(std::vector<TableAction> actions) {
    std::vector<std::vector<Tell>> elsewhere(cores_);
    for (TableAction& action : actions) {
        if (auto* left = std::get_if<KeyLeft>(&action)) {
            for_all_cores([key = left->key](Core& core) { core.table_.on_key_left(key); });
            continue;
        }
        Tell& tell = std::get<Tell>(action);
        if (tell.to.core != number_) {
            elsewhere[tell.to.core].push_back(std::move(tell));
            continue;
        }
        Connection* connection = find(tell.to.slot, tell.to.generation);
        if (connection == nullptr) continue;
        if (tell.type == derp::FrameType::PeerGone) counters_.peer_gone_sent.add();
        notice(*connection, tell.type, tell.payload);
    }
    for (std::uint32_t core = 0; core < cores_; ++core) {
        if (elsewhere[core].empty()) continue;
        shared_.cores[core]->post([tells = std::move(elsewhere[core])](Core& other) {
            std::vector<TableAction> theirs{tells.begin(), tells.end()};
            other.carry_out(std::move(theirs));
        });
    }
    if (table_.has_actions()) carry_out(table_.take_actions());
}

// Here at once, elsewhere soon, and after the packets that are already on their way there.
void Core::for_all_cores(const std::function<void(Core&)>& job) {
    for (std::uint32_t core = 0; core < cores_; ++core) {
        if (core == number_) continue;
        send_batch(core);
        shared_.cores[core]->post(job);
    }
    job(*this);
}

// -- the end

void Core::announce_restart(const derp::Restarting& restarting) {
    Bytes payload = derp::write_restarting(restarting);
    for (std::size_t slot = 0; slot < connections_.size(); ++slot) {
        Connection* connection = connections_[slot].get();
        if (connection != nullptr && connection->phase == Phase::Ready && !connection->link)
            notice(*connection, derp::FrameType::Restarting, payload);
    }
}

void Core::stop_reading() {
    stopping_reads_ = true;
    for (auto& connection : connections_)
        if (connection && connection->phase == Phase::Ready) set_reading(*connection, false);
}

bool Core::is_quiet() const {
    for (std::uint32_t from = 0; from < cores_; ++from)
        if (shared_.rings[from][number_] && !shared_.rings[from][number_]->empty()) return false;
    for (const auto& connection : connections_)
        if (connection && connection->phase == Phase::Ready && !connection->outbox.empty()) return false;
    return true;
}

// An orderly end of the stream. What still comes in is read and thrown away: closing a socket with something unread in
// it resets the connection, and the client could lose what is on its way to it.
void Core::say_goodbye() {
    for (auto& connection : connections_) {
        if (!connection || connection->phase != Phase::Ready) continue;
        connection->phase = Phase::Farewell;
        connection->deadline = now_ + kFarewell;
        connection->transport.finish_writing();
        set_timer(*connection, connection->deadline);
        set_reading(*connection, true);
    }
}

void Core::set_key_list(std::shared_ptr<const KeyList> list) {
    key_list_ = std::move(list);
    if (!key_list_) return;
    for (std::size_t slot = 0; slot < connections_.size(); ++slot) {
        Connection* connection = connections_[slot].get();
        bool client = connection != nullptr && connection->phase == Phase::Ready && !connection->link;
        if (client && !connection->mesh && !key_list_->contains(connection->key))
            close(*connection, "its key is no longer in the list");
    }
}

} // namespace tailrace::relay
