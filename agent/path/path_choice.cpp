// Which address of a peer is the better one.
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

} // namespace tailrace
