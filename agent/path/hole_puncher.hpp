// agent/path/hole_puncher.hpp - a direct path between a node behind a hard NAT and one behind an easy one.
#pragma once
#include "base/net.hpp"
#include "base/time.hpp"
#include "proto/disco.hpp"
#include "proto/keys.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <variant>
#include <vector>

namespace tailrace {

/// Say this to the peer, over its relay.
struct PunchSay {
    NodeKey peer;
    DiscoPunch message;
};
/// Open so many sockets of random ports, ping the peer from each at `remote`, then call on_opened().
struct PunchOpen {
    NodeKey peer;
    Endpoint remote;
    std::size_t count = 0;
};
/// Close those sockets but the ones whose ports are moved.
struct PunchClose {};
/// Ping the peer from WireGuard's port at each of these, and watch for ICMP errors until PunchProbed.
struct PunchProbe {
    NodeKey peer;
    std::vector<Endpoint> to;
};
struct PunchProbed {};
/// From now on these remote endpoints are reached from these ports of ours, and no others are.
struct PunchMoves {
    std::map<Endpoint, std::uint16_t> ports;
};
/// What our probes have found, for the agent after us: adopt().
struct PunchFound {
    std::map<NodeKey, Endpoint> paths;
};
/// Nobody shall be reached at these for kLeaveFor: PathBook::leave().
struct PunchLeave {
    std::set<Endpoint> endpoints;
};
/// PathBook::forgive().
struct PunchForgive {};
using PunchAction = std::variant<PunchSay, PunchOpen, PunchClose, PunchProbe, PunchProbed, PunchMoves, PunchFound,
                                 PunchLeave, PunchForgive>;

/// A hard NAT gives each destination another outside port, so nobody can be told where to find who is behind it. But
/// the hard side can open many mappings towards the one outside address of the easy side, and the easy side can look
/// for one of them at random: with kSockets of some 64,500 ports open, kProbes tries miss all of them once in 3,500
/// times, and half of the time 175 are enough. The mapping that is hit belongs to one of the hard side's sockets;
/// WireGuard is moved to that socket's port (bpf/move.bpf.c), and from there on the path is like any other.
///
///     hard                       easy
///      | --- Ask ----(relay)----> |     after kPatience of relayed talk; nothing is opened for who does not answer
///      | <-- Ready --(relay)----- |
///      | ==> pings from kSockets  |     lost in the easy side's NAT
///      | --- Go -----(relay)----> |
///      |   a few pings to feel    | <=  does anybody refuse them?
///      |   pings to kProbes ports | <=  kBatch each kBatchEvery
///      | ==> pong and ping        |     from the socket that was hit
///
/// Both sides stop at once, and for kRefusedFor, when an ICMP error says that somebody on the way wants none of it. One
/// run at a time a node, and one a peer in kAgain; whoever asks in vain asks ever more rarely.
///
/// Switched off on either side, the paths that were found this way end: both take the relay, whoever is switched off
/// at once and the other when its pings are not answered. What is moved stays so until then, for packets under way.
///
/// Pure: it is told what happens and when; the caller carries out take_actions(). IPv4 only.
class HolePuncher {
public:
    static constexpr auto kPatience = std::chrono::seconds{3};
    static constexpr auto kSilence = std::chrono::seconds{5}; ///< talk begins anew after it
    static constexpr std::size_t kSockets = 256;
    static constexpr std::size_t kLeastSockets = 64; ///< fewer are not worth a run
    static constexpr std::size_t kProbes = 2048;
    /// First some to ports that no NAT gives away: who refuses probes shows it before one can hit.
    static constexpr std::size_t kFeelers = 3;
    static constexpr auto kFeelFor = std::chrono::milliseconds{300};
    static constexpr std::size_t kBatch = 100;
    static constexpr auto kBatchEvery = std::chrono::milliseconds{100};
    static constexpr auto kAnswerWithin = std::chrono::seconds{2}; ///< of a message over the relay
    static constexpr auto kOpenFor = std::chrono::seconds{5};      ///< from Go: all probes and a round trip
    static constexpr auto kLinger = std::chrono::seconds{3}; ///< losers' sockets stay so long: closed ones send ICMP
    static constexpr auto kAgain = std::chrono::minutes{1};
    static constexpr auto kRarely = std::chrono::hours{1};
    static constexpr auto kRefusedFor = std::chrono::hours{1};
    static constexpr std::size_t kMostMoves = 256;              ///< each holds a descriptor
    static constexpr auto kKeepMove = std::chrono::seconds{30}; ///< without a proof that its path works
    static constexpr auto kLookAtMoves = std::chrono::seconds{5};
    static constexpr auto kProveAgain = std::chrono::seconds{10}; ///< after a change of our network
    static constexpr auto kLeaveFor = std::chrono::minutes{1};    ///< longer than any move stays without a proof

    /// What we know of ourselves.
    struct Self {
        bool enabled = true;
        std::optional<bool> mapping_varies; ///< by destination: our NAT is hard
        std::optional<Endpoint> outside;    ///< of WireGuard's port, over IPv4
    };
    /// What is known of a peer that said something.
    struct PeerFacts {
        bool talks = false;            ///< there is traffic
        bool direct = false;           ///< by a direct path
        std::set<IpAddress> addresses; ///< those of its candidates
    };

    explicit HolePuncher(std::function<std::uint32_t(std::uint32_t limit)> random_below)
        : random_below_(std::move(random_below)) {}

    void set_self(Self self);
    void keep_only(const std::set<NodeKey>& peers);
    /// Runs end; moves get a short time to prove that they work still.
    void on_network_change(TimePoint now);
    /// Moves that an earlier agent left in force, and what it had found.
    void adopt(TimePoint now, const std::map<Endpoint, std::uint16_t>& ports, const std::map<NodeKey, Endpoint>& found);

    /// A packet of ours went to the peer over its relay, for want of a direct path.
    void on_relayed_packet(TimePoint now, const NodeKey& peer);
    void on_message(TimePoint now, const NodeKey& peer, const DiscoPunch& message, const PeerFacts& facts);
    /// PunchOpen was carried out, with so many sockets.
    void on_opened(TimePoint now, std::size_t count);
    /// An authentic ping of the peer reached one of our sockets.
    void on_hit(TimePoint now, std::uint16_t port);
    /// PunchMoves cannot be carried out here.
    void on_move_failed(TimePoint now);
    /// An authentic disco message of the peer reached WireGuard's port.
    void on_heard(const NodeKey& peer, const Endpoint& from);
    /// An ICMP error came back to one of our sockets, or the kernel does not let us. True when that ended a run.
    bool on_refused(TimePoint now);
    /// An ICMP error about something that we sent to this endpoint from WireGuard's port. True when it was a probe.
    bool on_icmp_error(TimePoint now, const Endpoint& to);

    /// `works`: does some peer have a direct path there that has been proven lately?
    void on_timer(TimePoint now, const std::function<bool(const Endpoint&)>& works);
    std::optional<TimePoint> next_timer() const;
    bool has_actions() const { return !actions_.empty(); }
    std::vector<PunchAction> take_actions() { return std::exchange(actions_, {}); }

    /// Whom we probe or whose probes we wait for; for messages and tests.
    std::optional<NodeKey> running_with() const { return run_ ? std::optional{run_->peer} : std::nullopt; }
    std::map<Endpoint, std::uint16_t> moves() const;

private:
    enum class Step { Asked, Opening, Open, Won, Promised, Probing };
    struct Run {
        Step step;
        NodeKey peer;
        std::uint32_t number = 0;
        Endpoint remote; ///< hard side: where the easy side is; easy side: the hard side's address
        TimePoint until;
        std::vector<std::uint16_t> ports{}; ///< easy side: to be probed, the next at the back
        std::set<std::uint16_t> probed{};
        TimePoint next_batch{};
    };
    struct Memory {
        std::optional<TimePoint> relayed_since, last_relayed;
        TimePoint not_before{};
        int failures = 0;
    };
    struct Move {
        std::uint16_t port = 0;
        TimePoint last_good;
    };
    bool is_hard() const { return self_.enabled && self_.mapping_varies == true && self_.outside; }
    bool is_easy() const { return self_.enabled && self_.mapping_varies == false && self_.outside; }
    bool is_mine(const NodeKey& peer, const DiscoPunch& message, Step step) const;
    void say(const NodeKey& peer, DiscoPunch::Step step, std::uint32_t run, const Endpoint& outside = {});
    void end();
    void fail(TimePoint now);
    void refuse(TimePoint now);
    void feel(TimePoint now);
    void probe(TimePoint now);
    void tell_moves();
    void leave_paths();

    std::function<std::uint32_t(std::uint32_t)> random_below_;
    Self self_;
    std::optional<Run> run_;
    std::map<NodeKey, Memory> memory_;
    std::map<Endpoint, Move> moves_;
    std::map<NodeKey, Endpoint> found_; ///< easy side: where our probes found the hard one
    std::optional<TimePoint> next_look_at_moves_;
    std::vector<PunchAction> actions_;
};

} // namespace tailrace
