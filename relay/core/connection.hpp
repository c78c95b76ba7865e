// relay/core/connection.hpp - one connection, from accept() to close().
#pragma once
#include "base/token_bucket.hpp"
#include "proto/derp_stream.hpp"
#include "relay/core/outbox.hpp"
#include "relay/http/pages.hpp"
#include "relay/net/certificate.hpp"
#include "relay/table/connection_ref.hpp"

#include <functional>

namespace tailrace::relay {

constexpr Duration kFarewell = std::chrono::seconds{2}; ///< for the other side to take the last bytes

enum class Phase : std::uint8_t {
    Connecting,   ///< a mesh link that we dial
    TlsHandshake, ///< either side
    HttpHead,     ///< the request of a client, or the response to a mesh link
    Login,        ///< a client's ClientInfo, or a mesh link's ServerKey
    Admission,    ///< somebody is being asked whether this client may come in; nothing is read
    Ready,
    Farewell, ///< the last bytes are being written; what comes in is thrown away
};

/// A connection of ours to another relay of the region.
struct MeshLink {
    std::string host; ///< for Host, SNI and messages
    ExpectedCertificate expected;
    bool tls = true;
    /// Called once: why it ended, and whether we had dialled ourselves.
    std::function<void(std::string why, bool was_ourselves)> on_end;
};

/// What is needed only until the login is over.
struct Opening {
    std::string head;
    Bytes early; ///< arrived before it could be looked at
    derp::ClientInfo info;
};

/// Plain data of a Core, which knows the rules. Small, because there are many: what only some connections need hangs
/// behind a pointer.
struct Connection {
    Connection(Fd socket, const Endpoint& from, Door which)
        : transport(std::move(socket)), peer(from), door(which), opening(std::make_unique<Opening>()) {}

    Transport transport;
    Outbox outbox;
    derp::FrameStream frames;
    NodeKey key; ///< of the client; of a mesh link: of the relay at the other end
    Endpoint peer;
    ConnectionRef ref;
    Phase phase = Phase::TlsHandshake;
    Door door;
    bool mesh = false, prober = false, ideal = true, home = false, watcher = false;
    bool registered = false;  ///< counted, and a client: in the table
    bool closed = false;      ///< waits to be destroyed at the end of this round
    bool dirty = false;       ///< is in the list of those to flush
    bool again = false;       ///< is in the list of those to read without waiting for the socket
    bool reading = true;      ///< false: paused
    bool wants_write = false; ///< epoll watches for it
    bool pong_waits = false;
    std::uint32_t timer_tick = 0; ///< of the earliest entry in the timer wheel, 0 for none
    TimePoint deadline{};         ///< of the present phase; of a Ready client: the next keep-alive
    TokenBucket not_here;         ///< PeerGone(not here) to this client
    std::unique_ptr<TokenBucket> rate;
    std::unique_ptr<WebSocketCodec> websocket;
    std::unique_ptr<MeshLink> link;
    std::unique_ptr<Opening> opening;
};

} // namespace tailrace::relay
