// control/server/policy_input.hpp - the tailnet as the policy compiler wants it. Pure; runs on a worker.
#pragma once
#include "control/routes/home_regions.hpp"
#include "control/tailnet/tailnet_state.hpp"
#include "policy/compile.hpp"

#include <memory>
#include <unordered_map>

namespace tailrace {

/// Whether a node can be the primary of its routes now.
struct RouterStanding {
    bool online = true;
    bool steady = true;
};
/// Of nodes with approved routes. For one that is missing, its report says whether it is online.
using RouterStandings = std::unordered_map<NodeId, RouterStanding>;

/// With `regions` each region has the router that is best for it, else all have the primary.
/// Where `before`, what was in force, is of the same document, only what changed since is worked out. It may be null.
std::shared_ptr<const CompiledPolicy> compile_for(std::shared_ptr<const Document> document,
                                                  std::shared_ptr<const Snapshot> snapshot,
                                                  std::shared_ptr<const CompiledPolicy> before,
                                                  const RouterStandings& standings = {},
                                                  std::shared_ptr<const RegionOfNode> regions = nullptr);
/// The tailnet as policies are applied to it, with the names of devices.
Tailnet policy_tailnet(const Snapshot& snapshot, const RouterStandings& standings = {});
/// Checks a policy also against the users and nodes that there are, and runs its tests.
Result<Document> check_policy(const std::string& text, const Snapshot& snapshot);
/// The same for one that was read already, at the start: users and devices may still come.
Result<void> check_again(const Document& document, const Snapshot& snapshot);
/// A user as policies write it: alice@example.com, and alice@ for one whose name has no domain.
TailnetUser policy_user(const User& user);
/// Whether this event changes who may reach whom.
bool concerns_policy(const NodeEvent& event);
/// Whether it may change which router is the best for a region.
bool concerns_routers(const NodeEvent& event);
/// Who has the clients of each region, by route, as the records of routers say.
using RoutersOfRegions = std::map<IpPrefix, std::map<int, NodeId>>;
RoutersOfRegions routers_of_regions(const std::map<NodeId, NodePtr>& nodes);
/// Routes that a node offers and that are approved.
std::vector<IpPrefix> routes_in_force(const Node& node);

} // namespace tailrace
