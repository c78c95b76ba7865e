// agent/relay/derp_link.hpp - one connection to a relay: dialled, logged in, then frames both ways
// (derp-disco-paths.md 1.1 to 1.5).
#pragma once
#include "agent/relay/relay_dial.hpp"
#include "base/io/stream.hpp"
#include "base/token_bucket.hpp"
#include "proto/control/derp_map.hpp"
#include "proto/derp.hpp"

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace tailrace {

/// A connection on which frames follow.
struct DerpLogin {
    std::unique_ptr<Stream> stream;
    NodeKey relay;     ///< its key, as it says itself
    bool fast = false; ///< its certificates named the key: a round trip less
    std::string node;  ///< its name in the DERP map
};
/// For all of it: look-up, connection, TLS, upgrade and login. Source: tailscale derp/derphttp/derphttp_client.go.
constexpr auto kDialRegion = std::chrono::seconds{10};
/// Tries the region's nodes in their order, but not the one named `avoid`, until one lets us in. `options.limit` is for
/// all of them.
Task<Result<DerpLogin>> dial_derp(Reactor& reactor, wire::DerpRegion region, NodePrivateKey identity,
                                  std::uint32_t mark, std::string avoid, RelayDialOptions options = {kDialRegion});

/// A connection that has logged in.
class DerpLink {
public:
    /// Packets that wait for the connection; the oldest gives way, for fresh ones are worth more.
    static constexpr std::size_t kQueued = 128;
    /// A relay says something at least this often. Source: tailscale derp/derp_client.go.
    static constexpr auto kSilence = std::chrono::seconds{120};
    /// It answers check() within this time, or it is given up.
    static constexpr auto kAnswer = std::chrono::seconds{3};
    static constexpr std::size_t kLongestTrouble = 500; ///< bytes of a relay's word about its health

    struct Callbacks {
        std::function<void(const NodeKey& from, BytesView packet)> packet;
        std::function<void(const derp::PeerGone& gone)> gone;
        std::function<void(std::string trouble)> health; ///< empty: healthy again
        std::function<void(const derp::Restarting& restarting)> restarting;
    };

    DerpLink(DerpLogin login, NodePrivateKey identity, Callbacks callbacks);

    void send_packet(const NodeKey& to, BytesView packet);
    void send(derp::FrameType type, BytesView payload);
    /// Carries frames until the connection ends, and says why it did. Once only; keep the link alive meanwhile.
    Task<Error> run(Duration silence = kSilence);
    void close();
    /// Our network changed: does the connection still work?
    void check();
    /// Our end of it.
    IpAddress local_address();

    TimePoint last_packet_sent() const { return last_packet_sent_; }
    TimePoint last_heard() const { return last_heard_; }
    std::uint64_t dropped() const { return dropped_; }

private:
    Task<void> write();
    Result<void> take(derp::FrameType type, BytesView payload);

    std::unique_ptr<Stream> stream_;
    NodeKey relay_;
    NodePrivateKey identity_;
    Callbacks callbacks_;
    std::optional<TokenBucket> bucket_; ///< what the relay lets us send; the rest is dropped here
    std::deque<Bytes> queue_;
    Event more_, written_;
    Timer check_;
    std::optional<derp::PingData> asked_;
    bool over_ = false;
    TimePoint last_packet_sent_, last_heard_;
    std::uint64_t dropped_ = 0;
};

} // namespace tailrace
