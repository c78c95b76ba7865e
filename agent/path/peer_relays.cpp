#include "agent/path/peer_relays.hpp"

#include <algorithm>

namespace tailrace {
namespace {

constexpr auto kLookPause = std::chrono::milliseconds{250}; // between looks that packets cause
constexpr int kPingsUnasked = 5;                            // of those in a handshake; the others answer the peer's

/// Where a relay server may be. What a peer names is not believed so far that we talk to our own programs.
bool may_be_server(const Endpoint& endpoint) {
    const IpAddress& address = endpoint.address;
    return endpoint.valid() && endpoint.port != 0 && !address.is_unspecified() && !address.is_loopback() &&
           !address.is_multicast() && !address.is_link_local();
}

bool take_from(double& left, TimePoint& filled, TimePoint now, double per_second, double burst) {
    left = std::min(burst, left + std::chrono::duration<double>(now - filled).count() * per_second);
    filled = now;
    if (left < 1) return false;
    left -= 1;
    return true;
}

} // namespace

// -- what is known

void PeerRelays::set_enabled(TimePoint now, bool enabled) {
    enabled_ = enabled;
    if (!enabled) on_network_change(now);
}

void PeerRelays::set_peers(TimePoint now, std::set<NodeKey> capable, std::vector<NodeKey> servers) {
    capable_ = std::move(capable);
    servers_ = std::move(servers);
    std::vector<NodeKey> gone;
    for (const auto& [node, known] : peers_)
        if (!capable_.contains(node) || facts_.disco_of(node) != known.disco) gone.push_back(node);
    for (const NodeKey& node : gone) forget(now, node);
}

void PeerRelays::on_network_change(TimePoint now) {
    while (!peers_.empty()) forget(now, NodeKey{peers_.begin()->first});
}

void PeerRelays::forget(TimePoint now, const NodeKey& node) {
    auto found = peers_.find(node);
    if (found == peers_.end()) return;
    if (found->second.told) actions_.push_back(RouteChanged{node, std::nullopt});
    if (found->second.next_look != TimePoint::max()) looks_.erase({found->second.next_look, node});
    std::erase_if(bound_, [&](const auto& entry) { return entry.second == node; });
    peers_.erase(found);
    forget_old_pings(now);
}

/// None for peers that cannot, or when we may not. A peer with another key is another agent, that no server knows.
PeerRelays::Known* PeerRelays::known_of(TimePoint now, const NodeKey& node) {
    auto disco = enabled_ && capable_.contains(node) ? facts_.disco_of(node) : std::nullopt;
    if (!disco) return nullptr;
    auto found = peers_.find(node);
    if (found != peers_.end() && found->second.disco == *disco) return &found->second;
    forget(now, node);
    Known& known = peers_[node];
    known.disco = *disco;
    known.calls_filled = now;
    return &known;
}

std::array<DiscoKey, 2> PeerRelays::pair_with(const DiscoKey& disco) const {
    return {std::min(self_, disco), std::max(self_, disco)};
}

PeerRelays::Known::Route* PeerRelays::route_at(Known& known, const RelayRoute& to) {
    auto found = std::ranges::find(known.routes, to, &Known::Route::to);
    return found == known.routes.end() ? nullptr : &*found;
}

const PeerRelays::Known::Route* PeerRelays::best_of(TimePoint now, const Known& known) {
    for (const Known::Route& route : known.routes)
        if (known.best == route.to && now < route.trusted_until) return &route;
    return nullptr;
}

std::optional<RelayRoute> PeerRelays::route(TimePoint now, const NodeKey& node) const {
    auto found = peers_.find(node);
    const Known::Route* best = found == peers_.end() ? nullptr : best_of(now, found->second);
    if (best == nullptr) return std::nullopt;
    return best->to;
}

PeerRelays::State PeerRelays::state(TimePoint now, const NodeKey& node) const {
    State out;
    if (enabled_ && capable_.contains(node)) out.servers = servers_.size();
    auto found = peers_.find(node);
    if (found == peers_.end()) return out;
    out.questions = found->second.questions.size();
    out.handshakes = found->second.handshakes.size();
    if (const Known::Route* best = best_of(now, found->second)) {
        out.route = best->to;
        out.round_trip = best->round_trip;
    }
    return out;
}

// -- what comes

void PeerRelays::on_wish(TimePoint now, const NodeKey& node) {
    if (!enabled_ || (servers_.empty() && !peers_.contains(node))) return;
    Known* known = known_of(now, node);
    if (known == nullptr) return;
    bool was_active = known->wished && now - *known->wished < kActiveFor;
    known->wished = now;
    if (!was_active || !known->looked || now - *known->looked >= kLookPause) look(now, node);
}

void PeerRelays::on_allocated(TimePoint now, const NodeKey& server, const DiscoAllocateResponse& response) {
    const auto& clients = response.endpoint.clients;
    auto node = facts_.node_of(clients[0] == self_ ? clients[1] : clients[0]);
    if (!node) return;
    auto found = peers_.find(*node);
    if (found == peers_.end()) return;
    auto question = found->second.questions.find(server);
    if (question == found->second.questions.end() || question->second.generation != response.generation) return;
    found->second.questions.erase(question);
    learn(now, *node, found->second, response.endpoint, true);
    look(now, *node);
}

void PeerRelays::on_call(TimePoint now, const NodeKey& from, const DiscoRelayEndpoint& endpoint) {
    Known* known = known_of(now, from);
    if (known == nullptr) return;
    learn(now, from, *known, endpoint, false);
    look(now, from);
}

/// Of an endpoint that a server has set aside for us and the peer, which it or the peer tells of.
void PeerRelays::learn(TimePoint now, const NodeKey& node, Known& known, DiscoRelayEndpoint endpoint, bool asked_for) {
    std::erase_if(endpoint.addresses, [](const Endpoint& address) { return !may_be_server(address); });
    if (endpoint.addresses.size() > kMostAddresses) endpoint.addresses.resize(kMostAddresses);
    auto clients = endpoint.clients;
    std::ranges::sort(clients);
    if (clients != pair_with(known.disco) || endpoint.server.is_zero() || endpoint.addresses.empty() ||
        endpoint.vni == 0 || endpoint.vni > GenevePacket::kLargestVni || endpoint.bind_lifetime <= Duration{})
        return;
    std::vector<NodeKey> outdated; // a server has one endpoint for a pair, and one of a number
    for (auto& [other, theirs] : peers_) {
        auto same = theirs.handshakes.find(endpoint.server);
        if (same == theirs.handshakes.end() || (other != node && same->second.endpoint.vni != endpoint.vni)) continue;
        if (same->second.endpoint.lamport_id >= endpoint.lamport_id) return; // the same again, or older
        outdated.push_back(other);
    }
    if (asked_for) actions_.push_back(CallVia{node, endpoint});
    const Known::Route* best = best_of(now, known);
    // A new handshake could end at another address, and the server takes our packets from one only.
    if (best != nullptr && best->server == endpoint.server && best->to.vni == endpoint.vni) return;
    bool more = outdated.empty();
    if (more && (known.handshakes.size() >= kMostHandshakesOfPeer || handshakes() >= kMostHandshakes)) return;
    if (!asked_for && !take_from(known.calls_left, known.calls_filled, now, kCallsPerSecond, kCallBurst)) return;
    for (const NodeKey& other : outdated) drop_handshake(peers_[other], peers_[other].handshakes.find(endpoint.server));
    if (++last_generation_ == 0) ++last_generation_;
    Handshake& handshake = known.handshakes[endpoint.server];
    handshake.generation = last_generation_;
    handshake.until = now + std::min<Duration>(endpoint.bind_lifetime, kLongestHandshake);
    handshake.endpoint = std::move(endpoint);
    try_handshake(now, node, known, handshake);
}

bool PeerRelays::is_shaking_with(const DiscoKey& server, std::uint32_t vni) const {
    return std::ranges::any_of(peers_, [&](const auto& entry) {
        auto found = entry.second.handshakes.find(server);
        return found != entry.second.handshakes.end() && found->second.endpoint.vni == vni && !found->second.bound;
    });
}

void PeerRelays::on_challenge(TimePoint now, const DiscoKey& server, const RelayRoute& from,
                              const DiscoRelayHandshake& message) {
    if (message.step != DiscoRelayHandshake::Step::Challenge || message.vni != from.vni) return;
    for (auto& [node, known] : peers_) {
        auto found = known.handshakes.find(server);
        if (found == known.handshakes.end() || found->second.endpoint.vni != message.vni) continue;
        Handshake& handshake = found->second;
        if (handshake.bound || message.remote != known.disco || message.generation != handshake.generation) return;
        if (std::ranges::find(handshake.endpoint.addresses, from.server) == handshake.endpoint.addresses.end()) return;
        if (!bind(now, node, from)) return;
        handshake.bound = from.server;
        handshake.challenge = message.challenge;
        try_handshake(now, node, known, handshake);
        look(now, NodeKey{node});
        return;
    }
}

/// That what comes there is the peer's. Not as long as it is certainly another's.
bool PeerRelays::bind(TimePoint now, const NodeKey& node, const RelayRoute& to) {
    auto owner = bound_.find(to);
    if (owner != bound_.end() && owner->second != node) {
        Known& other = peers_[owner->second];
        for (const auto& [server, handshake] : other.handshakes)
            if (handshake.bound == to.server && handshake.endpoint.vni == to.vni) return false;
        if (const Known::Route* route = route_at(other, to); route != nullptr && now < route->trusted_until)
            return false;
        std::erase_if(other.routes, [&](const Known::Route& route) { return route.to == to; });
    }
    bound_[to] = node;
    return true;
}

void PeerRelays::on_ping(TimePoint now, const DiscoKey& from, const DiscoTxId& id, const RelayRoute& via) {
    auto node = enabled_ ? facts_.node_of(from) : std::nullopt;
    if (!node) return;
    actions_.push_back(PongVia{*node, from, id, via});
    auto found = peers_.find(*node);
    if (found == peers_.end()) return;
    Known& known = found->second;
    if (Known::Route* route = route_at(known, via)) route->heard = now;
    for (auto& [server, handshake] : known.handshakes) { // the peer is bound now; our ping may have come too early
        if (handshake.bound != via.server || handshake.endpoint.vni != via.vni) continue;
        if (handshake.pings++ < kPingsInHandshake) ping(now, *node, known, via, 0);
    }
}

void PeerRelays::on_pong(TimePoint now, const DiscoKey& from, const DiscoTxId& id, const RelayRoute& via) {
    auto found = sent_.find(id);
    if (found == sent_.end() || found->second.to != via || now - found->second.at > kPingTimeout) return;
    auto peer = peers_.find(found->second.node);
    if (peer == peers_.end() || peer->second.disco != from) return;
    Sent sent = found->second;
    sent_.erase(found);
    Known& known = peer->second;
    Duration round_trip = now - sent.at;
    if (sent.question != 0) actions_.push_back(AnsweredVia{sent.question, sent.node, via, round_trip});
    for (auto it = known.handshakes.begin(); it != known.handshakes.end(); ++it) {
        if (it->second.bound != via.server || it->second.endpoint.vni != via.vni) continue;
        install(now, known, it->first, via, round_trip);
        drop_handshake(known, it);
        break;
    }
    if (Known::Route* route = route_at(known, via)) {
        route->heard = now;
        route->round_trip = round_trip;
        route->trusted_until = now + kTrustFor;
    }
    look(now, sent.node);
}

std::optional<NodeKey> PeerRelays::on_data(TimePoint now, const RelayRoute& via) {
    auto owner = bound_.find(via);
    if (owner == bound_.end()) return std::nullopt;
    if (auto known = peers_.find(owner->second); known != peers_.end())
        if (Known::Route* route = route_at(known->second, via)) route->heard = now;
    return owner->second;
}

/// A ping through a server was answered.
void PeerRelays::install(TimePoint now, Known& known, const DiscoKey& server, const RelayRoute& to,
                         Duration round_trip) {
    const Known::Route* best = best_of(now, known);
    bool take = best == nullptr || best->server == server ||
                is_better_path(to.server, round_trip, best->to.server, best->round_trip);
    std::optional<RelayRoute> stays;
    if (!take) stays = best->to;
    auto remove = [&](auto route) {
        if (route->to != to) bound_.erase(route->to);
        known.routes.erase(route);
    };
    if (auto old = std::ranges::find(known.routes, server, &Known::Route::server); old != known.routes.end())
        remove(old); // the server has forgotten it
    if (auto old = std::ranges::find(known.routes, to, &Known::Route::to); old != known.routes.end()) remove(old);
    while (known.routes.size() >= kMostRoutesOfPeer) {
        auto worth = [&](const Known::Route& route) { return std::pair{route.to == stays, route.heard}; };
        remove(std::ranges::min_element(known.routes, {}, worth));
    }
    known.routes.push_back({to, server, round_trip, now + kTrustFor, now, now});
    known.best = take ? to : *stays;
}

void PeerRelays::drop_handshake(Known& known, std::map<DiscoKey, Handshake>::iterator at) {
    if (at->second.bound) {
        RelayRoute to{*at->second.bound, at->second.endpoint.vni};
        if (route_at(known, to) == nullptr) bound_.erase(to);
    }
    known.handshakes.erase(at);
}

std::size_t PeerRelays::handshakes() const {
    std::size_t count = 0;
    for (const auto& [node, known] : peers_) count += known.handshakes.size();
    return count;
}

// -- what goes

void PeerRelays::ping(TimePoint now, const NodeKey& node, const Known& known, const RelayRoute& to,
                      std::uint64_t question) {
    forget_old_pings(now);
    DiscoTxId id = facts_.new_id();
    sent_[id] = Sent{node, to, now, question};
    sent_in_order_.emplace_back(now, id);
    actions_.push_back(PingVia{node, known.disco, id, to});
}

void PeerRelays::forget_old_pings(TimePoint now) {
    while (!sent_in_order_.empty() && now - sent_in_order_.front().first > kPingTimeout) {
        sent_.erase(sent_in_order_.front().second);
        sent_in_order_.pop_front();
    }
}

std::uint64_t PeerRelays::ask(TimePoint now, const NodeKey& node) {
    auto to = route(now, node);
    if (!to) return 0;
    Known& known = peers_[node];
    known.wished = now;
    ping(now, node, known, *to, ++last_question_);
    look(now, node);
    return last_question_;
}

void PeerRelays::try_handshake(TimePoint now, const NodeKey& node, const Known& known, Handshake& handshake) {
    handshake.tried = now;
    const std::uint32_t vni = handshake.endpoint.vni;
    DiscoRelayHandshake message{DiscoRelayHandshake::Step::Bind, vni, handshake.generation, known.disco, {}};
    const DiscoKey& server = handshake.endpoint.server;
    if (handshake.bound) {
        if (handshake.pings >= kPingsUnasked) return;
        message.step = DiscoRelayHandshake::Step::Answer;
        message.challenge = handshake.challenge;
        RelayRoute to{*handshake.bound, vni};
        actions_.push_back(ShakeWithRelay{node, server, to, message});
        ++handshake.pings;
        ping(now, node, known, to, 0);
        return;
    }
    if (handshake.binds++ >= kMostBinds) return;
    for (const Endpoint& address : handshake.endpoint.addresses) {
        if (!take_from(binds_left_, binds_filled_, now, kBindsPerSecond, kBindBurst)) return;
        actions_.push_back(ShakeWithRelay{node, server, {address, vni}, message});
    }
}

void PeerRelays::discover(TimePoint now, Known& known) {
    known.discovered = now;
    std::size_t under_way = 0;
    for (const auto& [other, theirs] : peers_) under_way += theirs.questions.size();
    for (const NodeKey& server : servers_) {
        if (known.questions.size() >= kMostServers || under_way++ >= kMostQuestions) return;
        if (++last_generation_ == 0) ++last_generation_;
        known.questions[server] = {last_generation_, now};
        actions_.push_back(AskRelayServer{server, {pair_with(known.disco), last_generation_}});
    }
}

/// Somebody talks to the peer, and not directly.
TimePoint PeerRelays::seek(TimePoint now, const NodeKey& node, Known& known) {
    const Known::Route* best = best_of(now, known);
    TimePoint next = *known.wished + kActiveFor;
    for (Known::Route& route : known.routes) { // with none in force an old one may work again
        if (best != nullptr && best != &route) continue;
        if (!route.pinged || now - *route.pinged >= kHeartbeat) {
            route.pinged = now;
            ping(now, node, known, route.to, 0);
        }
        next = std::min(next, *route.pinged + kHeartbeat);
    }
    if (servers_.empty()) return next;
    if (!known.questions.empty() || !known.handshakes.empty()) return next; // their ends are looked at
    TimePoint again = now;
    if (known.discovered) again = *known.discovered + (best != nullptr ? kCompareEvery : kDiscoverEvery);
    if (again <= now) discover(now, known);
    return std::min(next, again > now ? again : now + kAskAgainAfter);
}

TimePoint PeerRelays::do_what_is_due(TimePoint now, const NodeKey& node, Known& known) {
    std::erase_if(known.questions, [&](const auto& entry) { return now - entry.second.asked >= kAskFor; });
    for (auto it = known.handshakes.begin(); it != known.handshakes.end();) {
        auto at = it++;
        if (now >= at->second.until) drop_handshake(known, at);
    }
    std::erase_if(known.routes, [&](const Known::Route& route) {
        bool old = now >= route.trusted_until && now - route.heard >= kKeepRoute;
        if (old) bound_.erase(route.to);
        return old;
    });
    if (best_of(now, known) == nullptr)
        for (const Known::Route& route : known.routes)
            if (now < route.trusted_until) known.best = route.to;

    TimePoint next = TimePoint::max();
    bool active = known.wished && now - *known.wished < kActiveFor;
    if (active) next = facts_.is_direct(now, node) ? *known.wished + kActiveFor : seek(now, node, known);
    for (auto& [server, question] : known.questions) {
        if (!question.asked_again && now - question.asked >= kAskAgainAfter) {
            question.asked_again = true;
            actions_.push_back(AskRelayServer{server, {pair_with(known.disco), question.generation}});
        }
        next = std::min<TimePoint>(next, question.asked + (question.asked_again ? Duration{kAskFor} : kAskAgainAfter));
    }
    for (auto& [server, handshake] : known.handshakes) {
        bool more = handshake.bound ? handshake.pings < kPingsUnasked : handshake.binds < kMostBinds;
        if (more && now - handshake.tried >= kTryAgain) try_handshake(now, node, known, handshake);
        next = std::min(next, more ? std::min(handshake.until, handshake.tried + kTryAgain) : handshake.until);
    }
    for (const Known::Route& route : known.routes)
        next = std::min(next, now < route.trusted_until ? route.trusted_until : route.heard + kKeepRoute);
    // Who has called too often is remembered until that is forgiven.
    auto pause = std::chrono::duration<double>((kCallBurst - known.calls_left) / kCallsPerSecond);
    TimePoint forgiven = known.calls_filled + std::chrono::duration_cast<Duration>(pause);
    if (now < forgiven) next = std::min(next, forgiven);
    return next;
}

void PeerRelays::look(TimePoint now, const NodeKey& node) {
    auto found = peers_.find(node);
    if (found == peers_.end()) return;
    Known& known = found->second;
    known.looked = now;
    TimePoint next = do_what_is_due(now, node, known);
    const Known::Route* best = best_of(now, known);
    std::optional<RelayRoute> route;
    if (best != nullptr) route = best->to;
    if (route != known.told) {
        known.told = route;
        actions_.push_back(RouteChanged{node, route});
    }
    if (next == TimePoint::max()) {
        forget(now, node); // nothing of it is left, and nobody talks
        return;
    }
    if (next == known.next_look) return;
    if (known.next_look != TimePoint::max()) looks_.erase({known.next_look, node});
    looks_.emplace(next, node);
    known.next_look = next;
}

void PeerRelays::on_timer(TimePoint now) {
    std::vector<NodeKey> due;
    for (auto it = looks_.begin(); it != looks_.end() && it->first <= now; ++it) due.push_back(it->second);
    for (const NodeKey& node : due) look(now, node);
}

std::optional<TimePoint> PeerRelays::next_timer() const {
    if (looks_.empty()) return std::nullopt;
    return looks_.begin()->first;
}

} // namespace tailrace
