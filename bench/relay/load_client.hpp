// bench/relay/load_client.hpp - one client of a DERP relay, any make, without waiting.
#pragma once
#include "base/io/tls.hpp"
#include "proto/derp_stream.hpp"
#include "relay/net/transport.hpp"

#include <optional>
#include <string>

namespace tailrace::bench {

struct RelayAddress {
    std::string host;
    Endpoint endpoint;
    std::optional<TlsContext> tls; ///< nothing: plain HTTP
};

/// Driven by an epoll of its user: on_event() after each event, wanted() for what to watch.
class LoadClient {
public:
    enum class State { Connecting, Handshake, Http, Login, Ready, Failed };

    LoadClient(const RelayAddress& relay, std::size_t number);
    LoadClient(const LoadClient&) = delete;
    LoadClient& operator=(const LoadClient&) = delete;

    /// Calls on_packet(BytesView) for each packet that has arrived.
    template <typename OnPacket>
    void on_event(OnPacket on_packet) {
        if (state_ == State::Connecting || state_ == State::Handshake) advance();
        if (state_ != State::Failed && state_ != State::Connecting && state_ != State::Handshake) read(on_packet);
        flush();
    }
    /// Gathered until flush().
    void send(const NodeKey& to, BytesView packet);
    void flush();

    State state() const { return state_; }
    const std::string& problem() const { return problem_; }
    const NodeKey& key() const { return public_key_; }
    std::size_t number() const { return number_; }
    int fd() const { return transport_.fd(); }
    std::uint32_t wanted() const; ///< epoll events
    std::uint32_t watched = 0;    ///< for the user's book-keeping

private:
    void advance();
    void fail(std::string why);
    void on_login_frame(derp::FrameType type, BytesView payload);
    std::size_t take_http(BytesView arrived);

    template <typename OnPacket>
    void read(OnPacket on_packet) {
        static thread_local Bytes scratch(256 * 1024);
        std::size_t filled = 0;
        bool closed = false;
        while (scratch.size() - filled >= 16 * 1024) {
            auto attempt = transport_.read(std::span{scratch}.subspan(filled));
            if (attempt.outcome != relay::Attempt::Outcome::Ok) {
                closed = attempt.outcome == relay::Attempt::Outcome::Closed;
                break;
            }
            filled += attempt.bytes;
            if (!transport_.is_tls()) break;
        }
        BytesView data = BytesView{scratch}.first(filled);
        if (state_ == State::Http) data = data.subspan(take_http(data));
        auto limit = [](derp::FrameType) { return std::optional<std::size_t>{derp::kMaxReceivedFrame}; };
        auto taken = frames_.feed(data, limit, [&](derp::FrameType type, BytesView payload) {
            if (state_ == State::Ready && type == derp::FrameType::RecvPacket)
                on_packet(payload.subspan(std::min(payload.size(), NodeKey::kSize)));
            else
                on_login_frame(type, payload);
            return derp::FrameStream::Next::Continue;
        });
        if (!taken) return fail(taken.error().message());
        if (closed) fail("the relay closes the connection");
    }

    relay::Transport transport_;
    const RelayAddress& relay_;
    std::size_t number_;
    State state_ = State::Connecting;
    bool wants_write_ = true;
    std::string problem_, head_;
    NodePrivateKey key_ = NodePrivateKey::generate();
    NodeKey public_key_ = key_.public_key();
    derp::FrameStream frames_;
    Bytes out_;
    std::size_t written_ = 0;
};

} // namespace tailrace::bench
