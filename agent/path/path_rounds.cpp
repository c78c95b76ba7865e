// When a peer is pinged.
#include "agent/path/path_book.hpp"

#include <algorithm>

namespace tailrace {

void PathBook::ping(TimePoint now, const NodeKey& node, Known& known, const Endpoint& to, std::uint64_t question,
                    Sizes sizes) {
    if (known.disco.is_zero()) return;
    if (relay_region(to) == 0 && refuses(now, candidate(now, known, to))) return;
    if (question == 0 && known.best != to && !take_from_budgets(now, known)) return;
    if (relay_region(to) == 0) {
        Candidate& entry = candidate(now, known, to);
        entry.last_ping_sent = now;
        if (!entry.asked_first) entry.asked_first = now;
    }
    send_ping(now, node, known, to, question, 0);
    if (!probing_sizes_ || sizes == Sizes::One || relay_region(to) != 0) return;
    candidate(now, known, to).sizes_sent = now;
    for (int bytes : kPacketSizes) {
        if (question == 0 && !take_from_budgets(now, known)) return;
        send_ping(now, node, known, to, question, bytes);
    }
}

PathBook::Sent& PathBook::send_ping(TimePoint now, const NodeKey& node, Known& known, const Endpoint& to,
                                    std::uint64_t question, int packet_bytes) {
    if (relay_region(to) == 0) candidate(now, known, to).last_packet = now;
    DiscoTxId id = new_id_();
    sent_in_order_.emplace_back(now, id);
    actions_.push_back(SendPing{node, known.disco, id, to, packet_bytes});
    return sent_[id] = Sent{node, to, now, question, packet_bytes};
}

/// Of a peer with whom nobody talks.
TimePoint PathBook::look_at_silence(TimePoint now, const NodeKey& node, Known& known) {
    constexpr TimePoint kNever = TimePoint::max();
    const bool ours = lifetime_key_ && !known.disco.is_zero() && *lifetime_key_ < known.disco;
    if (!ours || silent_ || !known.best || !known.last_traffic) return kNever;
    const Candidate& entry = candidate(now, known, *known.best);
    if (!entry.last_packet || refuses(now, entry)) return kNever;
    auto step = known.lifetime.look(now, *known.best, *entry.last_packet);
    if (step.ping) send_ping(now, node, known, *known.best, 0, 0).after_silence = true;
    return step.look.value_or(kNever);
}

void PathBook::count(const std::optional<UdpLifetime::Result>& result) {
    if (result) ++lifetime_counts_.at(result->outlived);
}

/// Of its own, so that no peer makes us ping more than all its candidates, each when it is due, whatever it calls and
/// pings; and of everybody's.
bool PathBook::take_from_budgets(TimePoint now, Known& known) {
    return known.budget.try_take(now) && budget_.try_take(now);
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
    for (const Endpoint& endpoint : due) ping(now, node, known, endpoint, 0, Sizes::All);
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
    if (known.wireguard_only) return choose_plain(now, node, known);
    bool trusted = trusts(now, known);
    if (!trusted) settle(now, node, known);
    bool active = is_active(now, known);
    const TimePoint silence = active ? kNever : look_at_silence(now, node, known);
    if (!active && can_relay(known)) { // silence costs nothing; the next packet wakes us at the relayed endpoint
        return std::min(silence, trusted ? end_of_trust(now, known) : kNever);
    }
    if (known.disco.is_zero() || (known.candidates.empty() && !can_relay(known))) return kNever;
    if (!active && (trusted || now >= known.introduced_until)) return silence;
    if (trusted && silent_) return end_of_trust(now, known);
    if (trusted) {
        Candidate& entry = candidate(now, known, *known.best);
        TimePoint beat = entry.last_ping_sent ? *entry.last_ping_sent + kHeartbeat : now;
        const bool try_sizes = probing_sizes_ && entry.packet_bytes == 0 &&
                               (!entry.sizes_sent || now - *entry.sizes_sent >= kUpgradeEvery);
        if (beat <= now || try_sizes) {
            ping(now, node, known, *known.best, 0, try_sizes ? Sizes::All : Sizes::One);
            beat = now + kHeartbeat;
        }
        TimePoint next = std::min(beat, end_of_trust(now, known));
        bool slow = entry.round_trip > kGoodEnough;
        // A path that an earlier agent left, or that the peer found, was never compared with the others.
        bool compare = !known.last_round || (slow && now - *known.last_round >= kUpgradeEvery);
        if (!compare) return next;
        std::vector<Endpoint> others;
        TimePoint first_due = kNever;
        for (const auto& [endpoint, other] : known.candidates) {
            if (endpoint == *known.best || refuses(now, other)) continue;
            if (is_due(now, other))
                others.push_back(endpoint);
            else
                first_due = std::min(first_due, *other.last_ping_sent + kPingEvery);
        }
        if (others.empty() && first_due != kNever) return std::min(next, first_due);
        known.last_round = now;
        for (const Endpoint& endpoint : others) ping(now, node, known, endpoint, 0, Sizes::All);
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
    for (const Endpoint& endpoint : due) ping(now, node, known, endpoint, 0, Sizes::All);
    if (!due.empty()) known.last_round = now;
    if (can_relay(known) && (!due.empty() || known.candidates.empty())) call(now, node, known);
    return next;
}

void PathBook::forget_old_pings(TimePoint now) {
    while (!sent_in_order_.empty() && now - sent_in_order_.front().first > kPingTimeout) {
        auto it = sent_.find(sent_in_order_.front().second);
        sent_in_order_.pop_front();
        if (it == sent_.end()) continue;
        auto peer = peers_.find(it->second.node);
        const bool telling = it->second.packet_bytes == 0; // a large one may just be too large
        if (it->second.after_silence && peer != peers_.end()) count(peer->second.lifetime.on_lost(now, it->second.to));
        if (telling && peer != peers_.end() && can_relay(peer->second) && peer->second.best == it->second.to &&
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

/// Also when a ping has gone unanswered, whoever it was for: what a peer can make us send must not pile up.
std::optional<TimePoint> PathBook::next_timer() const {
    std::optional<TimePoint> next;
    if (!looks_.empty()) next = looks_.begin()->first;
    if (!sent_in_order_.empty()) {
        TimePoint over = sent_in_order_.front().first + kPingTimeout + Duration{1};
        next = next ? std::min(*next, over) : over;
    }
    return next;
}

} // namespace tailrace
