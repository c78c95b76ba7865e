// control/tailnet/routes.cpp - who approved which route of a node, and which it is the primary of.
#include "control/routes/route_rules.hpp"
#include "control/tailnet/tailnet_state.hpp"

#include <algorithm>

namespace tailrace {

namespace {

using Routes = std::vector<IpPrefix>;

Routes join_sets(const Routes& a, const Routes& b) {
    Routes out;
    std::set_union(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(out));
    return out;
}
Routes without(const Routes& a, const Routes& b) {
    Routes out;
    std::set_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(out));
    return out;
}

std::string texts(const Routes& routes) {
    std::vector<std::string> out;
    for (const IpPrefix& route : routes) out.push_back(route.text());
    return join(out, ", ");
}

} // namespace

Result<void> TailnetState::put_routes(WallTime now, const Node& before, Node after) {
    if (after.record == before.record) return {};
    NodeRecord& record = after.record;
    if (record.approved_routes.size() > kMostRoutes || record.revoked_routes.size() > kMostRoutes)
        return Error::make("a node can have {} approved routes and as many revoked ones, and this would be more",
                           kMostRoutes);
    if (before.record.approved_routes.empty() && !record.approved_routes.empty()) record.router_since = now;
    put_node(std::move(after), true);
    return {};
}

Result<void> TailnetState::approve_routes(WallTime now, NodeId id, std::vector<IpPrefix> routes, Approval by) {
    NodePtr before = node(id);
    if (!before) return Error::make("there is no node {}", id);
    routes = with_exit_pair(std::move(routes));
    if (by == Approval::Policy) {
        routes = without(without(routes, before->record.revoked_routes), before->record.approved_routes);
        std::erase_if(routes, [&](const IpPrefix& route) { return route_problem(route).has_value(); });
    }
    for (const IpPrefix& route : routes)
        if (auto problem = route_problem(route)) return Error::make("{}: it can't be approved", *problem);
    Node after = *before;
    NodeRecord& record = after.record;
    record.approved_routes = join_sets(record.approved_routes, routes);
    record.revoked_routes = without(record.revoked_routes, routes);
    record.policy_routes =
        by == Approval::Policy ? join_sets(record.policy_routes, routes) : without(record.policy_routes, routes);
    return put_routes(now, *before, std::move(after));
}

Result<void> TailnetState::revoke_routes(WallTime now, NodeId id, std::vector<IpPrefix> routes) {
    NodePtr before = node(id);
    if (!before) return Error::make("there is no node {}", id);
    routes = with_exit_pair(std::move(routes));
    Node after = *before;
    NodeRecord& record = after.record;
    if (Routes others = without(routes, record.approved_routes); !others.empty())
        return Error::make("{} is not approved for {}: \"nodes routes list\" shows what is", texts(others),
                           record.given_name);
    record.approved_routes = without(record.approved_routes, routes);
    record.policy_routes = without(record.policy_routes, routes);
    record.revoked_routes = join_sets(record.revoked_routes, routes);
    return put_routes(now, *before, std::move(after));
}

void TailnetState::set_primary_routes(NodeId id, std::vector<IpPrefix> routes) {
    NodePtr before = node(id);
    if (!before) return;
    std::sort(routes.begin(), routes.end());
    Node after = *before;
    after.record.primary_routes = std::move(routes);
    if (after.record != before->record) put_node(std::move(after), true);
}

void TailnetState::set_regional_routes(NodeId id, RegionalRoutes routes) {
    NodePtr before = node(id);
    if (!before || before->record.regional_routes == routes) return;
    Node after = *before;
    after.record.regional_routes = std::move(routes);
    put_node(std::move(after), true);
}

void TailnetState::on_router_gone(NodeId id) {
    NodePtr before = node(id);
    if (!before || before->record.router_gone) return;
    Node after = *before;
    after.record.router_gone = true;
    put_node(std::move(after), true);
}

void TailnetState::on_router_back(WallTime now, NodeId id, int falls) {
    NodePtr before = node(id);
    if (!before) return;
    Node after = *before;
    after.record.router_since = now;
    after.record.router_falls = falls;
    after.record.router_gone = false;
    put_node(std::move(after), true);
}

std::optional<std::string> TailnetState::route_problem(const IpPrefix& route) const {
    return problem_of_route(route, settings_.prefix_v4, settings_.prefix_v6);
}

} // namespace tailrace
