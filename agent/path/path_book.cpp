#include "agent/path/path_book.hpp"

#include <algorithm>

namespace tailrace {
namespace {

bool is_private(const IpAddress& address) {
    static const std::vector<IpPrefix> ranges = [] {
        std::vector<IpPrefix> out;
        for (const char* text : {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"})
            out.push_back(*IpPrefix::parse(text));
        return out;
    }();
    return std::ranges::any_of(ranges, [&](const IpPrefix& range) { return range.contains(address); });
}

int address_points(const IpAddress& address) {
    int points = address.is_v6() ? 10 : 0;
    if (address.is_loopback()) return points + 50;
    if (address.is_link_local()) return points + 30;
    if (is_private(address)) return points + 20;
    return points;
}

} // namespace

bool is_better_path(const Endpoint& a, Duration a_round_trip, const Endpoint& b, Duration b_round_trip) {
    if (a == b) return false;
    if (!b.valid()) return true;
    if (!a.valid()) return false;
    auto percent = [](Duration small, Duration large) { return static_cast<int>(100 * small.count() / large.count()); };
    int a_points = 0, b_points = 0;
    if (a_round_trip > b_round_trip)
        b_points += 100 - percent(b_round_trip, a_round_trip);
    else if (b_round_trip > Duration{})
        a_points += 100 - percent(a_round_trip, b_round_trip);
    a_points += address_points(a.address);
    b_points += address_points(b.address);
    if (a_points <= 1 && b_points == 0) return false; // stay where we are for a mere hundredth
    return a_points > b_points;
}

PathBook::PathBook(std::function<DiscoTxId()> new_id) : new_id_(std::move(new_id)) {}

void PathBook::set_peers(TimePoint now, const std::vector<Peer>& peers) {
    std::map<NodeKey, Known> kept;
    by_disco_.clear();
    for (const Peer& peer : peers) {
        Known known;
        bool fresh = true;
        if (auto found = peers_.find(peer.node); found != peers_.end()) {
            known = std::move(found->second);
            fresh = false;
        }
        bool changed = fresh || known.disco != peer.disco || known.from_control != peer.endpoints;
        known.disco = peer.disco;
        known.from_control = peer.endpoints;
        for (auto it = known.candidates.begin(); it != known.candidates.end();) {
            it->second.from_control = false;
            ++it;
        }
        for (const Endpoint& endpoint : peer.endpoints)
            if (endpoint.valid() && endpoint.port != 0) candidate(now, known, endpoint).from_control = true;
        std::erase_if(known.candidates, [&](const auto& entry) {
            return !entry.second.from_control && !entry.second.last_ping_received && !entry.second.last_pong &&
                   known.in_force != entry.first;
        });
        auto placed = kept.emplace(peer.node, std::move(known)).first;
        if (!peer.disco.is_zero()) by_disco_[peer.disco] = peer.node;
        if (!changed) continue;
        Known& stored = placed->second;
        stored.introduced_until = now + kIntroduction;
        if (!stored.in_force || stored.trusted_until < now) {
            bool was_validated = stored.in_force && stored.candidates.contains(*stored.in_force) &&
                                 stored.candidates[*stored.in_force].last_pong.has_value();
            auto plausible = most_plausible(stored);
            if (plausible && (!stored.in_force || (!was_validated && !stored.candidates.contains(*stored.in_force))))
                use(peer.node, stored, *plausible);
        }
        round(now, peer.node, stored);
    }
    peers_ = std::move(kept);
    std::erase_if(sent_, [&](const auto& entry) { return !peers_.contains(entry.second.node); });
}

void PathBook::set_disco_key(TimePoint now, const NodeKey& node, const DiscoKey& disco) {
    auto found = peers_.find(node);
    if (found == peers_.end() || found->second.disco == disco || disco.is_zero()) return;
    by_disco_.erase(found->second.disco);
    found->second.disco = disco;
    by_disco_[disco] = node;
    for (auto& [endpoint, entry] : found->second.candidates) entry.last_ping_sent.reset();
    round(now, node, found->second);
}

void PathBook::on_network_change(TimePoint now) {
    for (auto& [node, known] : peers_) {
        known.trusted_until = now;
        known.introduced_until = now + kIntroduction;
        for (auto& [endpoint, entry] : known.candidates) entry.last_ping_sent.reset();
        round(now, node, known);
    }
}

bool PathBook::on_ping(TimePoint now, const DiscoKey& from, const std::optional<NodeKey>& claimed, const DiscoTxId& id,
                       const Endpoint& source) {
    auto owner = by_disco_.find(from);
    if (owner == by_disco_.end()) return false;
    const NodeKey node = owner->second;
    if (claimed && !claimed->is_zero() && *claimed != node && peers_.contains(*claimed) &&
        peers_[*claimed].disco != from)
        return false; // a peer that names another's key
    Known& known = peers_[node];
    Candidate& entry = candidate(now, known, source);
    entry.last_ping_received = now;
    actions_.push_back(SendPong{from, id, source});
    bool trusted = known.in_force && now < known.trusted_until;
    if (!trusted) {
        if (!known.in_force) use(node, known, source); // the peer speaks from there: better than nothing
        if (!entry.last_ping_sent || now - *entry.last_ping_sent >= kPingEvery) ping(now, node, known, source, 0);
        look(now, node, known);
    } else if (known.in_force != source && !entry.last_ping_sent) {
        ping(now, node, known, source, 0);
    }
    return true;
}

void PathBook::on_pong(TimePoint now, const DiscoKey& from, const DiscoTxId& id, const Endpoint& source) {
    auto found = sent_.find(id);
    if (found == sent_.end()) return;
    Sent sent = found->second;
    auto peer = peers_.find(sent.node);
    if (peer == peers_.end() || peer->second.disco != from || now - sent.at > kPingTimeout) return;
    sent_.erase(found);
    (void)source; // the address that was pinged is what works, whatever address the answer came from
    Known& known = peer->second;
    Duration round_trip = now - sent.at;
    Candidate& entry = candidate(now, known, sent.to);
    entry.last_pong = now;
    entry.round_trip = round_trip;
    bool trusted = known.in_force && now < known.trusted_until;
    Duration in_force_round_trip{};
    if (known.in_force && known.candidates.contains(*known.in_force))
        in_force_round_trip = known.candidates[*known.in_force].round_trip;
    if (!trusted || known.in_force == sent.to ||
        is_better_path(sent.to, round_trip, *known.in_force, in_force_round_trip)) {
        if (known.in_force != sent.to) use(sent.node, known, sent.to);
        known.trusted_until = now + kTrustFor;
        if (!trusted) actions_.push_back(PathWorks{sent.node});
    }
    if (sent.question != 0) actions_.push_back(PingAnswered{sent.question, sent.node, sent.to, round_trip});
    look(now, sent.node, known);
}

void PathBook::on_traffic(TimePoint now, const NodeKey& node) {
    auto found = peers_.find(node);
    if (found == peers_.end()) return;
    found->second.last_traffic = now;
    look(now, node, found->second);
}

void PathBook::on_kernel_endpoint(TimePoint now, const NodeKey& node, const Endpoint& endpoint) {
    auto found = peers_.find(node);
    if (found == peers_.end() || !endpoint.valid()) return;
    Known& known = found->second;
    if (known.in_force == endpoint) return;
    Candidate& entry = candidate(now, known, endpoint);
    bool recent = entry.last_pong && now - *entry.last_pong < kTrustFor;
    bool trusted = known.in_force && now < known.trusted_until;
    if (recent || !trusted) { // it works, or nothing better is known: follow
        std::erase_if(actions_, [&](const PathAction& action) {
            const auto* use = std::get_if<UseEndpoint>(&action);
            return use != nullptr && use->peer == node;
        });
        known.in_force = endpoint;
        known.trusted_until = recent ? *entry.last_pong + kTrustFor : now;
    } else {
        Endpoint wanted = *known.in_force;
        use(node, known, wanted);
    }
    if (!entry.last_ping_sent || now - *entry.last_ping_sent >= kPingEvery) ping(now, node, known, endpoint, 0);
    look(now, node, known);
}

std::uint64_t PathBook::ask(TimePoint now, const NodeKey& node) {
    auto found = peers_.find(node);
    if (found == peers_.end() || found->second.disco.is_zero() || found->second.candidates.empty()) return 0;
    std::uint64_t question = ++last_question_;
    Known& known = found->second;
    known.last_traffic = now;
    if (known.in_force) ping(now, node, known, *known.in_force, question);
    if (!known.in_force || now >= known.trusted_until) {
        std::vector<Endpoint> others;
        for (const auto& [endpoint, entry] : known.candidates)
            if (known.in_force != endpoint) others.push_back(endpoint);
        for (const Endpoint& endpoint : others) ping(now, node, known, endpoint, question);
    }
    look(now, node, known);
    return question;
}

void PathBook::on_timer(TimePoint now) {
    std::erase_if(sent_, [&](const auto& entry) { return now - entry.second.at > kPingTimeout; });
    for (auto& [node, known] : peers_)
        if (known.next_look <= now) look(now, node, known);
}

std::optional<TimePoint> PathBook::next_timer() const {
    TimePoint next = TimePoint::max();
    for (const auto& [node, known] : peers_) next = std::min(next, known.next_look);
    if (next == TimePoint::max()) return std::nullopt;
    return next;
}

PathBook::State PathBook::state(TimePoint now, const NodeKey& node) const {
    State out;
    auto found = peers_.find(node);
    if (found == peers_.end()) return out;
    const Known& known = found->second;
    out.endpoint = known.in_force;
    out.active = known.last_traffic && now - *known.last_traffic < kActiveFor;
    if (known.in_force) {
        auto entry = known.candidates.find(*known.in_force);
        if (entry != known.candidates.end()) {
            out.round_trip = entry->second.round_trip;
            out.validated = entry->second.last_pong.has_value();
        }
    }
    return out;
}

std::optional<Endpoint> PathBook::endpoint(const NodeKey& node) const {
    auto found = peers_.find(node);
    if (found == peers_.end()) return std::nullopt;
    return found->second.in_force;
}

std::optional<NodeKey> PathBook::node_of(const DiscoKey& disco) const {
    auto found = by_disco_.find(disco);
    if (found == by_disco_.end()) return std::nullopt;
    return found->second;
}

void PathBook::ping(TimePoint now, const NodeKey& node, Known& known, const Endpoint& to, std::uint64_t question) {
    if (known.disco.is_zero()) return;
    candidate(now, known, to).last_ping_sent = now;
    DiscoTxId id = new_id_();
    sent_[id] = Sent{node, to, now, question};
    actions_.push_back(SendPing{node, known.disco, id, to});
}

void PathBook::round(TimePoint now, const NodeKey& node, Known& known) {
    known.last_round = now;
    std::vector<Endpoint> due;
    for (const auto& [endpoint, entry] : known.candidates)
        if (!entry.last_ping_sent || now - *entry.last_ping_sent >= kPingEvery) due.push_back(endpoint);
    for (const Endpoint& endpoint : due) ping(now, node, known, endpoint, 0);
    look(now, node, known);
}

/// Pings what is due and says when to look again.
void PathBook::look(TimePoint now, const NodeKey& node, Known& known) {
    known.next_look = TimePoint::max();
    if (known.disco.is_zero() || known.candidates.empty()) return;
    bool trusted = known.in_force && now < known.trusted_until;
    bool active = is_active(now, known);
    bool introduced = now < known.introduced_until;
    if (!active && (trusted || !introduced)) return; // silence costs nothing
    if (trusted) {
        Candidate& entry = candidate(now, known, *known.in_force);
        TimePoint beat = entry.last_ping_sent ? *entry.last_ping_sent + kHeartbeat : now;
        if (beat <= now) {
            ping(now, node, known, *known.in_force, 0);
            beat = now + kHeartbeat;
        }
        known.next_look = beat;
        bool slow = entry.round_trip > kGoodEnough;
        if (slow && known.last_round && now - *known.last_round >= kUpgradeEvery) {
            TimePoint after = known.next_look;
            known.last_round = now;
            std::vector<Endpoint> others;
            for (const auto& [endpoint, other] : known.candidates)
                if (endpoint != *known.in_force && (!other.last_ping_sent || now - *other.last_ping_sent >= kPingEvery))
                    others.push_back(endpoint);
            for (const Endpoint& endpoint : others) ping(now, node, known, endpoint, 0);
            known.next_look = after;
        }
        return;
    }
    TimePoint next = now + kPingEvery;
    std::vector<Endpoint> due;
    for (const auto& [endpoint, entry] : known.candidates) {
        if (!entry.last_ping_sent || now - *entry.last_ping_sent >= kPingEvery)
            due.push_back(endpoint);
        else
            next = std::min(next, *entry.last_ping_sent + kPingEvery);
    }
    for (const Endpoint& endpoint : due) ping(now, node, known, endpoint, 0);
    if (!due.empty()) known.last_round = now;
    known.next_look = next;
}

void PathBook::use(const NodeKey& node, Known& known, const Endpoint& endpoint) {
    known.in_force = endpoint;
    actions_.push_back(UseEndpoint{node, endpoint});
}

PathBook::Candidate& PathBook::candidate(TimePoint now, Known& known, const Endpoint& endpoint) {
    auto found = known.candidates.find(endpoint);
    if (found != known.candidates.end()) return found->second;
    if (known.candidates.size() >= kMaxCandidates) {
        auto deletable = [&](const auto& entry) {
            const Candidate& c = entry.second;
            return known.in_force != entry.first && !c.from_control &&
                   (!c.last_ping_received || now - *c.last_ping_received > kActiveFor);
        };
        std::erase_if(known.candidates, deletable);
        if (known.candidates.size() >= kMaxCandidates) { // still full: the one that was quiet longest makes room
            auto worst = known.candidates.end();
            auto heard = [](const Candidate& c) { return c.last_pong ? *c.last_pong : TimePoint::min(); };
            for (auto it = known.candidates.begin(); it != known.candidates.end(); ++it) {
                if (known.in_force == it->first) continue;
                if (worst == known.candidates.end() || heard(it->second) < heard(worst->second)) worst = it;
            }
            if (worst != known.candidates.end()) known.candidates.erase(worst);
        }
    }
    return known.candidates[endpoint];
}

std::optional<Endpoint> PathBook::most_plausible(const Known& known) const {
    auto score = [&](const Endpoint& endpoint) {
        bool attached = std::ranges::any_of(local_networks_, [&](const IpPrefix& network) {
            return !network.is_single() && network.contains(endpoint.address);
        });
        if (attached) return 4;
        if (endpoint.address.is_link_local() || endpoint.address.is_loopback()) return 0;
        if (is_private(endpoint.address)) return 1;
        return endpoint.address.is_v4() ? 3 : 2;
    };
    std::optional<Endpoint> best;
    for (const Endpoint& endpoint : known.from_control)
        if (endpoint.valid() && endpoint.port != 0 && (!best || score(endpoint) > score(*best))) best = endpoint;
    return best;
}

bool PathBook::is_active(TimePoint now, const Known& known) const {
    return known.last_traffic && now - *known.last_traffic < kActiveFor;
}

} // namespace tailrace
