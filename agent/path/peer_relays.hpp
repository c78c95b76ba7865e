// agent/path/peer_relays.hpp - paths to peers through nodes of the tailnet that serve as UDP relays.
#pragma once
#include "agent/path/path_book.hpp"
#include "proto/disco.hpp"
#include "proto/geneve.hpp"

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

namespace tailrace {

/// Where a relay server takes what is for the other one of a pair of clients.
struct RelayRoute {
    Endpoint server;
    std::uint32_t vni = 0;
    auto operator<=>(const RelayRoute&) const = default;
    /// "203.0.113.5:40000:vni:7", as status and pings name it.
    std::string text() const { return fmt::format("{}:vni:{}", server.text(), vni); }
};

/// Over DERP: set an endpoint aside for us and a peer.
struct AskRelayServer {
    NodeKey server;
    DiscoAllocateRequest request;
};
/// Over DERP: meet me there.
struct CallVia {
    NodeKey peer;
    DiscoRelayEndpoint endpoint;
};
/// To the relay server itself.
struct ShakeWithRelay {
    NodeKey peer; ///< for whose sake
    DiscoKey server;
    RelayRoute to;
    DiscoRelayHandshake message;
};
struct PingVia {
    NodeKey peer;
    DiscoKey disco;
    DiscoTxId id{};
    RelayRoute to;
};
struct PongVia {
    NodeKey peer;
    DiscoKey disco;
    DiscoTxId id{};
    RelayRoute to;
};
/// The route in force for a peer is another one, or there is none any more.
struct RouteChanged {
    NodeKey peer;
    std::optional<RelayRoute> route;
};
/// The answer to PeerRelays::ask().
struct AnsweredVia {
    std::uint64_t question = 0;
    NodeKey peer;
    RelayRoute route;
    Duration round_trip{};
};
using PeerRelayAction =
    std::variant<AskRelayServer, CallVia, ShakeWithRelay, PingVia, PongVia, RouteChanged, AnsweredVia>;

/// Pure: it is told what happens and when, and never sends; the caller carries out take_actions().
///
/// While packets for a peer come to its relayed endpoint and no direct path is in force, the relay servers that we may
/// use are asked, over DERP, for an endpoint; the peer is told of it, both show the server where they are (a
/// handshake), and when a ping through it is answered it is the peer's route as long as pings are. DERP carries what no
/// route does. Constants are the reference client's (derp-disco-paths.md 4.1, 4.7, 4.14), limits our own.
class PeerRelays {
public:
    static constexpr auto kTrustFor = PathBook::kTrustFor;
    static constexpr auto kHeartbeat = PathBook::kHeartbeat;
    static constexpr auto kPingTimeout = PathBook::kPingTimeout;
    static constexpr auto kActiveFor = PathBook::kActiveFor;
    static constexpr auto kDiscoverEvery = std::chrono::seconds{30};
    static constexpr auto kCompareEvery = std::chrono::seconds{60}; ///< while a route is in force
    static constexpr auto kAskAgainAfter = std::chrono::seconds{3};
    static constexpr auto kAskFor = std::chrono::seconds{10};
    static constexpr auto kLongestHandshake = std::chrono::seconds{30};
    static constexpr int kPingsInHandshake = 10;
    static constexpr auto kKeepRoute = std::chrono::minutes{5}; ///< after its last sign of life; a server's default
    static constexpr auto kTryAgain = std::chrono::seconds{1};  ///< what a server or the peer has not answered yet
    static constexpr int kMostBinds = 3;                        ///< to one address

    static constexpr std::size_t kMostServers = 8;    ///< asked for one peer
    static constexpr std::size_t kMostAddresses = 16; ///< of one server
    static constexpr std::size_t kMostHandshakesOfPeer = 8;
    static constexpr std::size_t kMostRoutesOfPeer = 4;
    static constexpr std::size_t kMostHandshakes = 256, kMostQuestions = 256;
    /// Handshake messages that we begin with, to all servers together: what a flood of calls can make us send.
    static constexpr double kBindsPerSecond = 100, kBindBurst = 400;
    /// Handshakes that one peer can make us begin.
    static constexpr double kCallsPerSecond = 0.5, kCallBurst = 8;

    /// What others know.
    struct Facts {
        std::function<bool(TimePoint, const NodeKey&)> is_direct; ///< a direct path is in force and trusted
        std::function<std::optional<DiscoKey>(const NodeKey&)> disco_of;
        std::function<std::optional<NodeKey>(const DiscoKey&)> node_of;
        std::function<DiscoTxId()> new_id;
    };
    PeerRelays(const DiscoKey& self, Facts facts) : self_(self), facts_(std::move(facts)) {}

    /// Control forbids it, or allows it again.
    void set_enabled(TimePoint now, bool enabled);
    /// The peers that know how, and the nodes that let us use them as relay servers.
    void set_peers(TimePoint now, std::set<NodeKey> capable, std::vector<NodeKey> servers);
    /// We are elsewhere: servers know us by our address.
    void on_network_change(TimePoint now);

    /// WireGuard sent something to the peer's relayed endpoint. Called for each packet, so it does little.
    void on_wish(TimePoint now, const NodeKey& node);
    /// Came over DERP.
    void on_allocated(TimePoint now, const NodeKey& server, const DiscoAllocateResponse& response);
    void on_call(TimePoint now, const NodeKey& from, const DiscoRelayEndpoint& endpoint);
    /// Whether a handshake with this server is under way: others' messages need not be opened.
    bool is_shaking_with(const DiscoKey& server, std::uint32_t vni) const;
    void on_challenge(TimePoint now, const DiscoKey& server, const RelayRoute& from,
                      const DiscoRelayHandshake& message);
    /// Came through a relay server.
    void on_ping(TimePoint now, const DiscoKey& from, const DiscoTxId& id, const RelayRoute& via);
    void on_pong(TimePoint now, const DiscoKey& from, const DiscoTxId& id, const RelayRoute& via);
    /// Whose data it is that came there; none when nobody has shaken hands there.
    std::optional<NodeKey> on_data(TimePoint now, const RelayRoute& via);

    /// Pings the peer for a person by the route in force; AnsweredVia with the returned number follows, or nothing
    /// within kPingTimeout. 0 when there is no such route.
    std::uint64_t ask(TimePoint now, const NodeKey& node);

    void on_timer(TimePoint now);
    std::optional<TimePoint> next_timer() const;
    bool has_actions() const { return !actions_.empty(); }
    std::vector<PeerRelayAction> take_actions() { return std::exchange(actions_, {}); }

    /// Where packets to the peer shall go: a ping was answered within kTrustFor.
    std::optional<RelayRoute> route(TimePoint now, const NodeKey& node) const;
    /// For people.
    struct State {
        std::optional<RelayRoute> route; ///< in force
        Duration round_trip{};
        std::size_t servers = 0;    ///< that can be asked
        std::size_t questions = 0;  ///< under way
        std::size_t handshakes = 0; ///< under way
    };
    State state(TimePoint now, const NodeKey& node) const;

private:
    struct Question {
        std::uint32_t generation = 0;
        TimePoint asked;
        bool asked_again = false;
    };
    struct Handshake {
        DiscoRelayEndpoint endpoint; ///< its addresses are those that we use
        std::uint32_t generation = 0;
        TimePoint until, tried;
        int binds = 0, pings = 0;
        std::optional<Endpoint> bound; ///< the address that answered first
        std::array<std::byte, 32> challenge{};
    };
    struct Known {
        DiscoKey disco; ///< what all this is for
        std::map<NodeKey, Question> questions;
        std::map<DiscoKey, Handshake> handshakes; ///< by server
        struct Route {
            RelayRoute to;
            DiscoKey server;
            Duration round_trip{};
            TimePoint trusted_until, heard;
            std::optional<TimePoint> pinged;
        };
        std::vector<Route> routes; ///< one a server
        std::optional<RelayRoute> best, told;
        std::optional<TimePoint> wished, discovered, looked;
        double calls_left = kCallBurst;
        TimePoint calls_filled{};
        TimePoint next_look = TimePoint::max();
    };
    struct Sent {
        NodeKey node;
        RelayRoute to;
        TimePoint at;
        std::uint64_t question = 0;
    };

    Known* known_of(TimePoint now, const NodeKey& node);
    void forget(TimePoint now, const NodeKey& node);
    void learn(TimePoint now, const NodeKey& node, Known& known, DiscoRelayEndpoint endpoint, bool asked_for);
    void try_handshake(TimePoint now, const NodeKey& node, const Known& known, Handshake& handshake);
    void install(TimePoint now, Known& known, const DiscoKey& server, const RelayRoute& to, Duration round_trip);
    void discover(TimePoint now, Known& known);
    void ping(TimePoint now, const NodeKey& node, const Known& known, const RelayRoute& to, std::uint64_t question);
    void look(TimePoint now, const NodeKey& node);
    TimePoint do_what_is_due(TimePoint now, const NodeKey& node, Known& known);
    TimePoint seek(TimePoint now, const NodeKey& node, Known& known);
    void drop_handshake(Known& known, std::map<DiscoKey, Handshake>::iterator at);
    void forget_old_pings(TimePoint now);
    bool bind(TimePoint now, const NodeKey& node, const RelayRoute& to);
    std::array<DiscoKey, 2> pair_with(const DiscoKey& disco) const;
    static Known::Route* route_at(Known& known, const RelayRoute& to);
    static const Known::Route* best_of(TimePoint now, const Known& known);
    std::size_t handshakes() const;

    DiscoKey self_;
    Facts facts_;
    bool enabled_ = false;
    std::set<NodeKey> capable_;
    std::vector<NodeKey> servers_;
    std::map<NodeKey, Known> peers_; ///< those for whom something is known or under way
    std::map<RelayRoute, NodeKey> bound_;
    std::map<DiscoTxId, Sent> sent_;
    std::deque<std::pair<TimePoint, DiscoTxId>> sent_in_order_; ///< may name some that were answered
    std::set<std::pair<TimePoint, NodeKey>> looks_;
    std::vector<PeerRelayAction> actions_;
    double binds_left_ = kBindBurst;
    TimePoint binds_filled_{};
    std::uint32_t last_generation_ = 0;
    std::uint64_t last_question_ = 0;
};

} // namespace tailrace
