#include "bench/relay/load_client.hpp"

#include "relay/http/head.hpp"
#include "relay/net/listen.hpp"

#include <sys/epoll.h>

namespace tailrace::bench {

using Outcome = relay::Attempt::Outcome;

namespace {

Fd connecting_socket(const Endpoint& to) {
    auto socket = relay::start_connect(to);
    return socket ? std::move(*socket) : Fd{};
}

} // namespace

LoadClient::LoadClient(const RelayAddress& relay, std::size_t number)
    : transport_(connecting_socket(relay.endpoint)), relay_(relay), number_(number) {
    if (transport_.fd() < 0)
        fail("no socket: more descriptors or ports are needed");
    else if (relay.tls && !transport_.start_tls_client(relay.tls->get(), relay.host))
        fail("TLS has no memory");
}

void LoadClient::fail(std::string why) {
    if (state_ == State::Failed) return;
    state_ = State::Failed;
    problem_ = std::move(why);
}

std::uint32_t LoadClient::wanted() const {
    if (state_ == State::Failed) return 0;
    return (state_ == State::Connecting ? 0U : EPOLLIN) | (wants_write_ ? EPOLLOUT : 0U);
}

void LoadClient::advance() {
    if (state_ == State::Connecting) {
        if (auto connected = relay::connect_outcome(transport_.fd()); !connected)
            return fail(connected.error().message());
        state_ = State::Handshake;
    }
    auto attempt = transport_.handshake();
    wants_write_ = attempt.outcome == Outcome::WantWrite;
    if (attempt.outcome == Outcome::Closed) return fail("the TLS handshake fails");
    if (attempt.outcome != Outcome::Ok) return;
    std::string request = fmt::format(
        "GET /derp HTTP/1.1\r\nHost: {}\r\nUser-Agent: relay_load\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n\r\n",
        relay_.host);
    out_ = to_bytes(as_bytes(request));
    state_ = State::Http;
}

// How many bytes belong to the response.
std::size_t LoadClient::take_http(BytesView arrived) {
    std::size_t before = head_.size();
    head_ += as_chars(arrived);
    auto head = relay::parse_response_head(head_);
    if (!head) {
        fail(head.error().message());
        return arrived.size();
    }
    if (!*head) return arrived.size();
    if ((*head)->status != 101) fail(fmt::format("the relay answers {}", (*head)->status));
    state_ = state_ == State::Failed ? state_ : State::Login;
    head_ = std::string{};
    return (*head)->size - before;
}

void LoadClient::on_login_frame(derp::FrameType type, BytesView payload) {
    if (state_ != State::Login) return; // keep-alives and notices
    if (type == derp::FrameType::ServerInfo) {
        state_ = State::Ready;
        return;
    }
    if (type != derp::FrameType::ServerKey) return;
    auto server = derp::parse_server_key(payload);
    if (!server) return fail(server.error().message());
    derp::ClientInfo info;
    info.version = derp::kVersion;
    info.can_ack_pings = true;
    Bytes frame = derp::write_frame(derp::FrameType::ClientInfo, derp::seal_client_info(info, key_, *server));
    out_.insert(out_.end(), frame.begin(), frame.end());
}

void LoadClient::send(const NodeKey& to, BytesView packet) {
    std::size_t at = out_.size();
    out_.resize(at + derp::kHeaderSize + NodeKey::kSize + packet.size());
    derp::write_packet_frame(std::span{out_}.subspan(at), derp::FrameType::SendPacket, to, packet);
}

void LoadClient::flush() {
    if (state_ == State::Failed || state_ == State::Connecting || state_ == State::Handshake) return;
    wants_write_ = false;
    while (written_ < out_.size()) {
        auto attempt = transport_.write(BytesView{out_}.subspan(written_));
        if (attempt.outcome == Outcome::Closed) return fail("writing fails");
        if (attempt.outcome != Outcome::Ok) {
            wants_write_ = true;
            return;
        }
        written_ += attempt.bytes;
    }
    if (state_ == State::Ready && out_.capacity() < 64 * 1024)
        out_.clear();
    else
        out_ = Bytes{};
    written_ = 0;
}

} // namespace tailrace::bench
