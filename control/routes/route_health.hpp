// control/routes/route_health.hpp - which of the routers that share a route are there now. Pure: it is told the time
// and what happened; the caller carries out take_actions().
//
// Only routers with a rival are watched: for the others it makes no difference. A watched router is asked every
// kProbeEvery over its map stream, and any request of it is an answer too. When it has said nothing for kDoubtAfter, or
// its stream ended, peers of it are asked whether they reach it, for control may be the one that is cut off: what a
// peer has heard of it by a relay or over the internet counts like its own word. Silence on both ways for kGoneAfter
// means that it is gone. Only its own word brings it back.
//
// That we hear a router does not mean that its clients reach it: its UDP and its relay may be cut off while we are not.
// So of a router that carries routes, a peer is asked every kPathEvery even so. When that peer does not reach it, some
// are asked every kProbeEvery, each about it and about a rival. One that reaches it settles the matter. When nobody did
// for kUnreachedAfter, and at least kWorseRounds times somebody reached the rival by a way that proves something, it
// counts as gone, until a peer reaches it again or its stream begins anew. kUnreachedAfter is longer than a client goes
// on trusting a direct path that has died (6.5 s): a peer that is about to take the relay instead moves nothing.
// Where nobody reached either of the two, which says nothing, the next question waits twice as long each time, up to
// 16 times: peers that do not answer are left in peace.
//
//   power cut, partition     no answer to 3 questions, no peer hears it     gone after kGoneAfter at most
//   killed                   its stream ends, no peer hears it              gone kEndedGrace after that
//   cut off from us only     no answer, but peers hear it                   stays as long as they do
//   cut off from all but us  answers, no peer reaches it but a rival        gone kPathEvery + kUnreachedAfter after
//                                                                           that, and a kProbeEvery at most
//   orderly restart          it says so before its stream ends              stays for kRestartHold
//
// The primary of a route stays it for as long as it is there; nobody who comes back takes over. Who comes back is on
// probation: it can be chosen, but after everybody steady. The first time for kProbation, and twice as long each time
// that it goes again within kFlapMemory of its return.
#pragma once
#include "base/time.hpp"
#include "control/model/model.hpp"

#include <map>
#include <optional>
#include <utility>
#include <vector>

namespace tailrace {

class RouteHealth {
public:
    static constexpr auto kProbeEvery = std::chrono::milliseconds{1200};
    static constexpr auto kDoubtAfter = 2 * kProbeEvery;
    static constexpr auto kGoneAfter = 3 * kProbeEvery;
    static constexpr auto kEndedGrace = kGoneAfter - kProbeEvery;
    static constexpr auto kPathEvery = std::chrono::seconds{3};
    static constexpr auto kUnreachedAfter = std::chrono::seconds{9};
    static constexpr int kWorseRounds = 3;
    static constexpr auto kRestartHold = std::chrono::seconds{10};
    static constexpr auto kProbation = std::chrono::seconds{10};
    static constexpr auto kMostProbation = std::chrono::minutes{5};
    static constexpr auto kFlapMemory = std::chrono::minutes{10};

    enum class State {
        Steady,
        Probation,  ///< back, but not for long enough
        Doubted,    ///< says nothing at the moment; keeps what it has
        Witnessed,  ///< says nothing to us, but peers hear it
        Restarting, ///< said that it would be away for a moment, or we were
        Unreached,  ///< speaks to us, but peers do not reach it: gone
        Gone,
    };
    struct Standing {
        bool there = false, steady = false;
    };
    struct Action {
        /// AskPeers: whether they hear it. AskPath: whether one reaches it; with a rival: some, about both.
        enum class Kind { AskRouter, AskPeers, AskPath, EndStream };
        Kind kind;
        NodeId router = 0;
        NodeId rival = 0;
        auto operator<=>(const Action&) const = default;
    };
    /// What is known of a router when it begins to be watched.
    struct Start {
        bool has_stream = false;
        bool was_online = false;             ///< its stream ended a moment ago
        std::optional<TimePoint> hold_until; ///< it may be away until then
        bool gone = false;                   ///< it had gone when it was watched last; then `falls` and
        int falls = 0;                       ///< `returned` are of the time before. 0: it never went
        TimePoint returned{};                ///< when it came back last, if it ever went
        bool carries = false;                ///< some of its routes, at the moment
        std::vector<NodeId> rivals{};        ///< who could have them instead
    };
    /// It went, or came back. `falls`: how often it went in short order.
    struct Turn {
        NodeId router = 0;
        bool gone = false;
        int falls = 0;
        bool operator==(const Turn&) const = default;
    };

    /// From now on these are watched, and no others.
    void watch(TimePoint now, const std::map<NodeId, Start>& routers);

    void on_stream_begin(TimePoint now, NodeId id);
    void on_stream_end(TimePoint now, NodeId id);
    /// An answer, or any other request of it.
    void on_word(TimePoint now, NodeId id);
    enum class Proof { No, Yes };
    /// A peer reached it just now. Proof: by a way that shows that others do, too.
    void on_witness(TimePoint now, NodeId id, Proof proof);
    /// It ends, and will be back within kRestartHold.
    void on_restart_announced(TimePoint now, NodeId id);
    void on_timer(TimePoint now);
    std::optional<TimePoint> next_timer() const { return due_; }

    std::vector<Action> take_actions();
    /// Whether anybody's chance to be chosen has changed since the last call.
    bool take_changed() { return std::exchange(changed_, false); }
    /// Who went and came back since the last call, in order.
    std::vector<Turn> take_turns() { return std::exchange(turns_, {}); }
    /// What a choice goes by before the router is watched.
    static Standing standing_of(TimePoint now, const Start& start);
    /// What a choice goes by.
    std::optional<Standing> standing(NodeId id) const;
    /// For people. Nothing for one that is not watched.
    std::optional<State> state(TimePoint now, NodeId id) const;

private:
    struct Router {
        bool has_stream = false, gone = false, witnessed = false;
        TimePoint heard, asked, asked_peers;
        std::optional<TimePoint> hold_until;
        std::optional<TimePoint> steady_at; ///< the end of a probation that runs
        TimePoint returned;
        int falls = 0; ///< that are remembered
        bool carries = false;
        std::vector<NodeId> rivals;
        // What is known of the way of its clients.
        bool unreached = false;                ///< and gone for that reason
        TimePoint path_asked, reached, proven; ///< a peer reached it last; by a way that proves something
        std::optional<TimePoint> missed_since; ///< when the first question was asked that no peer answered well
        NodeId compared = 0;                   ///< the rival of the round that runs
        int rounds = 0, worse = 0;             ///< since then; those in which only the rival was reached
        int in_vain = 0;                       ///< comparisons in a row that said nothing
    };
    TimePoint next_of(const Router& router) const;
    void hasten(TimePoint now, const Router& router);
    void look_at(TimePoint now, NodeId id, Router& router);
    void look_at_path(TimePoint now, NodeId id, Router& router);
    void compare(TimePoint now, NodeId id, Router& router);
    static void forget_path(TimePoint now, Router& router);
    static bool asks_for_path(const Router& router);
    static Duration path_pause(const Router& router);
    void lose(NodeId id, Router& router);
    void heard(TimePoint now, NodeId id, Router& router);

    std::map<NodeId, Router> routers_;
    std::optional<TimePoint> due_; ///< when on_timer() should come next
    std::vector<Action> actions_;
    std::vector<Turn> turns_;
    bool changed_ = false;
};

} // namespace tailrace
