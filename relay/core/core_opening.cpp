// relay/core/core_opening.cpp - from a fresh socket to a client or a mesh link: TLS, HTTP, login, admission.
#include "base/log.hpp"
#include "relay/core/core.hpp"
#include "relay/net/listen.hpp"

#include <sys/epoll.h>

namespace tailrace::relay {
namespace {

// Source: tailscale derp/derpserver/derpserver.go: one a second, three at once.
constexpr double kNotHerePerSecond = 1, kNotHereBurst = 3;

} // namespace

// -- TLS

void Core::continue_handshake(Connection& connection) {
    Attempt attempt = connection.transport.handshake();
    if (attempt.outcome == Attempt::Outcome::Closed) return close(connection, "the TLS handshake fails");
    bool wants_write = attempt.outcome == Attempt::Outcome::WantWrite;
    if (wants_write != connection.wants_write) {
        connection.wants_write = wants_write;
        watch(connection);
    }
    if (attempt.outcome != Attempt::Outcome::Ok || connection.closed) return;
    if (connection.link) {
        auto good = check_certificate(connection.transport.ssl(), connection.link->expected);
        if (!good) return close(connection, good.error().message());
        return begin_request(connection);
    }
    connection.phase = Phase::HttpHead;
    on_readable(connection);
}

// -- HTTP

void Core::on_head(Connection& connection, BytesView data) {
    std::string& arrived = connection.opening->head;
    arrived += as_chars(data);
    auto head = connection.link ? parse_response_head(arrived) : parse_request_head(arrived);
    if (!head) {
        if (connection.link) return close(connection, head.error().message());
        return say_farewell(connection, write_response(400, "text/plain", "bad request\n", HttpHead{}));
    }
    if (!*head) return;
    std::string rest = arrived.substr((*head)->size); // the other protocol begins here
    arrived = std::string{};
    if (connection.link)
        on_response(connection, **head);
    else
        on_request(connection, **head);
    if (!rest.empty() && !connection.closed && connection.phase == Phase::Login) on_bytes(connection, as_bytes(rest));
}

void Core::on_request(Connection& connection, const HttpHead& head) {
    // A Unix socket is for a program of ours that stands in front, and says whom it brings.
    if (!connection.peer.valid())
        if (auto client = Endpoint::parse(head.get(derp::kClientField))) connection.peer = *client;
    PageContext context;
    context.door = connection.door;
    context.tls = connection.transport.is_tls();
    const IpAddress& from = connection.peer.address;
    context.peer_may_debug = from.is_loopback() || is_tailscale_address(from);
    context.server_key = settings_.public_key;
    context.hostname = settings_.hostname;
    Answer reply = answer(head, context);
    if (reply.wants_metrics)
        return say_farewell(connection, write_response(200, "text/plain; version=0.0.4", shared_.metrics(), head));
    if (!reply.upgrade) return say_farewell(connection, reply.response);
    connection.ideal = reply.upgrade->ideal;
    write_text(connection, reply.upgrade->response);
    if (reply.upgrade->websocket) {
        flush(connection); // the response itself is no WebSocket message
        if (connection.closed) return;
        if (!connection.outbox.empty()) return close(connection, "it does not take a short response");
        connection.websocket = std::make_unique<WebSocketCodec>(WebSocketCodec::Side::Server);
    }
    begin_derp(connection);
}

void Core::say_farewell(Connection& connection, std::string_view response) {
    connection.phase = Phase::Farewell;
    connection.deadline = now_ + kFarewell;
    connection.timer_tick = 0;
    set_timer(connection, connection.deadline);
    write_text(connection, response);
}

// -- login of a client

void Core::begin_derp(Connection& connection) {
    if (connection.closed) return;
    connection.phase = Phase::Login;
    connection.deadline = now_ + settings_.login_timeout;
    notice(connection, derp::FrameType::ServerKey, derp::write_server_key(settings_.public_key));
}

Result<void> Core::on_client_info(Connection& connection, BytesView payload) {
    auto key = derp::parse_client_key(payload);
    if (!key) return key.error();
    auto info = derp::open_client_info(payload, settings_.key);
    if (!info) return info.error();
    connection.key = *key;
    connection.prober = info->is_prober;
    // A wrong key is no error: it is an ordinary client then, which must be admitted like any other.
    connection.mesh = info->mesh_key && settings_.mesh_key && *info->mesh_key == *settings_.mesh_key;
    connection.phase = Phase::Admission;
    return {};
}

// To the core that knows everything about its key.
void Core::go_home(Connection& connection) {
    set_reading(connection, false);
    if (connection.closed) return;
    std::uint32_t home = home_core(connection.key, cores_);
    if (home == number_) return ask_for_admission(connection);
    flush(connection); // what has been written belongs to this core's pool
    if (connection.closed) return;
    if (!connection.outbox.empty()) return close(connection, "it does not take the server's key");
    (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, connection.transport.fd(), nullptr); // it is there
    Slot slot = connection.ref.slot;
    ++generations_[slot];
    free_slots_.push_back(slot);
    counters_.connections.subtract();
    counters_.moved_between_cores.add();
    connection.dirty = connection.again = false;
    shared_.cores[home]->give(std::move(connections_[slot]));
}

void Core::ask_for_admission(Connection& connection) {
    connection.deadline = now_ + settings_.login_timeout;
    set_timer(connection, connection.deadline);
    if (connection.mesh) return admit(connection);
    if (key_list_ && !key_list_->contains(connection.key)) {
        counters_.logins_refused.add();
        return close(connection, "its key is not in the list");
    }
    if (!settings_.ask_control) return admit(connection);
    auto answered = [this, ref = connection.ref](bool allowed) {
        post([ref, allowed](Core& core) {
            Connection* waiting = core.find(ref.slot, ref.generation);
            if (waiting == nullptr || waiting->phase != Phase::Admission) return;
            if (allowed) return core.admit(*waiting);
            core.counters_.logins_refused.add();
            core.close(*waiting, "control does not know its key");
        });
    };
    shared_.ask_control(connection.key, connection.peer.address, std::move(answered));
}

void Core::admit(Connection& connection) {
    if (stopping_reads_) return close(connection, "the relay stops");
    connection.phase = Phase::Ready;
    connection.registered = true;
    connection.not_here = TokenBucket{kNotHerePerSecond, kNotHereBurst, now_};
    limit_rate(connection);
    counters_.clients.add();
    if (connection.websocket) counters_.websocket_clients.add();
    Bytes early = std::move(connection.opening->early);
    connection.opening.reset();
    // Its first frame, before any packet for it.
    notice(connection, derp::FrameType::ServerInfo,
           derp::seal_server_info(derp::ServerInfo{}, settings_.key, connection.key));
    if (connection.closed) return;
    std::uint8_t flags = 0;
    if (connection.mesh) flags |= derp::kPresentMesh;
    if (connection.prober) flags |= derp::kPresentProber;
    if (!connection.ideal) flags |= derp::kPresentNotIdeal;
    if (flags == 0) flags = derp::kPresentRegular;
    table_.add(connection.ref.slot, {connection.key, connection.ref.generation, connection.peer, flags});
    connection.deadline = now_ + settings_.keep_alive;
    set_timer(connection, connection.deadline);
    log::debug("client is in", {{"peer", connection.peer}, {"key", connection.key.short_text()}});
    if (!early.empty()) on_frames(connection, early);
    if (connection.closed || connection.phase != Phase::Ready) return;
    set_reading(connection, true);
    if (!connection.closed && connection.transport.has_buffered()) on_readable(connection);
}

// -- a mesh link, where we are the client

void Core::start_link(std::unique_ptr<MeshLink> link, const Endpoint& to, TlsContext tls) {
    auto socket = start_connect(to);
    if (!socket) return link->on_end(socket.error().message(), false);
    auto connection = std::make_unique<Connection>(std::move(*socket), to, Door::Derp);
    connection->phase = Phase::Connecting;
    if (link->tls && !connection->transport.start_tls_client(tls.get(), link->host))
        return link->on_end("TLS is not available", false);
    connection->link = std::move(link);
    adopt(std::move(connection));
}

void Core::on_connected(Connection& connection) {
    auto outcome = connect_outcome(connection.transport.fd());
    if (!outcome) return close(connection, outcome.error().message());
    connection.wants_write = false;
    connection.reading = true;
    watch(connection);
    if (connection.closed) return;
    if (!connection.link->tls) return begin_request(connection);
    connection.phase = Phase::TlsHandshake;
    continue_handshake(connection);
}

void Core::begin_request(Connection& connection) {
    connection.phase = Phase::HttpHead;
    const std::string& host = connection.link->host;
    bool v6 = host.find(':') != std::string::npos;
    write_text(connection, fmt::format("GET /derp HTTP/1.1\r\nHost: {}{}{}\r\nUser-Agent: tailrace-relay\r\n"
                                       "Connection: Upgrade\r\nUpgrade: DERP\r\n\r\n",
                                       v6 ? "[" : "", host, v6 ? "]" : ""));
}

void Core::on_response(Connection& connection, const HttpHead& head) {
    if (head.status != 101) return close(connection, fmt::format("it answers {} instead of 101", head.status));
    connection.phase = Phase::Login;
}

Result<void> Core::on_server_key(Connection& connection, BytesView payload) {
    auto key = derp::parse_server_key(payload);
    if (!key) return key.error();
    connection.key = *key;
    if (*key == settings_.public_key) {
        auto on_end = std::exchange(connection.link->on_end, [](const std::string&, bool) {});
        on_end("that is ourselves", true);
        return Error::make("that is ourselves");
    }
    derp::ClientInfo info;
    info.mesh_key = settings_.mesh_key;
    info.version = derp::kVersion;
    info.can_ack_pings = true;
    notice(connection, derp::FrameType::ClientInfo, derp::seal_client_info(info, settings_.key, *key));
    notice(connection, derp::FrameType::WatchConns, {});
    connection.phase = Phase::Ready;
    connection.registered = true;
    connection.opening.reset();
    connection.deadline = now_ + settings_.silence_limit;
    set_timer(connection, connection.deadline);
    counters_.mesh_links.add();
    log::info("mesh link is up", {{"relay", connection.link->host}, {"address", connection.peer}});
    return {};
}

} // namespace tailrace::relay
