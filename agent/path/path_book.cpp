#include "agent/path/path_book.hpp"

#include <algorithm>
#include <tuple>

namespace tailrace {
namespace {

/// An introduction to every peer is a burst that only a small tailnet should see.
constexpr std::size_t kSmallTailnet = 64;
constexpr auto kBeatSlack = std::chrono::milliseconds{200}; // for a heartbeat, and its answer
constexpr auto kHeardLately = std::chrono::seconds{2};
constexpr auto kContestedFor = std::chrono::seconds{15};
constexpr auto kCallPause = std::chrono::milliseconds{4500}; // reference clients call every 5 s at most
constexpr auto kRefusePause = std::chrono::seconds{1};
constexpr auto kLeastAnswerTime = std::chrono::milliseconds{300}; // for a doubted path
constexpr auto kAnswerPause = std::chrono::milliseconds{10};      // between pings that answer pings
const IpAddress kRelayMagic = IpAddress::v4(0x7f030328);          // 127.3.3.40

} // namespace

Endpoint relay_endpoint(int region) {
    return {kRelayMagic, static_cast<std::uint16_t>(region)};
}

int relay_region(const Endpoint& endpoint) {
    return endpoint.address == kRelayMagic ? endpoint.port : 0;
}

PathBook::PathBook(std::function<DiscoTxId()> new_id) : new_id_(std::move(new_id)) {}

void PathBook::set_peers(TimePoint now, const std::vector<Peer>& peers) {
    ++generation_;
    bool other_keys = false;
    for (const Peer& peer : peers) {
        auto [found, fresh] = peers_.try_emplace(peer.node);
        Known& known = found->second;
        const bool other_disco = known.disco != peer.disco;
        const bool changed = fresh || other_disco || known.from_control != peer.endpoints;
        if (!fresh && other_disco) on_new_agent(now, known);
        other_keys |= other_disco;
        known.generation = generation_;
        known.disco = peer.disco;
        known.from_control = peer.endpoints;
        known.home_region = peer.home_region;
        known.relayed = peer.relayed;
        known.follows = peer.follows;
        known.wireguard_only = peer.wireguard_only;
        for (auto& [endpoint, entry] : known.candidates) entry.from_control = false;
        for (const Endpoint& endpoint : peer.endpoints)
            if (endpoint.valid() && endpoint.port != 0) candidate(now, known, endpoint).from_control = true;
        std::erase_if(known.candidates, [&](const auto& entry) {
            return !entry.second.from_control && !entry.second.from_call && !entry.second.last_ping_received &&
                   !entry.second.last_pong && now >= entry.second.refused_until && known.in_force != entry.first &&
                   known.best != entry.first;
        });
        if (known.wireguard_only) forget_withdrawn(now, known);
        settle(now, peer.node, known);
        if (!changed) continue;
        if (peers.size() <= kSmallTailnet) known.introduced_until = now + kIntroduction;
        if (is_active(now, known) || (!can_relay(known) && peers.size() <= kSmallTailnet))
            round(now, peer.node, known, true);
    }
    if (std::erase_if(peers_, [&](const auto& entry) { return entry.second.generation != generation_; }) > 0) {
        std::erase_if(looks_, [&](const auto& entry) { return !peers_.contains(entry.second); });
        std::erase_if(sent_, [&](const auto& entry) { return !peers_.contains(entry.second.node); });
        other_keys = true;
    }
    if (!other_keys) return;
    by_disco_.clear();
    for (const Peer& peer : peers)
        if (!peer.disco.is_zero()) by_disco_[peer.disco] = peer.node;
}

void PathBook::set_disco_key(TimePoint now, const NodeKey& node, const DiscoKey& disco) {
    auto found = peers_.find(node);
    if (found == peers_.end() || found->second.disco == disco || disco.is_zero()) return;
    by_disco_.erase(found->second.disco);
    found->second.disco = disco;
    by_disco_[disco] = node;
    on_new_agent(now, found->second);
    round(now, node, found->second, true);
}

/// The key is another one: the peer's agent has just begun, and may not hear our first pings yet.
void PathBook::on_new_agent(TimePoint now, Known& known) {
    if (trusts(now, known)) known.trusted_until = now + kTrustFor;
    known.presumed_until = {};
    known.last_disco.reset();
    ask_anew(known);
}

/// That earlier pings were not answered means nothing any more.
void PathBook::ask_anew(Known& known) {
    for (auto& [endpoint, entry] : known.candidates) {
        entry.last_ping_sent.reset();
        entry.asked_first.reset();
        entry.packet_bytes = 0;
    }
}

void PathBook::on_network_change(TimePoint now) {
    for (auto& [node, known] : peers_) {
        known.trusted_until = now;
        known.presumed_until = {};
        start_over(now, node, known);
    }
}

void PathBook::on_new_addresses(TimePoint now) {
    for (auto& [node, known] : peers_)
        if (!trusts(now, known)) start_over(now, node, known);
}

void PathBook::start_over(TimePoint now, const NodeKey& node, Known& known) {
    if (peers_.size() <= kSmallTailnet) known.introduced_until = now + kIntroduction;
    ask_anew(known);
    if (known.wireguard_only) forget_echoes(known);
    settle(now, node, known);
    if (is_active(now, known) || (!can_relay(known) && peers_.size() <= kSmallTailnet)) round(now, node, known, true);
}

void PathBook::on_own_endpoints(TimePoint now) {
    for (auto& [node, known] : peers_) {
        if (!is_active(now, known) || trusts(now, known) || !can_relay(known)) continue;
        known.last_call.reset();
        call(now, node, known);
    }
}

void PathBook::set_relaying(TimePoint now, bool possible, int but_not_to) {
    if (relaying_ == possible && dead_region_ == but_not_to) return;
    relaying_ = possible;
    dead_region_ = but_not_to;
    for (auto& [node, known] : peers_) {
        settle(now, node, known);
        look(now, node, known);
    }
}

void PathBook::set_carried(TimePoint now, const NodeKey& node, bool carried) {
    auto found = peers_.find(node);
    if (found == peers_.end() || std::exchange(found->second.carried, carried) == carried) return;
    settle(now, node, found->second);
    look(now, node, found->second);
}

void PathBook::set_only_relay(TimePoint now, bool only) {
    if (std::exchange(only_relay_, only) == only) return;
    for (auto& [node, known] : peers_) give_up(now, node, known);
}

void PathBook::set_silent(TimePoint now, bool silent) {
    if (std::exchange(silent_, silent) == silent) return;
    for (auto& [node, known] : peers_) look(now, node, known);
}

/// Paths that work are found anew, for the other sizes' sake.
void PathBook::set_probing_sizes(TimePoint now, bool on) {
    if (std::exchange(probing_sizes_, on) == on) return;
    for (auto& [node, known] : peers_) {
        for (auto& [endpoint, entry] : known.candidates) {
            entry.packet_bytes = 0;
            entry.sizes_sent.reset();
        }
        look(now, node, known);
    }
}

void PathBook::set_probing_lifetime(TimePoint now, std::optional<DiscoKey> own) {
    if (std::exchange(lifetime_key_, own) == own) return;
    for (auto& [node, known] : peers_) look(now, node, known);
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
    known.presumed_until = {};
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
    on_word(now, node, known);
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
    entry.last_packet = now;
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
    } else if (known.best != source
                   ? !entry.last_ping_sent
                   : entry.asked_first && entry.last_ping_sent && now - *entry.last_ping_sent >= answer_time(entry)) {
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
    if (relay_region(sent.to) != 0) {
        on_word(now, sent.node, known);
        known.last_disco = now;
        return;
    }
    known.last_disco = now;
    Candidate& entry = candidate(now, known, sent.to);
    entry.last_packet = now;
    if (sent.after_silence) { // nobody talks, and the path is not taken up again for its sake
        count(known.lifetime.on_answered(now, sent.to));
        return look(now, sent.node, known);
    }
    if (refuses(now, entry)) return;
    // The first answer of all, and not to what we asked first: those pings came before the peer's agent knew our key,
    // as when we have just started. Nothing is compared yet.
    if (known.last_round && sent.at > *known.last_round &&
        std::ranges::none_of(known.candidates, [](const auto& one) { return one.second.last_pong.has_value(); }))
        known.last_round.reset();
    entry.asked_first.reset();
    // Of one path the larger packet is the better news (derp-disco-paths.md 4.6, number 1). What was shown before the
    // path was lost says nothing.
    const bool goes_on = entry.last_pong && now - *entry.last_pong < kTrustFor;
    entry.packet_bytes = goes_on ? std::max(entry.packet_bytes, sent.packet_bytes) : sent.packet_bytes;
    entry.last_pong = now;
    entry.round_trip = round_trip;
    bool trusted = trusts(now, known);
    auto best = best_round_trip(known); // none: an adopted path, of which only WireGuard has heard
    if (!trusted || known.best == sent.to || !best || is_better_path(sent.to, round_trip, *known.best, *best)) {
        trust(known, sent.to, now + kTrustFor);
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
    on_word(now, node, known);
    known.last_disco = now;
    std::vector<Endpoint> before;
    for (auto& [endpoint, entry] : known.candidates)
        if (std::exchange(entry.from_call, false)) before.push_back(endpoint);
    for (const Endpoint& endpoint : endpoints) {
        if (!endpoint.valid() || endpoint.port == 0) continue;
        if (endpoint.address.is_v6() && endpoint.address.is_link_local()) continue;
        candidate(now, known, endpoint).from_call = true;
    }
    bool best_is_doubted = false;
    for (const Endpoint& endpoint : before) {
        if (known.candidates[endpoint].from_call) continue;
        if (known.best == endpoint && trusts(now, known))
            best_is_doubted = true;
        else
            forget_candidate(known, endpoint);
    }
    // Everything is tried again at once, for the peer's NAT is open now; but not again and again by many calls.
    bool due = !known.last_called || now - *known.last_called >= kCallPause;
    if (due) {
        known.last_called = now;
        for (auto& [endpoint, entry] : known.candidates) entry.last_ping_sent.reset();
        if (best_is_doubted) doubt(now, node, known);
    }
    settle(now, node, known);
    round(now, node, known, false); // no call back: that would go on for ever
}

/// What a ping takes to be answered where all is well.
Duration PathBook::answer_time(const Candidate& entry) {
    return std::max<Duration>(kLeastAnswerTime, 3 * entry.round_trip);
}

/// The peer no longer names where it was reached a moment ago: it has moved, or a lying relay says an old call again.
/// Whether the path works tells the two apart.
void PathBook::doubt(TimePoint now, const NodeKey& node, Known& known) {
    TimePoint end = now + answer_time(candidate(now, known, *known.best));
    known.trusted_until = std::min(end_of_trust(now, known), end);
    known.presumed_until = {};
    ping(now, node, known, *known.best, 0);
    look(now, node, known);
}

void PathBook::on_relayed_arrival(TimePoint now, const NodeKey& node) {
    auto found = peers_.find(node);
    if (found == peers_.end()) return;
    on_word(now, node, found->second);
    found->second.last_relayed_arrival = now;
}

/// Something that only the peer's agent can have sent.
void PathBook::on_word(TimePoint now, const NodeKey& node, Known& known) {
    bool presumed = now >= known.trusted_until && trusts(now, known);
    if (presumed) doubt(now, node, known);
}

void PathBook::on_data(TimePoint since, TimePoint now, const NodeKey& node, const Endpoint& endpoint) {
    auto found = peers_.find(node);
    if (found == peers_.end()) return;
    Known& known = found->second;
    if (known.wireguard_only) return on_plain_data(now, node, known, endpoint);
    if (known.best != endpoint) return;
    candidate(now, known, endpoint).last_packet = now;
    if (!trusts(now, known)) return;
    if (silent_) {
        known.trusted_until = std::max(known.trusted_until, since + kTrustFor);
        look(now, node, known);
        return;
    }
    if (!is_silent(now, known)) return;
    // As good as a pong when it came after the peer's own heartbeat should have: the path works, and the agent is away.
    // What came before that may have been the last of a path that has died since, which is left in time all the same.
    auto asked = known.candidates[endpoint].asked_first;
    bool missed = !asked || since - *asked >= kHeartbeat + kBeatSlack;
    known.presumed_until = std::max(known.presumed_until, since + kTrustFor - (missed ? Duration{} : kHeartbeat));
    look(now, node, known);
}

bool PathBook::trusts(TimePoint now, const Known& known) {
    if (!known.best) return false;
    return now < known.trusted_until || (now < known.presumed_until && is_silent(now, known));
}

/// Whether the peer's agent has said nothing since it should have answered us at the best address.
bool PathBook::is_silent(TimePoint now, const Known& known) {
    if (known.disco.is_zero()) // says nothing in disco, ever
        return !known.last_relayed_arrival || now - *known.last_relayed_arrival >= kHeardLately;
    auto entry = known.candidates.find(*known.best);
    if (entry == known.candidates.end() || !entry->second.asked_first) return false;
    TimePoint answered = *entry->second.asked_first + std::max<Duration>(kBeatSlack, 2 * entry->second.round_trip);
    return std::max(known.last_disco, known.last_relayed_arrival) < answered; // nothing is less than any time
}

void PathBook::trust(Known& known, const Endpoint& endpoint, TimePoint until) {
    known.best = endpoint;
    known.trusted_until = until;
    known.presumed_until = {};
}

std::optional<Endpoint> PathBook::direct_guess(const NodeKey& node) const {
    auto found = peers_.find(node);
    if (found == peers_.end() || only_relay_) return std::nullopt;
    std::optional<std::pair<TimePoint, Endpoint>> last;
    for (const auto& [endpoint, entry] : found->second.candidates)
        if (entry.last_pong && (!last || *entry.last_pong > last->first)) last = {*entry.last_pong, endpoint};
    return last ? last->second : most_plausible(found->second);
}

std::optional<Endpoint> PathBook::second_copy(TimePoint now, const NodeKey& node) const {
    auto found = peers_.find(node);
    if (found == peers_.end() || only_relay_ || found->second.follows || trusts(now, found->second))
        return std::nullopt;
    return found->second.best;
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
    if (found->second.wireguard_only) return on_plain_traffic(now, node, found->second);
    auto path = found->second.in_force ? found->second.candidates.find(*found->second.in_force)
                                       : found->second.candidates.end();
    if (path != found->second.candidates.end()) path->second.last_packet = now;
    look(now, node, found->second);
}

std::uint64_t PathBook::ask(TimePoint now, const NodeKey& node, int message_bytes) {
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
    const bool at_relay = can_relay(known) && known.home_region != 0;
    if (message_bytes == 0) {
        for (const Endpoint& endpoint : targets) ping(now, node, known, endpoint, question, Sizes::All);
        if (at_relay) ping(now, node, known, relay_endpoint(known.home_region), question);
    } else {
        for (const Endpoint& endpoint : targets)
            send_ping(now, node, known, endpoint, question,
                      disco_packet_bytes(message_bytes, endpoint.address.is_v6()));
        if (at_relay && !trusts(now, known)) {
            const Endpoint relay = relay_endpoint(known.home_region);
            send_ping(now, node, known, relay, question, disco_packet_bytes(message_bytes, relay.address.is_v6()));
        }
    }
    look(now, node, known);
    return question;
}

PathBook::State PathBook::state(TimePoint now, const NodeKey& node) const {
    State out;
    auto found = peers_.find(node);
    if (found == peers_.end()) return out;
    const Known& known = found->second;
    out.endpoint = known.in_force;
    out.active = is_active(now, known);
    out.home_region = known.home_region;
    out.wireguard_only = known.wireguard_only;
    out.lifetime = known.lifetime.result();
    out.relayed = known.relayed && known.in_force == known.relayed;
    out.trusted = trusts(now, known) && known.in_force == known.best;
    if (known.in_force) {
        auto entry = known.candidates.find(*known.in_force);
        if (entry != known.candidates.end()) {
            out.round_trip = entry->second.round_trip;
            out.packet_bytes = entry->second.packet_bytes;
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
        known.carried = false;
        if (known.wireguard_only) continue;
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
                       ago(entry.last_ping_sent), ago(entry.last_ping_received), ago(entry.last_pong), entry.round_trip,
                       entry.packet_bytes});
    return out;
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

std::optional<Duration> PathBook::best_round_trip(const Known& known) {
    auto entry = known.best ? known.candidates.find(*known.best) : known.candidates.end();
    if (entry == known.candidates.end() || !entry->second.last_pong) return std::nullopt;
    return entry->second.round_trip;
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
            // A ping's source can be forged, and a call be of any length; control names few.
            auto worth = [](const Candidate& c) {
                return std::tuple{c.last_pong ? *c.last_pong : TimePoint::min(), c.from_control, c.from_call};
            };
            for (auto it = known.candidates.begin(); it != known.candidates.end(); ++it) {
                if (known.in_force == it->first || known.best == it->first) continue;
                if (worst == known.candidates.end() || worth(it->second) < worth(worst->second)) worst = it;
            }
            if (worst != known.candidates.end()) known.candidates.erase(worst);
        }
    }
    return known.candidates[endpoint];
}

bool PathBook::is_heard_otherwise(TimePoint now, const Known& known) {
    return (known.last_relayed_arrival && now - *known.last_relayed_arrival < kHeardLately) ||
           (known.last_disco && now - *known.last_disco < kHeartbeat + kHeardLately);
}

bool PathBook::is_active(TimePoint now, const Known& known) {
    return known.last_traffic && now - *known.last_traffic < kActiveFor;
}

} // namespace tailrace
