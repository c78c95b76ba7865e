// agent/path/path_book.hpp - every way to reach each peer, and which one is in force.
#pragma once
#include "base/net.hpp"
#include "base/time.hpp"
#include "proto/disco.hpp"
#include "proto/keys.hpp"

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <variant>
#include <vector>

namespace tailrace {

/// Ask a peer whether this address works.
struct SendPing {
    NodeKey peer;
    DiscoKey disco;
    DiscoTxId id{};
    Endpoint to;
};
/// Tell a peer that its ping arrived, and from where.
struct SendPong {
    DiscoKey disco;
    DiscoTxId id{};
    Endpoint to; ///< also what the pong says we saw
};
/// WireGuard shall send this peer's packets here from now on.
struct UseEndpoint {
    NodeKey peer;
    Endpoint endpoint;
};
/// The answer to ask(): a pong came.
struct PingAnswered {
    std::uint64_t question = 0;
    NodeKey peer;
    Endpoint endpoint;
    Duration round_trip{};
};
/// A pong came from a peer that had no validated path.
struct PathWorks {
    NodeKey peer;
};
using PathAction = std::variant<SendPing, SendPong, UseEndpoint, PingAnswered, PathWorks>;

/// Pure: it is told what happens and when, and never sends; the caller carries out take_actions().
/// Direct paths only: an address becomes the peer's path when a pong came from it; before the first pong the most
/// plausible address of the netmap stands in. Constants are the reference client's (derp-disco-paths.md 4).
class PathBook {
public:
    /// A direct path counts as alive this long after its last pong. Source: tailscale wgengine/magicsock/magicsock.go.
    static constexpr auto kTrustFor = std::chrono::milliseconds{6500};
    static constexpr auto kHeartbeat = std::chrono::seconds{3};
    static constexpr auto kPingEvery = std::chrono::seconds{5}; ///< at most, to one candidate
    static constexpr auto kPingTimeout = std::chrono::seconds{5};
    static constexpr auto kActiveFor = std::chrono::seconds{45}; ///< after the last packet to the peer
    static constexpr auto kGoodEnough = std::chrono::milliseconds{5};
    static constexpr auto kUpgradeEvery = std::chrono::seconds{60};
    /// A peer that we have just heard of is probed this long without traffic.
    static constexpr auto kIntroduction = std::chrono::seconds{30};
    static constexpr std::size_t kMaxCandidates = 100;

    struct Peer {
        NodeKey node;
        DiscoKey disco;
        std::vector<Endpoint> endpoints; ///< as control names them
    };

    explicit PathBook(std::function<DiscoTxId()> new_id);

    /// The whole list. Peers that are not in it are forgotten; what is known of the others stays.
    void set_peers(TimePoint now, const std::vector<Peer>& peers);
    void set_local_networks(std::vector<IpPrefix> networks) { local_networks_ = std::move(networks); }
    /// A newer key than control's, learnt inside the tunnel.
    void set_disco_key(TimePoint now, const NodeKey& node, const DiscoKey& disco);
    /// Our own addresses changed: what was validated may be so no more.
    void on_network_change(TimePoint now);

    /// True when the sender is a peer; others are not answered. `claimed` is the node key inside the ping.
    bool on_ping(TimePoint now, const DiscoKey& from, const std::optional<NodeKey>& claimed, const DiscoTxId& id,
                 const Endpoint& source);
    void on_pong(TimePoint now, const DiscoKey& from, const DiscoTxId& id, const Endpoint& source);
    /// WireGuard sent something to the peer.
    void on_traffic(TimePoint now, const NodeKey& node);
    /// Where WireGuard sends now: it follows the source of every authenticated packet.
    void on_kernel_endpoint(TimePoint now, const NodeKey& node, const Endpoint& endpoint);
    /// Pings the peer for a person; PingAnswered with the returned number follows, or nothing within kPingTimeout.
    /// 0 when there is no such peer or nowhere to ping.
    std::uint64_t ask(TimePoint now, const NodeKey& node);

    void on_timer(TimePoint now);
    std::optional<TimePoint> next_timer() const;
    std::vector<PathAction> take_actions() { return std::exchange(actions_, {}); }

    struct State {
        std::optional<Endpoint> endpoint; ///< in force
        bool validated = false;           ///< a pong came from it and is recent
        bool active = false;
        Duration round_trip{};
    };
    State state(TimePoint now, const NodeKey& node) const;
    /// What WireGuard should start with for a peer that it does not know.
    std::optional<Endpoint> endpoint(const NodeKey& node) const;
    std::optional<NodeKey> node_of(const DiscoKey& disco) const;

private:
    struct Candidate {
        bool from_control = false;
        std::optional<TimePoint> last_ping_sent, last_ping_received, last_pong;
        Duration round_trip{};
    };
    struct Known {
        DiscoKey disco;
        std::map<Endpoint, Candidate> candidates;
        std::vector<Endpoint> from_control; ///< in control's order
        std::optional<Endpoint> in_force;
        TimePoint trusted_until{};
        TimePoint introduced_until{};
        std::optional<TimePoint> last_traffic, last_round;
        TimePoint next_look = TimePoint::max();
    };
    struct Sent {
        NodeKey node;
        Endpoint to;
        TimePoint at;
        std::uint64_t question = 0;
    };

    void ping(TimePoint now, const NodeKey& node, Known& known, const Endpoint& to, std::uint64_t question);
    void round(TimePoint now, const NodeKey& node, Known& known);
    void look(TimePoint now, const NodeKey& node, Known& known);
    void use(const NodeKey& node, Known& known, const Endpoint& endpoint);
    Candidate& candidate(TimePoint now, Known& known, const Endpoint& endpoint);
    std::optional<Endpoint> most_plausible(const Known& known) const;
    bool is_active(TimePoint now, const Known& known) const;

    std::function<DiscoTxId()> new_id_;
    std::map<NodeKey, Known> peers_;
    std::map<DiscoKey, NodeKey> by_disco_;
    std::map<DiscoTxId, Sent> sent_;
    std::vector<IpPrefix> local_networks_;
    std::vector<PathAction> actions_;
    std::uint64_t last_question_ = 0;
};

/// Is `a` worth leaving `b` for? Source: tailscale wgengine/magicsock/endpoint.go, betterAddr
/// (derp-disco-paths.md 4.6).
bool is_better_path(const Endpoint& a, Duration a_round_trip, const Endpoint& b, Duration b_round_trip);

} // namespace tailrace
