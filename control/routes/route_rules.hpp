// control/routes/route_rules.hpp - which routes a node can offer and which can be approved. Pure.
#pragma once
#include "base/net.hpp"

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// Of the routes that one node offers, so many are looked at.
inline constexpr std::size_t kMostRoutes = 4096;

/// What a node says it offers, in order: without host bits, sorted, each once, without what is no prefix, the first
/// kMostRoutes.
std::vector<IpPrefix> offered_routes(std::span<const IpPrefix> said);

/// A route as people write it. Host bits are an error that says what was probably meant.
Result<IpPrefix> parse_route(std::string_view text);

/// Why nobody can approve this route; nothing when one may. The tailnet's own addresses belong to its nodes: a route
/// inside them would take packets from the node that they are for. (One around them does not: the longer prefix wins.
/// 4via6 lies inside and is meant for routes.)
std::optional<std::string> problem_of_route(const IpPrefix& route, const IpPrefix& tailnet_v4,
                                            const IpPrefix& tailnet_v6);

/// An exit node carries both families: with 0.0.0.0/0 goes ::/0, and the other way round. The result is sorted.
std::vector<IpPrefix> with_exit_pair(std::vector<IpPrefix> routes);

inline bool contains_route(const std::vector<IpPrefix>& sorted, const IpPrefix& route) {
    auto at = std::lower_bound(sorted.begin(), sorted.end(), route);
    return at != sorted.end() && *at == route;
}

} // namespace tailrace
