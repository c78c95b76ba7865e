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

/// An introduction to every peer is a burst that only a small tailnet should see.
constexpr std::size_t kSmallTailnet = 64;
constexpr auto kBeatSlack = std::chrono::milliseconds{200}; // for a heartbeat's answer
constexpr auto kHeardLately = std::chrono::seconds{2};
constexpr auto kContestedFor = std::chrono::seconds{15};
constexpr auto kCallPause = std::chrono::milliseconds{4500}; // reference clients call every 5 s at most
constexpr auto kRefusePause = std::chrono::seconds{1};
constexpr auto kAnswerPause = std::chrono::milliseconds{10}; // between pings that answer pings
const IpAddress kRelayMagic = IpAddress::v4(0x7f030328);     // 127.3.3.40

} // namespace

Endpoint relay_endpoint(int region) {
    return {kRelayMagic, static_cast<std::uint16_t>(region)};
}

int relay_region(const Endpoint& endpoint) {
    return endpoint.address == kRelayMagic ? endpoint.port : 0;
}

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
        known.home_region = peer.home_region;
        known.relayed = peer.relayed;
        for (auto& [endpoint, entry] : known.candidates) entry.from_control = false;
        for (const Endpoint& endpoint : peer.endpoints)
            if (endpoint.valid() && endpoint.port != 0) candidate(now, known, endpoint).from_control = true;
        std::erase_if(known.candidates, [&](const auto& entry) {
            return !entry.second.from_control && !entry.second.from_call && !entry.second.last_ping_received &&
                   !entry.second.last_pong && known.in_force != entry.first && known.best != entry.first;
        });
        auto placed = kept.emplace(peer.node, std::move(known)).first;
        if (!peer.disco.is_zero()) by_disco_[peer.disco] = peer.node;
        Known& stored = placed->second;
        if (auto left = adopted_.find(peer.node); left != adopted_.end()) {
            stored.in_force = stored.best = left->second;
            stored.trusted_until = now + kTrustFor;
            if (!stored.candidates.contains(left->second)) candidate(now, stored, left->second).from_wireguard = true;
            adopted_.erase(left);
            ping(now, peer.node, stored, *stored.best, 0);
        }
        settle(now, peer.node, stored);
        if (!changed) continue;
        if (peers.size() <= kSmallTailnet) stored.introduced_until = now + kIntroduction;
        if (is_active(now, stored) || (!can_relay(stored) && peers.size() <= kSmallTailnet))
            round(now, peer.node, stored, true);
    }
    peers_ = std::move(kept);
    std::erase_if(looks_, [&](const auto& entry) { return !peers_.contains(entry.second); });
    std::erase_if(sent_, [&](const auto& entry) { return !peers_.contains(entry.second.node); });
}

void PathBook::set_disco_key(TimePoint now, const NodeKey& node, const DiscoKey& disco) {
    auto found = peers_.find(node);
    if (found == peers_.end() || found->second.disco == disco || disco.is_zero()) return;
    by_disco_.erase(found->second.disco);
    found->second.disco = disco;
    by_disco_[disco] = node;
    for (auto& [endpoint, entry] : found->second.candidates) entry.last_ping_sent.reset();
    round(now, node, found->second, true);
}

void PathBook::on_network_change(TimePoint now) {
    for (auto& [node, known] : peers_) {
        known.trusted_until = now;
        if (peers_.size() <= kSmallTailnet) known.introduced_until = now + kIntroduction;
        for (auto& [endpoint, entry] : known.candidates) entry.last_ping_sent.reset();
        settle(now, node, known);
        if (is_active(now, known) || (!can_relay(known) && peers_.size() <= kSmallTailnet))
            round(now, node, known, true);
    }
}

void PathBook::on_own_endpoints(TimePoint now) {
    for (auto& [node, known] : peers_) {
        if (!is_active(now, known) || trusts(now, known) || !can_relay(known)) continue;
        known.last_call.reset();
        call(now, node, known);
    }
}

void PathBook::set_relaying(TimePoint now, bool possible) {
    if (std::exchange(relaying_, possible) == possible) return;
    for (auto& [node, known] : peers_) {
        settle(now, node, known);
        look(now, node, known);
    }
}

void PathBook::set_only_relay(TimePoint now, bool only) {
    if (std::exchange(only_relay_, only) == only) return;
    for (auto& [node, known] : peers_) give_up(now, node, known);
}

void PathBook::leave(TimePoint now, const Endpoint& endpoint, Duration how_long) {
    for (auto& [node, known] : peers_) {
        auto found = known.candidates.find(endpoint);
        if (found == known.candidates.end()) continue;
        found->second.refused_until = now + how_long;
        found->second.last_pong.reset();
        if (known.best == endpoint || known.in_force == endpoint) give_up(now, node, known);
    }
}

void PathBook::forgive() {
    for (auto& [node, known] : peers_)
        for (auto& [endpoint, entry] : known.candidates) entry.refused_until = TimePoint::min();
}

void PathBook::give_up(TimePoint now, const NodeKey& node, Known& known) {
    known.best.reset();
    known.trusted_until = now;
    settle(now, node, known);
    look(now, node, known);
}

/// No pong, but a sign of life over the relay: who hears nothing at all believes that our agent is away, and goes on
/// as long as WireGuard answers (on_data).
void PathBook::refuse(TimePoint now, const NodeKey& node, Known& known, Candidate& entry) {
    if (known.home_region == 0 || (entry.last_answer && now - *entry.last_answer < kRefusePause)) return;
    entry.last_answer = now;
    actions_.push_back(SendPing{node, known.disco, new_id_(), relay_endpoint(known.home_region)});
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
    known.last_disco = now;
    if (relay_region(source) != 0) { // somebody's "ping" command, or refuse(); tells nothing about paths
        actions_.push_back(SendPong{from, id, source});
        return true;
    }
    Candidate& entry = candidate(now, known, source);
    entry.last_ping_received = now;
    if (refuses(now, entry)) {
        refuse(now, node, known, entry);
        return true;
    }
    if (entry.last_ping_id == id) return true; // delivered twice: answered once
    entry.last_ping_id = id;
    actions_.push_back(SendPong{from, id, source});
    if (!trusts(now, known)) {
        if (!known.in_force) use(node, known, source); // the peer speaks from there: better than nothing
        // Our last ping may have come before the peer's NAT would let it in; its ping says that now it does.
        bool lost = entry.last_ping_sent && (!entry.last_pong || *entry.last_pong < *entry.last_ping_sent) &&
                    (!entry.last_answer || now - *entry.last_answer >= kAnswerPause);
        if (lost || !entry.last_ping_sent || now - *entry.last_ping_sent >= kPingEvery) {
            entry.last_answer = now;
            ping(now, node, known, source, 0);
        }
        look(now, node, known);
    } else if (known.best != source && !entry.last_ping_sent) {
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
    if (sent.question != 0) actions_.push_back(PingAnswered{sent.question, sent.node, sent.to, round_trip});
    if (relay_region(sent.to) != 0) return;
    known.last_disco = now;
    Candidate& entry = candidate(now, known, sent.to);
    if (refuses(now, entry)) return;
    entry.last_pong = now;
    entry.round_trip = round_trip;
    bool trusted = trusts(now, known);
    Duration best_round_trip{};
    if (known.best && known.candidates.contains(*known.best))
        best_round_trip = known.candidates[*known.best].round_trip;
    if (!trusted || known.best == sent.to || is_better_path(sent.to, round_trip, *known.best, best_round_trip)) {
        known.best = sent.to;
        known.trusted_until = now + kTrustFor;
        settle(now, sent.node, known);
        if (!trusted) actions_.push_back(PathWorks{sent.node});
    }
    look(now, sent.node, known);
}

void PathBook::on_call_me_maybe(TimePoint now, const DiscoKey& from, const NodeKey& node,
                                const std::vector<Endpoint>& endpoints) {
    auto found = peers_.find(node);
    if (found == peers_.end() || found->second.disco != from || from.is_zero()) return;
    Known& known = found->second;
    std::vector<Endpoint> before;
    for (auto& [endpoint, entry] : known.candidates)
        if (std::exchange(entry.from_call, false)) before.push_back(endpoint);
    for (const Endpoint& endpoint : endpoints) {
        if (!endpoint.valid() || endpoint.port == 0) continue;
        if (endpoint.address.is_v6() && endpoint.address.is_link_local()) continue;
        candidate(now, known, endpoint).from_call = true;
    }
    for (const Endpoint& endpoint : before)
        if (!known.candidates[endpoint].from_call) forget_candidate(known, endpoint);
    // Everything is tried again at once, for the peer's NAT is open now; but not again and again by many calls.
    bool due = !known.last_called || now - *known.last_called >= kCallPause;
    if (due) {
        known.last_called = now;
        for (auto& [endpoint, entry] : known.candidates) entry.last_ping_sent.reset();
    }
    settle(now, node, known);
    round(now, node, known, false); // no call back: that would go on for ever
}

void PathBook::on_relayed_arrival(TimePoint now, const NodeKey& node) {
    if (auto found = peers_.find(node); found != peers_.end()) found->second.last_relayed_arrival = now;
}

void PathBook::on_data(TimePoint since, TimePoint now, const NodeKey& node, const Endpoint& endpoint) {
    auto found = peers_.find(node);
    if (found == peers_.end() || found->second.best != endpoint) return;
    const Known& known = found->second;
    bool over_relay = known.last_relayed_arrival && now - *known.last_relayed_arrival < kHeardLately;
    bool in_disco = known.last_disco && since - *known.last_disco < kHeartbeat + kBeatSlack;
    if (over_relay || in_disco) return;
    found->second.trusted_until = std::max(found->second.trusted_until, now + kTrustFor);
    settle(now, node, found->second);
    look(now, node, found->second);
}

std::optional<Endpoint> PathBook::direct_guess(const NodeKey& node) const {
    auto found = peers_.find(node);
    if (found == peers_.end() || only_relay_) return std::nullopt;
    std::optional<std::pair<TimePoint, Endpoint>> last;
    for (const auto& [endpoint, entry] : found->second.candidates)
        if (entry.last_pong && (!last || *entry.last_pong > last->first)) last = {*entry.last_pong, endpoint};
    return last ? last->second : most_plausible(found->second);
}

void PathBook::on_relayed_packet(TimePoint now, const NodeKey& node) {
    auto found = peers_.find(node);
    if (found == peers_.end()) return;
    found->second.last_traffic = now;
    settle(now, node, found->second);
    look(now, node, found->second);
}

bool PathBook::is_contested(TimePoint now) const {
    return std::ranges::any_of(peers_, [&](const auto& entry) {
        return entry.second.left_direct && now - *entry.second.left_direct < kContestedFor;
    });
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
    auto follow = [&] {
        std::erase_if(actions_, [&](const PathAction& action) {
            const auto* use = std::get_if<UseEndpoint>(&action);
            return use != nullptr && use->peer == node;
        });
        known.in_force = endpoint;
    };
    if (known.relayed == endpoint) { // an authentic packet came over the relay
        if (can_relay(known) && !trusts(now, known))
            follow();
        else if (known.in_force)
            use(node, known, Endpoint{*known.in_force});
        return;
    }
    if (known.relayed && known.relayed->address.is_loopback() && endpoint.address.is_loopback() &&
        !known.candidates.contains(endpoint)) { // an earlier agent's relayed endpoint
        known.in_force.reset();
        settle(now, node, known);
        return;
    }
    bool unheard_of = !known.candidates.contains(endpoint);
    Candidate& entry = candidate(now, known, endpoint);
    entry.from_wireguard = entry.from_wireguard || unheard_of;
    if (refuses(now, entry)) { // a last packet of the peer came from there, and WireGuard followed it
        auto wanted = std::exchange(known.in_force, endpoint);
        if (wanted) use(node, known, *wanted);
        settle(now, node, known);
        return;
    }
    bool recent = entry.last_pong && now - *entry.last_pong < kTrustFor;
    bool trusted = trusts(now, known);
    bool only_there = can_relay(known) && !is_heard_otherwise(now, known);
    if (recent || (!trusted && (only_there || !can_relay(known)))) {
        // It works, or the peer is heard nowhere else, or nothing better is known.
        follow();
        known.best = endpoint;
        known.trusted_until = recent ? *entry.last_pong + kTrustFor : only_there ? now + kTrustFor : now;
    } else {
        auto wanted = known.in_force;
        known.in_force = endpoint;
        if (wanted) use(node, known, *wanted);
        settle(now, node, known);
    }
    if (!entry.last_ping_sent || now - *entry.last_ping_sent >= kPingEvery) ping(now, node, known, endpoint, 0);
    look(now, node, known);
}

std::uint64_t PathBook::ask(TimePoint now, const NodeKey& node) {
    auto found = peers_.find(node);
    if (found == peers_.end() || found->second.disco.is_zero()) return 0;
    Known& known = found->second;
    if (known.candidates.empty() && !can_relay(known)) return 0;
    std::uint64_t question = ++last_question_;
    known.last_traffic = now;
    std::vector<Endpoint> targets;
    if (trusts(now, known)) {
        targets.push_back(*known.best);
    } else {
        for (const auto& [endpoint, entry] : known.candidates)
            if (!refuses(now, entry)) targets.push_back(endpoint);
        if (can_relay(known)) call(now, node, known);
    }
    for (const Endpoint& endpoint : targets) ping(now, node, known, endpoint, question);
    if (can_relay(known) && known.home_region != 0) ping(now, node, known, relay_endpoint(known.home_region), question);
    look(now, node, known);
    return question;
}

void PathBook::forget_old_pings(TimePoint now) {
    while (!sent_in_order_.empty() && now - sent_in_order_.front().first > kPingTimeout) {
        auto it = sent_.find(sent_in_order_.front().second);
        sent_in_order_.pop_front();
        if (it == sent_.end()) continue;
        auto peer = peers_.find(it->second.node);
        if (peer != peers_.end() && can_relay(peer->second) && peer->second.best == it->second.to &&
            !trusts(now, peer->second))
            peer->second.best.reset(); // the relay carries on alone
        sent_.erase(it);
    }
}

void PathBook::on_timer(TimePoint now) {
    forget_old_pings(now);
    std::vector<NodeKey> due;
    for (auto it = looks_.begin(); it != looks_.end() && it->first <= now; ++it) due.push_back(it->second);
    for (const NodeKey& node : due)
        if (auto peer = peers_.find(node); peer != peers_.end()) look(now, node, peer->second);
}

std::optional<TimePoint> PathBook::next_timer() const {
    if (looks_.empty()) return std::nullopt;
    return looks_.begin()->first;
}

PathBook::State PathBook::state(TimePoint now, const NodeKey& node) const {
    State out;
    auto found = peers_.find(node);
    if (found == peers_.end()) return out;
    const Known& known = found->second;
    out.endpoint = known.in_force;
    out.active = is_active(now, known);
    out.home_region = known.home_region;
    out.relayed = known.relayed && known.in_force == known.relayed;
    out.trusted = trusts(now, known) && known.in_force == known.best;
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

std::optional<DiscoKey> PathBook::disco_of(const NodeKey& node) const {
    auto found = peers_.find(node);
    if (found == peers_.end() || found->second.disco.is_zero()) return std::nullopt;
    return found->second.disco;
}

void PathBook::park(TimePoint now) {
    relaying_ = false;
    for (auto& [node, known] : peers_) {
        std::optional<std::pair<TimePoint, Endpoint>> last;
        for (const auto& [endpoint, entry] : known.candidates)
            if (entry.last_pong && (!last || *entry.last_pong > last->first)) last = {*entry.last_pong, endpoint};
        if (last && !trusts(now, known)) known.best = last->second;
        settle(now, node, known);
    }
}

std::vector<PathBook::CandidateState> PathBook::candidates(TimePoint now, const NodeKey& node) const {
    std::vector<CandidateState> out;
    auto found = peers_.find(node);
    if (found == peers_.end()) return out;
    auto ago = [&](const std::optional<TimePoint>& when) -> std::optional<Duration> {
        if (!when) return std::nullopt;
        return now - *when;
    };
    for (const auto& [endpoint, entry] : found->second.candidates)
        out.push_back({endpoint, entry.from_control, entry.from_call, entry.from_wireguard, refuses(now, entry),
                       ago(entry.last_ping_sent), ago(entry.last_ping_received), ago(entry.last_pong),
                       entry.round_trip});
    return out;
}

void PathBook::ping(TimePoint now, const NodeKey& node, Known& known, const Endpoint& to, std::uint64_t question) {
    if (known.disco.is_zero()) return;
    if (relay_region(to) == 0 && refuses(now, candidate(now, known, to))) return;
    if (question == 0 && known.best != to && !take_from_budget(now)) return;
    if (relay_region(to) == 0) candidate(now, known, to).last_ping_sent = now;
    DiscoTxId id = new_id_();
    sent_[id] = Sent{node, to, now, question};
    sent_in_order_.emplace_back(now, id);
    actions_.push_back(SendPing{node, known.disco, id, to});
}

bool PathBook::take_from_budget(TimePoint now) {
    double seconds = std::chrono::duration<double>(now - budget_filled_).count();
    ping_budget_ = std::min(kPingBurst, ping_budget_ + seconds * kPingsPerSecond);
    budget_filled_ = now;
    if (ping_budget_ < 1) return false;
    ping_budget_ -= 1;
    return true;
}

/// After the pings, so that our own firewall is open when the peer's come.
void PathBook::call(TimePoint now, const NodeKey& node, Known& known) {
    if (known.disco.is_zero() || (known.last_call && now - *known.last_call < kPingEvery)) return;
    if (known.home_region == 0) return;
    known.last_call = now;
    actions_.push_back(SendCallMeMaybe{node, known.disco});
}

bool PathBook::is_due(TimePoint now, const Candidate& entry) const {
    return !refuses(now, entry) && (!entry.last_ping_sent || now - *entry.last_ping_sent >= kPingEvery);
}

/// Pings every candidate that is due.
void PathBook::round(TimePoint now, const NodeKey& node, Known& known, bool with_call) {
    known.last_round = now;
    std::vector<Endpoint> due;
    for (const auto& [endpoint, entry] : known.candidates)
        if (is_due(now, entry)) due.push_back(endpoint);
    for (const Endpoint& endpoint : due) ping(now, node, known, endpoint, 0);
    if (with_call && can_relay(known) && (!due.empty() || known.candidates.empty())) call(now, node, known);
    look(now, node, known);
}

void PathBook::look(TimePoint now, const NodeKey& node, Known& known) {
    TimePoint next = do_what_is_due(now, node, known);
    if (next == known.next_look) return;
    if (known.next_look != TimePoint::max()) looks_.erase({known.next_look, node});
    if (next != TimePoint::max()) looks_.emplace(next, node);
    known.next_look = next;
}

TimePoint PathBook::do_what_is_due(TimePoint now, const NodeKey& node, Known& known) {
    constexpr TimePoint kNever = TimePoint::max();
    bool trusted = trusts(now, known);
    if (!trusted) settle(now, node, known);
    bool active = is_active(now, known);
    if (!active && can_relay(known)) { // silence costs nothing; the next packet wakes us at the relayed endpoint
        return trusted ? known.trusted_until : kNever;
    }
    if (known.disco.is_zero() || (known.candidates.empty() && !can_relay(known))) return kNever;
    if (!active && (trusted || now >= known.introduced_until)) return kNever;
    if (trusted) {
        Candidate& entry = candidate(now, known, *known.best);
        TimePoint beat = entry.last_ping_sent ? *entry.last_ping_sent + kHeartbeat : now;
        if (beat <= now) {
            ping(now, node, known, *known.best, 0);
            beat = now + kHeartbeat;
        }
        TimePoint next = std::min(beat, known.trusted_until);
        bool slow = entry.round_trip > kGoodEnough;
        if (!slow || !known.last_round || now - *known.last_round < kUpgradeEvery) return next;
        known.last_round = now;
        std::vector<Endpoint> others;
        for (const auto& [endpoint, other] : known.candidates)
            if (endpoint != *known.best && is_due(now, other)) others.push_back(endpoint);
        for (const Endpoint& endpoint : others) ping(now, node, known, endpoint, 0);
        if (can_relay(known)) call(now, node, known);
        return next;
    }
    TimePoint next = now + kPingEvery;
    std::vector<Endpoint> due;
    for (const auto& [endpoint, entry] : known.candidates) {
        if (is_due(now, entry))
            due.push_back(endpoint);
        else if (!refuses(now, entry))
            next = std::min(next, *entry.last_ping_sent + kPingEvery);
    }
    for (const Endpoint& endpoint : due) ping(now, node, known, endpoint, 0);
    if (!due.empty()) known.last_round = now;
    if (can_relay(known) && (!due.empty() || known.candidates.empty())) call(now, node, known);
    return next;
}

/// Where the peer's packets should go now.
std::optional<Endpoint> PathBook::target(TimePoint now, const Known& known) const {
    if (only_relay_) return known.relayed;
    if (trusts(now, known)) return known.best;
    if (can_relay(known)) return known.relayed;
    if (known.best) return known.best;
    if (known.in_force && known.candidates.contains(*known.in_force)) return known.in_force;
    auto plausible = most_plausible(known);
    return plausible || known.in_force == known.relayed ? plausible : known.in_force;
}

void PathBook::settle(TimePoint now, const NodeKey& node, Known& known) {
    auto wanted = target(now, known);
    if (!wanted || known.in_force == wanted) return;
    if (wanted == known.relayed && known.in_force && is_active(now, known)) known.left_direct = now;
    use(node, known, *wanted);
}

void PathBook::use(const NodeKey& node, Known& known, const Endpoint& endpoint) {
    known.in_force = endpoint;
    actions_.push_back(UseEndpoint{node, endpoint});
}

void PathBook::forget_candidate(Known& known, const Endpoint& endpoint) {
    known.candidates.erase(endpoint);
    if (known.best == endpoint) known.best.reset();
}

PathBook::Candidate& PathBook::candidate(TimePoint now, Known& known, const Endpoint& endpoint) {
    auto found = known.candidates.find(endpoint);
    if (found != known.candidates.end()) return found->second;
    if (known.candidates.size() >= kMaxCandidates) {
        auto deletable = [&](const auto& entry) {
            const Candidate& c = entry.second;
            return known.in_force != entry.first && known.best != entry.first && !c.from_control && !c.from_call &&
                   (!c.last_ping_received || now - *c.last_ping_received > kActiveFor);
        };
        std::erase_if(known.candidates, deletable);
        if (known.candidates.size() >= kMaxCandidates) { // still full: the one that was quiet longest makes room
            auto worst = known.candidates.end();
            auto heard = [](const Candidate& c) { return c.last_pong ? *c.last_pong : TimePoint::min(); };
            for (auto it = known.candidates.begin(); it != known.candidates.end(); ++it) {
                if (known.in_force == it->first || known.best == it->first) continue;
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

bool PathBook::is_heard_otherwise(TimePoint now, const Known& known) {
    return (known.last_relayed_arrival && now - *known.last_relayed_arrival < kHeardLately) ||
           (known.last_disco && now - *known.last_disco < kHeartbeat + kHeardLately);
}

bool PathBook::is_active(TimePoint now, const Known& known) {
    return known.last_traffic && now - *known.last_traffic < kActiveFor;
}

} // namespace tailrace
