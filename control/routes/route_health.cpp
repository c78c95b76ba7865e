#include "control/routes/route_health.hpp"

#include <algorithm>

namespace tailrace {

namespace {

/// When we are late by more than this, it was us who did not listen.
constexpr auto kLate = std::chrono::milliseconds{500};
/// Many routers, one wake.
constexpr auto kPace = std::chrono::milliseconds{50};

Duration probation(int falls) {
    return std::min<Duration>(RouteHealth::kProbation * (1 << std::min(std::max(falls - 1, 0), 8)),
                              RouteHealth::kMostProbation);
}

/// The end of the probation of one that was back at the start; none when it has passed, or there was none.
std::optional<TimePoint> probation_left(TimePoint now, const RouteHealth::Start& start) {
    if (start.gone || start.falls <= 0) return std::nullopt;
    TimePoint end = std::min(start.returned, now) + probation(start.falls); // clocks are set
    return end > now ? std::optional{end} : std::nullopt;
}

bool is_gone(TimePoint now, const RouteHealth::Start& start) {
    bool is_held = start.hold_until && *start.hold_until > now;
    return start.gone || (!start.has_stream && !start.was_online && !is_held);
}

} // namespace

void RouteHealth::watch(TimePoint now, const std::map<NodeId, Start>& routers) {
    for (auto at = routers_.begin(); at != routers_.end();) {
        bool stays = routers.contains(at->first);
        at = stays ? std::next(at) : routers_.erase(at);
    }
    for (const auto& [id, start] : routers) {
        auto [at, fresh] = routers_.try_emplace(id);
        Router& router = at->second;
        if (fresh || router.carries != start.carries) forget_path(now, router);
        router.carries = start.carries;
        router.rivals = start.rivals;
        if (!fresh) {
            hasten(now, router);
            continue;
        }
        router.has_stream = start.has_stream;
        router.hold_until = start.hold_until;
        router.heard = start.has_stream ? now : now - kProbeEvery;
        router.asked = now - kProbeEvery; // at once
        router.falls = std::max(start.falls, 0) + (start.gone ? 1 : 0);
        router.returned = std::min(start.returned, now);
        router.steady_at = probation_left(now, start);
        router.gone = is_gone(now, start);
        if (start.has_stream) this->heard(now, id, router); // it came back while nobody looked
        hasten(now, router);
    }
    if (routers_.empty()) due_.reset();
}

/// Events mostly make things due later: then the timer comes in vain once.
void RouteHealth::hasten(TimePoint now, const Router& router) {
    TimePoint next = next_of(router);
    if (next == TimePoint::max()) return;
    next = std::max(next, now); // what is overdue since before the event is not late
    if (!due_ || next < *due_) due_ = next;
}

void RouteHealth::heard(TimePoint now, NodeId id, Router& router) {
    router.heard = now;
    router.witnessed = false;
    if (!router.gone || router.unreached) return;
    router.gone = false;
    router.returned = now;
    router.falls = std::max(router.falls, 1);
    router.steady_at = now + probation(router.falls);
    turns_.push_back({id, false, router.falls});
    changed_ = true;
}

void RouteHealth::on_stream_begin(TimePoint now, NodeId id) {
    auto at = routers_.find(id);
    if (at == routers_.end()) return;
    at->second.has_stream = true;
    at->second.hold_until.reset();
    at->second.unreached = false;
    forget_path(now, at->second);
    heard(now, id, at->second);
    hasten(now, at->second);
}

void RouteHealth::on_stream_end(TimePoint now, NodeId id) {
    auto at = routers_.find(id);
    if (at == routers_.end()) return;
    at->second.has_stream = false;
    at->second.heard = std::min<TimePoint>(at->second.heard, now - kProbeEvery);
    hasten(now, at->second);
}

void RouteHealth::on_word(TimePoint now, NodeId id) {
    auto at = routers_.find(id);
    if (at == routers_.end()) return;
    heard(now, id, at->second);
    hasten(now, at->second);
}

void RouteHealth::on_witness(TimePoint now, NodeId id, Proof proof) {
    auto at = routers_.find(id);
    if (at == routers_.end()) return;
    Router& router = at->second;
    router.reached = now;
    router.missed_since.reset();
    router.in_vain = 0;
    if (proof == Proof::Yes) router.proven = now;
    if (std::exchange(router.unreached, false)) {
        heard(now, id, router); // its stream speaks for it all the time
        hasten(now, router);
    }
    if (proof == Proof::No || router.gone || now - router.heard < kProbeEvery) return;
    router.heard = now - kProbeEvery; // the next question to its peers is due at once when this one has faded
    router.witnessed = true;
}

void RouteHealth::on_restart_announced(TimePoint now, NodeId id) {
    auto at = routers_.find(id);
    if (at == routers_.end() || at->second.gone) return;
    at->second.hold_until = now + kRestartHold;
}

void RouteHealth::lose(NodeId id, Router& router) {
    router.gone = true;
    router.witnessed = false;
    router.steady_at.reset();
    router.missed_since.reset();
    ++router.falls;
    turns_.push_back({id, true, router.falls});
    changed_ = true;
}

void RouteHealth::forget_path(TimePoint now, Router& router) {
    router.path_asked = router.reached = now;
    router.missed_since.reset();
}

/// Without a stream, and when it is silent, its peers are asked anyway.
bool RouteHealth::asks_for_path(const Router& router) {
    return router.has_stream && (router.gone ? router.unreached : router.carries);
}

Duration RouteHealth::path_pause(const Router& router) {
    return router.gone ? Duration{kPathEvery} : Duration{kPathEvery} * (1 << std::min(router.in_vain, 4));
}

void RouteHealth::look_at_path(TimePoint now, NodeId id, Router& router) {
    if (!asks_for_path(router)) return;
    if (router.missed_since) return compare(now, id, router);
    bool is_missed = router.reached < router.path_asked && now - router.path_asked >= kProbeEvery;
    if (is_missed && !router.gone) {
        router.missed_since = router.path_asked;
        router.rounds = router.worse = 0;
        router.compared = 0;
        return compare(now, id, router);
    }
    if (now - router.path_asked < path_pause(router)) return;
    router.path_asked = now;
    actions_.push_back({Action::Kind::AskPath, id});
}

/// Ends a round of questions about it and a rival, and begins the next.
void RouteHealth::compare(TimePoint now, NodeId id, Router& router) {
    if (now - router.path_asked < kProbeEvery) return;
    auto rival = routers_.find(router.compared);
    if (router.compared != 0 && rival != routers_.end() && rival->second.proven >= router.path_asked) ++router.worse;
    bool is_over = now - *router.missed_since >= kUnreachedAfter;
    if (is_over && router.worse >= kWorseRounds) {
        lose(id, router);
        router.unreached = true;
        router.path_asked = now;
        return;
    }
    std::vector<NodeId> there;
    for (NodeId other : router.rivals)
        if (auto at = routers_.find(other); at != routers_.end() && !at->second.gone && at->second.has_stream)
            there.push_back(other);
    router.path_asked = now;
    if (is_over) ++router.in_vain;
    if (is_over || there.empty()) return forget_path(now, router); // it is not worse than others, as far as one knows
    router.compared = there[static_cast<std::size_t>(router.rounds++) % there.size()];
    actions_.push_back({Action::Kind::AskPath, id, router.compared});
}

void RouteHealth::look_at(TimePoint now, NodeId id, Router& router) {
    if (router.steady_at && now >= *router.steady_at) {
        router.steady_at.reset();
        changed_ = true;
    }
    if (router.falls > 0 && !router.gone && now - router.returned >= kFlapMemory) router.falls = 0;
    if (router.has_stream && now - router.asked >= kProbeEvery) {
        router.asked = now;
        actions_.push_back({Action::Kind::AskRouter, id});
    }
    auto silence = now - router.heard;
    if (router.unreached && silence >= kGoneAfter) router.unreached = false; // now nobody hears it
    look_at_path(now, id, router);
    if (router.gone) return;
    bool held = router.hold_until && now < *router.hold_until;
    if (silence >= kGoneAfter && !held) {
        lose(id, router);
        if (router.has_stream) actions_.push_back({Action::Kind::EndStream, id});
        return;
    }
    auto doubt = router.has_stream ? Duration{kDoubtAfter} : Duration{kProbeEvery};
    if (silence >= doubt && now - router.asked_peers >= kProbeEvery) {
        router.asked_peers = now;
        actions_.push_back({Action::Kind::AskPeers, id});
    }
}

void RouteHealth::on_timer(TimePoint now) {
    if (due_ && now - *due_ > kLate) { // a stopped or overloaded server must not take everybody for dead
        auto late = now - *due_;
        for (auto& [id, router] : routers_) {
            router.heard = std::min(now, router.heard + late);
            forget_path(now, router);
        }
    }
    due_.reset();
    for (auto& [id, router] : routers_) {
        look_at(now, id, router);
        hasten(now, router);
    }
    if (due_) due_ = std::max<TimePoint>(*due_, now + kPace);
}

TimePoint RouteHealth::next_of(const Router& router) const {
    TimePoint next = TimePoint::max();
    auto consider = [&](TimePoint when) { next = std::min(next, when); };
    if (router.has_stream) consider(router.asked + kProbeEvery);
    if (router.steady_at) consider(*router.steady_at);
    if (asks_for_path(router)) {
        bool is_waiting = router.missed_since || (router.reached < router.path_asked && !router.gone);
        consider(router.path_asked + (is_waiting ? Duration{kProbeEvery} : path_pause(router)));
    }
    if (router.unreached) consider(router.heard + kGoneAfter);
    if (router.gone) return next;
    auto doubt = router.has_stream ? Duration{kDoubtAfter} : Duration{kProbeEvery};
    consider(std::max(router.heard + doubt, router.asked_peers + kProbeEvery));
    consider(std::max(router.heard + kGoneAfter, router.hold_until.value_or(TimePoint{})));
    return next;
}

std::vector<RouteHealth::Action> RouteHealth::take_actions() {
    return std::exchange(actions_, {});
}

RouteHealth::Standing RouteHealth::standing_of(TimePoint now, const Start& start) {
    return {!is_gone(now, start), !probation_left(now, start)};
}

std::optional<RouteHealth::Standing> RouteHealth::standing(NodeId id) const {
    auto at = routers_.find(id);
    if (at == routers_.end()) return std::nullopt;
    return Standing{!at->second.gone, !at->second.steady_at};
}

std::optional<RouteHealth::State> RouteHealth::state(TimePoint now, NodeId id) const {
    auto at = routers_.find(id);
    if (at == routers_.end()) return std::nullopt;
    const Router& router = at->second;
    if (router.gone) return router.unreached ? State::Unreached : State::Gone;
    auto silence = now - router.heard;
    bool silent = !router.has_stream || silence >= kDoubtAfter;
    if (silent && router.hold_until && now < *router.hold_until) return State::Restarting;
    if (router.witnessed) return State::Witnessed;
    if (silent) return State::Doubted;
    return router.steady_at ? State::Probation : State::Steady;
}

} // namespace tailrace
