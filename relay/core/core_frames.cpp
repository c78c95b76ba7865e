// relay/core/core_frames.cpp - what arrives, cut into frames, and what each frame means (derp-disco-paths.md 1.5
// to 1.7).
#include "base/log.hpp"
#include "relay/core/core.hpp"

namespace tailrace::relay {

using derp::FrameType;

namespace {

constexpr std::size_t kTlsRecord = 16 * 1024; // the most that one TLS read gives
constexpr std::size_t kLongestNotice = 1024;  // of what a mesh link tells us

PacketKind kind_of(BytesView packet) {
    return derp::looks_like_disco(packet) ? PacketKind::Disco : PacketKind::Other;
}

} // namespace

// -- bytes

// One turn of one client: at most a scratch buffer full, then others have theirs.
void Core::on_readable(Connection& connection) {
    ConnectionRef ref = connection.ref;
    std::size_t filled = 0;
    bool ended = false, maybe_more = false;
    do {
        Attempt attempt = connection.transport.read(std::span{scratch_}.subspan(filled));
        if (attempt.outcome != Attempt::Outcome::Ok) {
            ended = attempt.outcome == Attempt::Outcome::Closed;
            break;
        }
        filled += attempt.bytes;
        // epoll knows nothing of what OpenSSL holds.
        maybe_more = connection.transport.has_buffered();
    } while (maybe_more && scratch_.size() - filled >= kTlsRecord);
    if (filled > 0) on_bytes(connection, BytesView{scratch_}.first(filled));
    Connection* still_here = find(ref.slot, ref.generation); // it may have been closed, or moved to another core
    if (still_here == nullptr) return;
    if (ended) return close(connection, connection.link ? "the other relay closes it" : "the client has gone");
    if (maybe_more && connection.reading && !connection.again && connection.transport.has_buffered()) {
        connection.again = true;
        again_.push_back(ref);
    }
    if (!connection.rate || connection.phase != Phase::Ready) return;
    Duration wait = connection.rate->take(now_, static_cast<double>(filled));
    if (wait <= Duration::zero()) return;
    set_reading(*still_here, false); // TCP holds the client back
    paused_.push({now_ + wait, ref});
}

void Core::on_bytes(Connection& connection, BytesView data) {
    switch (connection.phase) {
    case Phase::HttpHead:
        return on_head(connection, data);
    case Phase::Login:
    case Phase::Ready: {
        if (!connection.websocket) return on_frames(connection, data);
        Bytes plain;
        ConnectionRef ref = connection.ref;
        auto opened = connection.websocket->open(data, plain);
        if (!plain.empty()) on_frames(connection, plain);
        Connection* still_here = find(ref.slot, ref.generation);
        if (!opened && still_here != nullptr) close(*still_here, opened.error().message());
        return;
    }
    case Phase::Admission: // a frame more than the one that we waited for, in the same read
        connection.opening->early.insert(connection.opening->early.end(), data.begin(), data.end());
        return;
    case Phase::Connecting:
    case Phase::TlsHandshake:
    case Phase::Farewell:
        return;
    }
}

std::optional<std::size_t> Core::limit_of(Connection& connection, FrameType type) {
    if (connection.phase == Phase::Login) return connection.link ? kLongestNotice : derp::kMaxClientInfo;
    if (connection.link) {
        connection.deadline = now_ + settings_.silence_limit;
        bool known = type == FrameType::PeerPresent || type == FrameType::PeerGone || type == FrameType::Ping;
        return known ? std::optional{kLongestNotice} : std::nullopt;
    }
    table_.on_frame(connection.ref.slot); // also frames that nobody knows
    switch (type) {
    case FrameType::SendPacket:
        return NodeKey::kSize + derp::kMaxPacket;
    case FrameType::ForwardPacket:
        return 2 * NodeKey::kSize + derp::kMaxPacket;
    case FrameType::NotePreferred:
        return 1;
    case FrameType::WatchConns:
        return 0;
    case FrameType::ClosePeer:
        return NodeKey::kSize;
    case FrameType::Ping:
        return derp::kMaxPing;
    default:
        return std::nullopt;
    }
}

void Core::on_frames(Connection& connection, BytesView data) {
    Result<void> outcome;
    while (!data.empty() && !connection.closed) {
        Phase phase = connection.phase;
        auto limit = [&](FrameType type) { return limit_of(connection, type); };
        auto taken = connection.frames.feed(data, limit, [&](FrameType type, BytesView payload) {
            outcome =
                connection.link ? on_link_frame(connection, type, payload) : on_client_frame(connection, type, payload);
            bool go_on = outcome && !connection.closed && connection.phase == phase;
            return go_on ? derp::FrameStream::Next::Continue : derp::FrameStream::Next::Stop;
        });
        if (connection.closed) break;
        if (!taken) {
            close(connection, taken.error().message());
            break;
        }
        if (!outcome) {
            close(connection, outcome.error().message());
            break;
        }
        data = data.subspan(*taken);
        if (connection.phase == Phase::Admission) {
            connection.opening->early.assign(data.begin(), data.end());
            return go_home(connection); // it may be on another core after this
        }
    }
    if (connection.link) send_presence();
}

// -- frames of clients

Result<void> Core::on_client_frame(Connection& connection, FrameType type, BytesView payload) {
    if (connection.phase == Phase::Login) {
        if (type != FrameType::ClientInfo) return Error::make("a frame before the login");
        return on_client_info(connection, payload);
    }
    bool privileged = type == FrameType::ForwardPacket || type == FrameType::WatchConns || type == FrameType::ClosePeer;
    if (privileged && !connection.mesh) return Error::make("a frame that is for relays with the mesh key only");
    switch (type) {
    case FrameType::SendPacket:
        return on_send(connection, payload);
    case FrameType::ForwardPacket:
        return on_forward(connection, payload);
    case FrameType::NotePreferred: {
        auto home = derp::parse_note_preferred(payload);
        if (!home) return home.error();
        if (*home && !connection.home) counters_.home_clients.add();
        if (!*home && connection.home) counters_.home_clients.subtract();
        connection.home = *home;
        return {};
    }
    case FrameType::WatchConns:
        if (connection.watcher || connection.key == settings_.public_key) return {};
        connection.watcher = true;
        counters_.watchers.add();
        for_all_cores([ref = connection.ref](Core& core) { core.table_.add_watcher(ref); });
        return {};
    case FrameType::ClosePeer: {
        auto key = derp::parse_close_peer(payload);
        if (!key) return key.error();
        std::uint32_t home = home_core(*key, cores_);
        if (home == number_)
            close_key(*key);
        else
            shared_.cores[home]->post([key = *key](Core& core) { core.close_key(key); });
        return {};
    }
    case FrameType::Ping: {
        auto ping = derp::parse_ping(payload);
        if (!ping) return ping.error();
        counters_.pings.add();
        if (connection.pong_waits) return {}; // one at a time
        connection.pong_waits = connection.outbox.blocked();
        notice(connection, FrameType::Pong, *ping);
        return {};
    }
    default:
        return {};
    }
}

void Core::close_key(const NodeKey& key) {
    for (Slot slot : table_.connections_of(key)) close(*connections_[slot], "another relay closes it");
}

Result<void> Core::on_send(Connection& connection, BytesView payload) {
    auto view = derp::parse_packet(payload);
    if (!view) return view.error();
    counters_.packets_received.add();
    counters_.bytes_received.add(view->packet.size());
    MailHead head{MailType::Packet,     static_cast<std::uint32_t>(view->packet.size()),
                  connection.ref.slot,  connection.ref.generation,
                  connection.key.raw(), view->key.raw()};
    std::uint32_t home = home_core(view->key, cores_);
    if (home == number_)
        deliver(head, number_, view->packet);
    else
        mail(home, head, view->packet);
    return {};
}

Result<void> Core::on_forward(Connection& connection, BytesView payload) {
    auto view = derp::parse_forward(payload);
    if (!view) return view.error();
    counters_.packets_forwarded_in.add();
    MailHead head{MailType::Forwarded, static_cast<std::uint32_t>(view->packet.size()),
                  connection.ref.slot, connection.ref.generation,
                  view->from.raw(),    view->to.raw()};
    std::uint32_t home = home_core(view->to, cores_);
    if (home == number_)
        deliver(head, number_, view->packet);
    else
        mail(home, head, view->packet);
    return {};
}

// -- packets at the home of their destination

void Core::deliver(const MailHead& head, std::uint32_t from_core, BytesView packet) {
    NodeKey to{head.to};
    bool forwarded = head.type == MailType::Forwarded;
    Route route = table_.route(to);
    if (route.kind == Route::Kind::Local) return send_packet(*connections_[route.local], NodeKey{head.from}, packet);
    if (route.kind == Route::Kind::Forward && !forwarded) { // one hop, never two
        if (route.link.core == number_) return forward_packet(route.link, NodeKey{head.from}, to, packet);
        MailHead onward = head;
        onward.type = MailType::ToLink;
        onward.slot = route.link.slot;
        onward.generation = route.link.generation;
        return mail(route.link.core, onward, packet);
    }
    PacketKind kind = kind_of(packet);
    counters_.drop(forwarded ? DropReason::UnknownDestinationOnForward : DropReason::UnknownDestination, kind);
    if (kind != PacketKind::Disco) return;
    if (from_core == number_) return tell_not_here(head.slot, head.generation, to);
    MailHead back = head;
    back.type = MailType::NotHere;
    back.size = 0;
    mail(from_core, back, {});
}

void Core::send_packet(Connection& to, const NodeKey& from, BytesView packet) {
    if (to.phase != Phase::Ready || to.closed) return counters_.drop(DropReason::GoneDisconnected, kind_of(packet));
    std::size_t size = derp::kHeaderSize + NodeKey::kSize + packet.size();
    auto dropped = to.outbox.add_packet(way_of(to), kind_of(packet), size, [&](std::span<std::byte> out) {
        derp::write_packet_frame(out, FrameType::RecvPacket, from, packet);
    });
    if (to.outbox.failed()) {
        counters_.drop(DropReason::WriteError, kind_of(packet));
        return close(to, "writing fails");
    }
    if (dropped) counters_.drop(DropReason::QueueHead, *dropped);
    counters_.packets_sent.add();
    counters_.bytes_sent.add(packet.size());
    table_.on_delivered(to.ref.slot, from);
    mark_dirty(to);
}

void Core::forward_packet(const ConnectionRef& link, const NodeKey& from, const NodeKey& to, BytesView packet) {
    Connection* connection = find(link.slot, link.generation);
    if (connection == nullptr || connection->phase != Phase::Ready)
        return counters_.drop(DropReason::GoneDisconnected, kind_of(packet));
    std::size_t size = derp::kHeaderSize + 2 * NodeKey::kSize + packet.size();
    auto dropped =
        connection->outbox.add_packet(way_of(*connection), kind_of(packet), size, [&](std::span<std::byte> out) {
            derp::write_forward_frame(out, from, to, packet);
        });
    if (connection->outbox.failed()) {
        counters_.drop(DropReason::WriteError, kind_of(packet));
        return close(*connection, "writing fails");
    }
    if (dropped) counters_.drop(DropReason::QueueHead, *dropped);
    counters_.packets_forwarded_out.add();
    mark_dirty(*connection);
}

void Core::tell_not_here(Slot slot, std::uint32_t generation, const NodeKey& key) {
    Connection* sender = find(slot, generation);
    if (sender == nullptr || !sender->not_here.try_take(now_)) return;
    counters_.peer_gone_sent.add();
    notice(*sender, FrameType::PeerGone, derp::write_peer_gone({key, derp::GoneReason::NotHere}));
}

// -- frames of the relay at the other end of a mesh link

Result<void> Core::on_link_frame(Connection& connection, FrameType type, BytesView payload) {
    if (connection.phase == Phase::Login) {
        if (type != FrameType::ServerKey) return Error::make("a frame before its key");
        return on_server_key(connection, payload);
    }
    if (type == FrameType::PeerPresent) {
        auto present = derp::parse_peer_present(payload);
        if (!present) return present.error();
        if (present->key != settings_.public_key) note_presence(present->key, connection.ref, true);
    } else if (type == FrameType::PeerGone) {
        auto gone = derp::parse_peer_gone(payload);
        if (!gone) return gone.error();
        note_presence(gone->key, connection.ref, false);
    } else if (type == FrameType::Ping) {
        auto ping = derp::parse_ping(payload);
        if (!ping) return ping.error();
        notice(connection, FrameType::Pong, *ping);
    }
    return {};
}

// Gathered, since a flood of them comes when a link comes up.
void Core::note_presence(const NodeKey& key, const ConnectionRef& link, bool present) {
    presence_[home_core(key, cores_)].push_back({key, link, present});
}

void Core::send_presence() {
    for (std::uint32_t core = 0; core < cores_; ++core) {
        if (presence_[core].empty()) continue;
        auto take_in = [changes = std::move(presence_[core])](Core& home) {
            for (const Presence& change : changes) {
                if (change.present)
                    home.table_.add_forwarder(change.key, change.link);
                else
                    home.table_.remove_forwarder(change.key, change.link);
            }
        };
        presence_[core].clear();
        if (core == number_)
            take_in(*this);
        else
            shared_.cores[core]->post(std::move(take_in));
    }
}

} // namespace tailrace::relay
