// Peers that speak WireGuard and nothing else, as commercial exits: which of their addresses is used
// (derp-disco-paths.md 4.9). Source: tailscale wgengine/magicsock/endpoint.go, addrForWireGuardSendLocked.
#include "agent/path/path_book.hpp"

#include <algorithm>

namespace tailrace {

/// That it took so long from where we were says nothing here.
void PathBook::forget_echoes(Known& known) {
    for (auto& [endpoint, entry] : known.candidates) entry.last_pong.reset();
    known.echoes = {};
}

/// What control no longer names, unless WireGuard hears the peer from there.
void PathBook::forget_withdrawn(TimePoint now, Known& known) {
    if (trusts(now, known)) return;
    auto is_gone = [&](const std::optional<Endpoint>& endpoint) {
        auto entry = endpoint ? known.candidates.find(*endpoint) : known.candidates.end();
        return entry != known.candidates.end() && !entry->second.from_control;
    };
    if (is_gone(known.in_force)) known.in_force.reset();
    if (is_gone(known.best)) known.best.reset();
    std::erase_if(known.candidates, [](const auto& entry) { return !entry.second.from_control; });
}

/// WireGuard has sent something, at some time since the last look.
void PathBook::on_plain_traffic(TimePoint now, const NodeKey& node, Known& known) {
    const bool was_silent = std::exchange(known.echoes.woken, false) || !trusts(now, known);
    std::size_t named = 0;
    bool due = false;
    for (const auto& [endpoint, entry] : known.candidates) {
        if (!entry.from_control) continue;
        ++named;
        due = due || !entry.last_ping_sent || now - *entry.last_ping_sent > kEchoEvery;
    }
    if (was_silent && named > 1 && due && (!known.echoes.round || now - *known.echoes.round > kEchoRounds)) {
        known.echoes.round = now;
        for (auto& [endpoint, entry] : known.candidates) {
            if (!entry.from_control) continue;
            entry.last_ping_sent = now;
            actions_.push_back(SendEcho{node, endpoint});
        }
    }
    if (!trusts(now, known)) {
        if (!known.best) known.best = known.in_force;
        known.trusted_until = now + kTryFor;
        if (!known.echoes.unheard) known.echoes.unheard = now;
    }
    look(now, node, known);
}

/// WireGuard has received something from there.
void PathBook::on_plain_data(TimePoint now, const NodeKey& node, Known& known, const Endpoint& endpoint) {
    (void)candidate(now, known, endpoint);
    if (!trusts(now, known)) known.echoes.woken = true;
    known.echoes.unheard.reset();
    trust(known, endpoint, now + kHeardFor);
    look(now, node, known);
}

void PathBook::on_echo(TimePoint now, const NodeKey& node, const Endpoint& endpoint,
                       std::optional<Duration> round_trip) {
    auto found = peers_.find(node);
    if (found == peers_.end() || !found->second.wireguard_only) return;
    auto entry = found->second.candidates.find(endpoint);
    if (entry == found->second.candidates.end()) return;
    entry->second.last_pong.reset();
    if (round_trip) {
        entry->second.last_pong = now;
        entry->second.round_trip = *round_trip;
    }
    look(now, node, found->second);
}

std::optional<Endpoint> PathBook::any_other(const Known& known) {
    std::vector<Endpoint> others;
    for (const auto& [endpoint, entry] : known.candidates)
        if (entry.from_control && known.in_force != endpoint) others.push_back(endpoint);
    if (others.empty()) return std::nullopt;
    return others[std::to_integer<std::size_t>(new_id_().front()) % others.size()];
}

/// When nothing speaks for the path any more, the next packet goes where echoes are answered soonest. Where none is, to
/// any other address if the last packets were for nothing.
TimePoint PathBook::choose_plain(TimePoint now, const NodeKey& node, Known& known) {
    if (trusts(now, known)) return end_of_trust(now, known);
    const std::pair<const Endpoint, Candidate>* quickest = nullptr;
    for (const auto& one : known.candidates) {
        const auto& [endpoint, entry] = one;
        if (!entry.from_control || !entry.last_pong) continue;
        if (quickest == nullptr || entry.round_trip < quickest->second.round_trip ||
            (entry.round_trip == quickest->second.round_trip && endpoint.address.is_v6()))
            quickest = &one;
    }
    std::optional<Endpoint> wanted = known.in_force;
    if (quickest != nullptr)
        wanted = quickest->first;
    else if (known.echoes.unheard && now - *known.echoes.unheard < kUnheardFor)
        return *known.echoes.unheard + kUnheardFor; // an answer may have come since the device was looked at
    else if (known.echoes.unheard)
        wanted = any_other(known);
    known.echoes.unheard.reset();
    known.best = wanted ? wanted : known.in_force;
    settle(now, node, known);
    return TimePoint::max();
}

} // namespace tailrace
