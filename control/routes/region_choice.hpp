// control/routes/region_choice.hpp - which of the routers that share a route carries it for the clients of one region.
// A region is that of a node's home relay. Pure. In force with `route_choice: region`; who is a router's rival and
// whether it is there: route_health.hpp. The rule, first of what applies, among the routers that are there:
//
//   1. a router of the same region: the one that has the clients already, else the primary, else who is a router for
//      longest;
//   2. the router that is nearest to the region's relay by its own measurement. Relay and client are equally far apart
//      for all of them, so this is the least way over that relay. The one that has the clients keeps them unless
//      another is nearer by kNearerBy and by a third (what clients go by when they choose a home);
//   3. where measurements are missing: the one that has the clients, else the primary, else who is a router for
//   longest.
//
// One on probation is there only for clients that it has, or when nobody else is. When none is there, whoever had the
// clients keeps them.
#pragma once
#include "base/time.hpp"
#include "control/model/model.hpp"
#include "proto/control/hostinfo.hpp"

#include <map>
#include <optional>
#include <vector>

namespace tailrace {

inline const RelayLatencies kNoLatencies;

/// One of the routers of a route.
struct RegionRouter {
    NodeId id = 0;
    int region = 0;                                  ///< 0: not known
    const RelayLatencies* latencies = &kNoLatencies; ///< that it measured; never null
    bool online = true;                              ///< there, as RouteHealth says
    bool steady = true;                              ///< and not on probation
    bool primary = false;                            ///< for the tailnet as a whole
    std::int64_t since = 0;                          ///< a router for longest: the least
};

inline constexpr auto kNearerBy = std::chrono::milliseconds{10};

/// Who carries the route for clients of the region. `has_it`: who does now, 0 for nobody. `routers` is not empty.
NodeId choose_router(int region, const std::vector<RegionRouter>& routers, NodeId has_it);

/// A node's way to the relays of each region, the shorter of IPv4 and IPv6. What makes no sense is left out.
RelayLatencies relay_latencies(const wire::NetInfo& info);

} // namespace tailrace
