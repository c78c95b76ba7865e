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
        if (!fresh) continue;
        Router& router = at->second;
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
    if (!router.gone) return;
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

void RouteHealth::on_witness(TimePoint now, NodeId id) {
    auto at = routers_.find(id);
    if (at == routers_.end() || at->second.gone || now - at->second.heard < kProbeEvery) return;
    at->second.heard = now - kProbeEvery; // the next question to its peers is due at once when this one has faded
    at->second.witnessed = true;
}

void RouteHealth::on_restart_announced(TimePoint now, NodeId id) {
    auto at = routers_.find(id);
    if (at == routers_.end() || at->second.gone) return;
    at->second.hold_until = now + kRestartHold;
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
    if (router.gone) return;
    auto silence = now - router.heard;
    bool held = router.hold_until && now < *router.hold_until;
    if (silence >= kGoneAfter && !held) {
        router.gone = true;
        router.witnessed = false;
        router.steady_at.reset();
        ++router.falls;
        turns_.push_back({id, true, router.falls});
        changed_ = true;
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
        for (auto& [id, router] : routers_) router.heard = std::min(now, router.heard + late);
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
    if (router.gone) return State::Gone;
    auto silence = now - router.heard;
    bool silent = !router.has_stream || silence >= kDoubtAfter;
    if (silent && router.hold_until && now < *router.hold_until) return State::Restarting;
    if (router.witnessed) return State::Witnessed;
    if (silent) return State::Doubted;
    return router.steady_at ? State::Probation : State::Steady;
}

} // namespace tailrace
