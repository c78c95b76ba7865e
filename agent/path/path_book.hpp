// agent/path/path_book.hpp - every way to reach each peer, and which one is in force.
#pragma once
#include "agent/path/udp_lifetime.hpp"
#include "base/net.hpp"
#include "base/time.hpp"
#include "base/token_bucket.hpp"
#include "proto/disco.hpp"
#include "proto/keys.hpp"

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <variant>
#include <vector>

namespace tailrace {

/// Ask a peer whether this address works.
struct SendPing {
    NodeKey peer;
    DiscoKey disco;
    DiscoTxId id{};
    Endpoint to;
    int packet_bytes = 0; ///< size that its IP packet shall have; 0: no more than it needs
};
/// Tell a peer that its ping arrived, and from where.
struct SendPong {
    DiscoKey disco;
    DiscoTxId id{};
    Endpoint to; ///< also what the pong says we saw
};
/// Ask a peer, over its relay, to ping us at all our addresses now.
struct SendCallMeMaybe {
    NodeKey peer;
    DiscoKey disco;
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
/// Measure how long an ICMP echo takes to this address of a peer, then call on_echo().
struct SendEcho {
    NodeKey peer;
    Endpoint to;
};
using PathAction = std::variant<SendPing, SendPong, SendCallMeMaybe, UseEndpoint, PingAnswered, PathWorks, SendEcho>;

/// How disco writes "over the relay of this region": 127.3.3.40 and the region for a port.
Endpoint relay_endpoint(int region);
/// The region, 0 for an endpoint that is a real one.
int relay_region(const Endpoint& endpoint);

/// Pure: it is told what happens and when, and never sends; the caller carries out take_actions().
///
/// A direct address becomes the peer's path when a pong came from it, and is trusted for kTrustFor. Without trust the
/// peer is relayed, if there is a relay for it; else the last direct address, or the most plausible one of the netmap,
/// stands in. A peer that is not talked to is relayed too: the first packet to it wakes us there. Constants are the
/// reference client's (derp-disco-paths.md 4).
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
    /// Pings that we think of ourselves, to all peers together: what a flood of wishes can make us send.
    static constexpr double kPingsPerSecond = 1000;
    static constexpr double kPingBurst = 4000;
    static constexpr double kPeerPingsPerSecond = kMaxCandidates / 5.0; ///< each of them every kPingEvery
    static constexpr double kPeerPingBurst = 2 * kMaxCandidates;
    /// Sizes of IP packets that are tried, where that is wanted. Source: tailscale net/tstun/mtu.go.
    static constexpr std::array kPacketSizes{1280, 1360, 1400, 1500, 8000, 9000};
    // Of peers that speak WireGuard only (derp-disco-paths.md 4.9).
    static constexpr auto kHeardFor = std::chrono::seconds{5}; ///< what WireGuard received speaks for a path so long
    static constexpr auto kTryFor = std::chrono::seconds{1};   ///< an address that nothing speaks for
    /// ... and is left then, if nothing is heard: longer than between two looks at the device after that.
    static constexpr auto kUnheardFor = std::chrono::milliseconds{2500};
    static constexpr auto kEchoEvery = std::chrono::seconds{5};   ///< at most, to one address
    static constexpr auto kEchoRounds = std::chrono::seconds{10}; ///< at least, between those of one peer
    static constexpr auto kEchoTimeout = std::chrono::seconds{5};

    struct Peer {
        NodeKey node;
        DiscoKey disco;
        std::vector<Endpoint> endpoints; ///< as control names them
        int home_region = 0;             ///< of its relay; 0: not known
        std::optional<Endpoint> relayed; ///< where WireGuard sends what we shall relay
        bool follows = true;             ///< its WireGuard takes the source of what arrives for our address
        bool wireguard_only = false;     ///< it has neither disco nor a relay
    };

    explicit PathBook(std::function<DiscoTxId()> new_id);

    /// The whole list. Peers that are not in it are forgotten; what is known of the others stays.
    void set_peers(TimePoint now, const std::vector<Peer>& peers);
    void set_local_networks(std::vector<IpPrefix> networks) { local_networks_ = std::move(networks); }
    /// A newer key than control's, learnt inside the tunnel.
    void set_disco_key(TimePoint now, const NodeKey& node, const DiscoKey& disco);
    /// Our own addresses changed: what was validated may be so no more.
    void on_network_change(TimePoint now);
    /// There are more addresses of ours than before, and all those are still there: what works goes on, and who has no
    /// direct path is looked for again.
    void on_new_addresses(TimePoint now);
    /// Others can reach us at other addresses than before: who looks for us in vain is called.
    void on_own_endpoints(TimePoint now);
    /// Whether packets can be relayed, as far as is known; if so, all but those for peers of one region (0: no
    /// exception).
    void set_relaying(TimePoint now, bool possible, int but_not_to = 0);
    /// Whether packets for this peer get to it from its relayed endpoint, whatever relays do (PeerRelays).
    void set_carried(TimePoint now, const NodeKey& node, bool carried);
    /// Nothing direct is tried, answered or used: control wants it so.
    void set_only_relay(TimePoint now, bool only);
    /// Paths in use are not pinged: what WireGuard receives keeps them (derp-disco-paths.md 4.8, "Silent disco").
    void set_silent(TimePoint now, bool silent);
    /// Whether pings that look for a path come in several sizes, to find out what its packets may measure
    /// (derp-disco-paths.md 3.6).
    void set_probing_sizes(TimePoint now, bool on);
    /// Whether it is found out how long paths outlive silence, and by which key of ours: of two nodes the one with the
    /// lower key does it.
    void set_probing_lifetime(TimePoint now, std::optional<DiscoKey> own);
    /// Of the cycles that came to their end, how many paths outlived so many of UdpLifetime::kCliffs.
    using LifetimeCounts = std::array<std::uint64_t, UdpLifetime::kCliffs.size() + 1>;
    const LifetimeCounts& lifetime_counts() const { return lifetime_counts_; }
    /// This address shall be nobody's path for a while: whoever has it goes to the relay now, and as pings from there
    /// are not answered, the peer does the same when its trust ends.
    void leave(TimePoint now, const Endpoint& endpoint, Duration how_long);
    /// Whatever was left may be a path again.
    void forgive();

    /// True when the sender is a peer; others are not answered. `claimed` is the node key inside the ping.
    bool on_ping(TimePoint now, const DiscoKey& from, const std::optional<NodeKey>& claimed, const DiscoTxId& id,
                 const Endpoint& source);
    void on_pong(TimePoint now, const DiscoKey& from, const DiscoTxId& id, const Endpoint& source);
    /// Came over a relay, from this node. Ignored when the disco key is not the node's.
    void on_call_me_maybe(TimePoint now, const DiscoKey& from, const NodeKey& node,
                          const std::vector<Endpoint>& endpoints);
    /// A WireGuard packet of the peer came over a relay, which says so: nobody has opened it. A relay that lies can
    /// make us take a peer whose agent is away for one whose agent lives, no more (on_data).
    void on_relayed_arrival(TimePoint now, const NodeKey& node);
    /// WireGuard received something between `since` and now from where it sends to, and what it received is authentic.
    /// Of a peer that has said nothing, in disco or over a relay, since it should have answered a ping, we presume that
    /// its agent is away, and stay on the path while data comes. Its next word takes that back: who speaks and answers
    /// no pings has a path that is dead in our direction. To be of use while a last pong is trusted, `since` and now
    /// have to lie between the next heartbeat and the end of that trust, 3.5 s: look at the device every second.
    void on_data(TimePoint since, TimePoint now, const NodeKey& node, const Endpoint& endpoint);
    /// What became of a SendEcho; none: no answer within kEchoTimeout.
    void on_echo(TimePoint now, const NodeKey& node, const Endpoint& endpoint, std::optional<Duration> round_trip);
    /// Where a handshake may be tried beside the relay: what answered last, else the most plausible address.
    std::optional<Endpoint> direct_guess(const NodeKey& node) const;
    std::size_t pings_under_way() const { return sent_.size(); }
    /// Where a packet that goes over the relay is sent as well: a path that is trusted no more and not yet given up
    /// (derp-disco-paths.md 4.4). Never for a peer whose WireGuard follows: one copy by a path that is dead the other
    /// way would take its answers off the relay that works, until its agent looks again.
    std::optional<Endpoint> second_copy(TimePoint now, const NodeKey& node) const;
    /// WireGuard sent something for the peer to its relayed endpoint.
    void on_relayed_packet(TimePoint now, const NodeKey& node);
    /// Some peer has just lost its direct path. Reference clients send twice then, directly too, and WireGuard follows
    /// what arrives, back to the path that is dead one way: look at the device more often.
    bool is_contested(TimePoint now) const;
    /// WireGuard sent something to the peer.
    void on_traffic(TimePoint now, const NodeKey& node);
    /// Where WireGuard sends now: it follows the source of every authenticated packet. Told before we have heard
    /// anything of the peer, it is where an earlier agent left it, and taken for good until it proves otherwise.
    void on_kernel_endpoint(TimePoint now, const NodeKey& node, const Endpoint& endpoint);
    /// Pings the peer for a person; PingAnswered with the returned number follows, or nothing within kPingTimeout.
    /// 0 when there is no such peer or nowhere to ping. `message_bytes`: size of the disco message, 0 for the usual
    /// ones; with a size a path that works is asked alone, so that no small ping to a relay answers for it.
    std::uint64_t ask(TimePoint now, const NodeKey& node, int message_bytes = 0);

    void on_timer(TimePoint now);
    std::optional<TimePoint> next_timer() const;
    std::vector<PathAction> take_actions() { return std::exchange(actions_, {}); }

    struct State {
        std::optional<Endpoint> endpoint; ///< in force
        bool validated = false;           ///< it is direct, and a pong came from it
        bool trusted = false;             ///< and that was within kTrustFor
        bool relayed = false;
        int home_region = 0;
        bool active = false;
        bool wireguard_only = false;
        Duration round_trip{};
        int packet_bytes = 0; ///< IP packets of this size arrive, as a pong has shown; 0: not known
        std::optional<UdpLifetime::Result> lifetime;
    };
    State state(TimePoint now, const NodeKey& node) const;
    /// What WireGuard should start with for a peer that it does not know.
    std::optional<Endpoint> endpoint(const NodeKey& node) const;
    std::optional<NodeKey> node_of(const DiscoKey& disco) const;
    std::optional<DiscoKey> disco_of(const NodeKey& node) const;
    /// Before we go away: each peer to the last direct address that worked, for nobody will relay.
    void park(TimePoint now);

    /// For people: every candidate of a peer.
    struct CandidateState {
        Endpoint endpoint;
        bool from_control = false, from_call = false, from_wireguard = false;
        bool refused = false; ///< not to be used now, see leave()
        std::optional<Duration> pinged_ago, pinged_us_ago, ponged_ago;
        Duration round_trip{};
        int packet_bytes = 0; ///< as in State
    };
    std::vector<CandidateState> candidates(TimePoint now, const NodeKey& node) const;

private:
    struct Candidate {
        bool from_control = false;
        bool from_call = false;                ///< named by the last CallMeMaybe
        bool from_wireguard = false;           ///< the device had it, and nobody had named it
        std::optional<DiscoTxId> last_ping_id; ///< that we answered
        std::optional<TimePoint> last_ping_sent, last_ping_received, last_pong;
        std::optional<TimePoint> last_answer; ///< our ping because of one of theirs
        std::optional<TimePoint> asked_first; ///< of the pings that were sent since the last pong
        TimePoint refused_until = TimePoint::min();
        Duration round_trip{};
        int packet_bytes = 0;                 ///< the largest that was answered, since the path works
        std::optional<TimePoint> sizes_sent;  ///< pings of all sizes
        std::optional<TimePoint> last_packet; ///< of any kind, either way
    };
    struct Known {
        DiscoKey disco;
        std::map<Endpoint, Candidate> candidates;
        std::vector<Endpoint> from_control; ///< in control's order
        int home_region = 0;
        std::optional<Endpoint> relayed;
        bool carried = false; ///< from there, without DERP
        bool follows = true;
        bool wireguard_only = false;
        struct {
            std::optional<TimePoint> round;   ///< of echoes
            bool woken = false;               ///< it was silent, and what it sends comes again
            std::optional<TimePoint> unheard; ///< since then: we have sent, and nothing has come
        } echoes;                             ///< of who is wireguard_only
        std::optional<Endpoint> in_force;     ///< what WireGuard has
        std::optional<Endpoint> best;         ///< the direct address that worked last
        TimePoint trusted_until{};            ///< of `best`
        TimePoint presumed_until{};           ///< the same, as long as the peer's agent is silent (on_data)
        std::optional<TimePoint> last_call, last_called, left_direct, last_relayed_arrival, last_disco;
        TimePoint introduced_until{};
        std::optional<TimePoint> last_traffic, last_round;
        TimePoint next_look = TimePoint::max();
        UdpLifetime lifetime;
        std::uint64_t generation = 0;                                ///< of the list that named it last
        TokenBucket budget{kPeerPingsPerSecond, kPeerPingBurst, {}}; ///< of pings that we think of ourselves
    };
    struct Sent {
        NodeKey node;
        Endpoint to;
        TimePoint at;
        std::uint64_t question = 0;
        int packet_bytes = 0;
        bool after_silence = false; ///< for UdpLifetime, and for nothing else
    };

    enum class Sizes : std::uint8_t { One, All };
    void ping(TimePoint now, const NodeKey& node, Known& known, const Endpoint& to, std::uint64_t question,
              Sizes sizes = Sizes::One);
    Sent& send_ping(TimePoint now, const NodeKey& node, Known& known, const Endpoint& to, std::uint64_t question,
                    int packet_bytes);
    TimePoint look_at_silence(TimePoint now, const NodeKey& node, Known& known);
    void count(const std::optional<UdpLifetime::Result>& result);
    bool take_from_budgets(TimePoint now, Known& known);
    void round(TimePoint now, const NodeKey& node, Known& known, bool with_call);
    void call(TimePoint now, const NodeKey& node, Known& known);
    /// Does what is due for a peer, and says when to look again.
    void look(TimePoint now, const NodeKey& node, Known& known);
    TimePoint do_what_is_due(TimePoint now, const NodeKey& node, Known& known);
    void forget_old_pings(TimePoint now);
    void settle(TimePoint now, const NodeKey& node, Known& known);
    void use(const NodeKey& node, Known& known, const Endpoint& endpoint);
    void forget_candidate(Known& known, const Endpoint& endpoint);
    Candidate& candidate(TimePoint now, Known& known, const Endpoint& endpoint);
    static std::optional<Duration> best_round_trip(const Known& known); ///< none when no pong came
    std::optional<Endpoint> most_plausible(const Known& known) const;
    std::optional<Endpoint> target(TimePoint now, const Known& known) const;
    void give_up(TimePoint now, const NodeKey& node, Known& known);
    void doubt(TimePoint now, const NodeKey& node, Known& known);
    void trust(Known& known, const Endpoint& endpoint, TimePoint until);
    void on_word(TimePoint now, const NodeKey& node, Known& known);
    static Duration answer_time(const Candidate& entry);
    static void ask_anew(Known& known);
    void start_over(TimePoint now, const NodeKey& node, Known& known);
    static void on_new_agent(TimePoint now, Known& known);
    static void forget_echoes(Known& known);
    void forget_withdrawn(TimePoint now, Known& known);
    void on_plain_traffic(TimePoint now, const NodeKey& node, Known& known);
    void on_plain_data(TimePoint now, const NodeKey& node, Known& known, const Endpoint& endpoint);
    TimePoint choose_plain(TimePoint now, const NodeKey& node, Known& known);
    std::optional<Endpoint> any_other(const Known& known);
    bool is_path_of_another(TimePoint now, const NodeKey& node, const Endpoint& endpoint) const;
    void refuse(TimePoint now, const NodeKey& node, Known& known, Candidate& entry);
    bool refuses(TimePoint now, const Candidate& entry) const { return only_relay_ || now < entry.refused_until; }
    bool is_due(TimePoint now, const Candidate& entry) const;
    bool can_relay(const Known& known) const {
        const bool relays = relaying_ && (dead_region_ == 0 || known.home_region != dead_region_);
        return (relays || known.carried) && known.relayed;
    }
    static bool trusts(TimePoint now, const Known& known);
    /// Of a peer that is trusted now.
    static TimePoint end_of_trust(TimePoint now, const Known& known) {
        return now < known.trusted_until ? known.trusted_until : known.presumed_until;
    }
    static bool is_silent(TimePoint now, const Known& known);
    static bool is_active(TimePoint now, const Known& known);
    static bool is_heard_otherwise(TimePoint now, const Known& known);

    std::function<DiscoTxId()> new_id_;
    std::map<NodeKey, Known> peers_;
    std::uint64_t generation_ = 0; ///< of the list of peers
    std::map<DiscoKey, NodeKey> by_disco_;
    std::map<DiscoTxId, Sent> sent_;
    std::deque<std::pair<TimePoint, DiscoTxId>> sent_in_order_; ///< may name some that were answered
    std::set<std::pair<TimePoint, NodeKey>> looks_;             ///< Known::next_look of all who have one
    std::vector<IpPrefix> local_networks_;
    std::vector<PathAction> actions_;
    TokenBucket budget_{kPingsPerSecond, kPingBurst, {}}; ///< of all peers together
    std::uint64_t last_question_ = 0;
    std::optional<DiscoKey> lifetime_key_; ///< ours, where lifetimes are probed
    LifetimeCounts lifetime_counts_{};
    bool relaying_ = false, only_relay_ = false, silent_ = false, probing_sizes_ = false;
    int dead_region_ = 0;
};

/// Is `a` worth leaving `b` for? Source: tailscale wgengine/magicsock/endpoint.go, betterAddr
/// (derp-disco-paths.md 4.6).
bool is_better_path(const Endpoint& a, Duration a_round_trip, const Endpoint& b, Duration b_round_trip);

} // namespace tailrace
