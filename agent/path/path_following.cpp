// WireGuard follows the source of what it receives: whether we follow it, or set its endpoint back.
#include "agent/path/path_book.hpp"

#include <algorithm>

namespace tailrace {

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
    if (known.wireguard_only) { // whatever an authentic packet came from is as good as anything that we know
        follow();
        return on_plain_data(now, node, known, endpoint);
    }
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
    if (is_path_of_another(now, node, endpoint)) {
        auto wanted = std::exchange(known.in_force, endpoint);
        if (wanted) use(node, known, *wanted);
        settle(now, node, known);
        return;
    }
    bool unheard_of = !known.candidates.contains(endpoint);
    Candidate& entry = candidate(now, known, endpoint);
    entry.from_wireguard = entry.from_wireguard || unheard_of;
    entry.last_packet = now;
    if (refuses(now, entry)) { // a last packet of the peer came from there, and WireGuard followed it
        auto wanted = std::exchange(known.in_force, endpoint);
        if (wanted) use(node, known, *wanted);
        settle(now, node, known);
        return;
    }
    bool recent = entry.last_pong && now - *entry.last_pong < kTrustFor;
    bool trusted = trusts(now, known);
    if (recent && trusted && known.best != endpoint) {
        // Both work. Where they are much alike the peer's choice is as good as ours, and to follow it ends all dispute;
        // but one packet that was still under way on the old path shall not undo a better one.
        auto best = best_round_trip(known);
        if (best && is_better_path(*known.best, 2 * *best, endpoint, entry.round_trip)) recent = false;
    }
    bool only_there = can_relay(known) && !is_heard_otherwise(now, known);
    if (recent || (!trusted && (only_there || !can_relay(known)))) {
        // It works, or the peer is heard nowhere else, or nothing better is known.
        follow();
        trust(known, endpoint, recent ? *entry.last_pong + kTrustFor : only_there ? now + kTrustFor : now);
        if (!recent) entry.asked_first.reset();
    } else {
        auto wanted = known.in_force;
        known.in_force = endpoint;
        if (wanted) use(node, known, *wanted);
        settle(now, node, known);
    }
    if (!entry.last_ping_sent || now - *entry.last_ping_sent >= kPingEvery) ping(now, node, known, endpoint, 0);
    look(now, node, known);
}

/// Another peer answers there now. A relay that calls one peer's packets another's makes us hand them to WireGuard as
/// if they came from the other's path, and WireGuard follows. Who has really taken over an address says so by a ping.
bool PathBook::is_path_of_another(TimePoint now, const NodeKey& node, const Endpoint& endpoint) const {
    return std::ranges::any_of(peers_, [&](const auto& entry) {
        return entry.first != node && entry.second.best == endpoint && trusts(now, entry.second);
    });
}

} // namespace tailrace
