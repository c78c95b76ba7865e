#include "control/server/policy_input.hpp"

#include "control/routes/region_choice.hpp"
#include "control/tailnet/attributes.hpp"
#include "control/tailnet/services.hpp"
#include "policy/check.hpp"

#include <algorithm>
#include <iterator>
#include <set>

namespace tailrace {

namespace {

/// For each route with several routers and each region with a node.
void choose_by_region(Tailnet& tailnet, const Snapshot& snapshot, const RegionOfNode& region_of) {
    std::set<int> regions;
    std::map<IpPrefix, std::vector<RegionRouter>> routers;
    for (TailnetNode& node : tailnet.nodes) {
        if (auto home = region_of.find(node.id); home != region_of.end()) regions.insert(node.region = home->second);
        for (const IpPrefix& route : node.routes) {
            if (is_exit_route(route)) continue;
            RegionRouter& router = routers[route].emplace_back();
            router.id = node.id;
            router.region = node.region;
            router.latencies = &snapshot.nodes.at(node.id)->report.relay_latencies;
            router.online = node.online;
            router.steady = node.steady;
            router.primary = std::find(node.primaries.begin(), node.primaries.end(), route) != node.primaries.end();
            router.since = node.router_since;
        }
    }
    RoutersOfRegions had = routers_of_regions(snapshot.nodes);
    for (const auto& [route, rivals] : routers) {
        if (rivals.size() < 2) continue;
        const std::map<int, NodeId>& who = had[route];
        auto& chosen = tailnet.regional[route];
        for (int region : regions) {
            auto at = who.find(region);
            chosen[region] = choose_router(region, rivals, at == who.end() ? 0 : at->second);
        }
    }
}

} // namespace

RoutersOfRegions routers_of_regions(const std::map<NodeId, NodePtr>& nodes) {
    RoutersOfRegions out;
    for (const auto& [id, node] : nodes)
        for (const auto& [route, regions] : node->record.regional_routes)
            for (int region : regions) out[route].emplace(region, id);
    return out;
}

std::vector<IpPrefix> routes_in_force(const Node& node) {
    std::vector<IpPrefix> routes;
    std::set_intersection(node.record.approved_routes.begin(), node.record.approved_routes.end(),
                          node.report.routable_ips.begin(), node.report.routable_ips.end(), std::back_inserter(routes));
    return routes;
}

TailnetUser policy_user(const User& user) {
    bool has_domain = user.name.find('@') != std::string::npos;
    return {user.id, has_domain ? user.name : user.name + "@", user.role};
}

Tailnet policy_tailnet(const Snapshot& snapshot, const RouterStandings& standings) {
    Tailnet tailnet;
    for (const auto& [name, service] : snapshot.services)
        tailnet.services.push_back({name, {service->v4, service->v6}, service->ports});
    for (const auto& [id, user] : snapshot.users) tailnet.users.push_back(policy_user(*user));
    for (const auto& [id, node] : snapshot.nodes) {
        if (!node->record.authorized) continue; // waits for approval: nobody knows it
        TailnetNode& out = tailnet.nodes.emplace_back();
        out.id = id;
        out.user = node->record.user;
        out.tags = node->record.tags;
        out.addresses = {node->record.v4, node->record.v6};
        out.routes = routes_in_force(*node);
        for (const auto& [name, service] : snapshot.services) {
            if (host_state(*service, *node) != HostState::Serves) continue;
            for (const IpAddress& address : {service->v4, service->v6}) out.routes.push_back(IpPrefix::single(address));
        }
        std::sort(out.routes.begin(), out.routes.end());
        std::set_intersection(out.routes.begin(), out.routes.end(), node->record.primary_routes.begin(),
                              node->record.primary_routes.end(), std::back_inserter(out.primaries));
        auto standing = standings.find(id);
        out.online = standing == standings.end() ? node->report.online : standing->second.online;
        out.steady = standing == standings.end() || standing->second.steady;
        if (!node->record.router_since.is_zero())
            out.router_since = node->record.router_since.minus(WallTime::from_unix(0)).count();
        out.attributes = posture_of(*node);
        out.app_connector = node->report.app_connector;
        out.name = node->record.given_name;
    }
    return tailnet;
}

Result<Document> check_policy(const std::string& text, const Snapshot& snapshot) {
    return check(text, policy_tailnet(snapshot));
}

Result<void> check_again(const Document& document, const Snapshot& snapshot) {
    return check(document, policy_tailnet(snapshot), Strangers::MayCome);
}

std::shared_ptr<const CompiledPolicy> compile_for(std::shared_ptr<const Document> document,
                                                  std::shared_ptr<const Snapshot> snapshot,
                                                  std::shared_ptr<const CompiledPolicy> before,
                                                  const RouterStandings& standings,
                                                  std::shared_ptr<const RegionOfNode> regions) {
    Tailnet tailnet = policy_tailnet(*snapshot, standings);
    choose_primaries(tailnet);
    if (regions) choose_by_region(tailnet, *snapshot, *regions);
    auto compiled = CompiledPolicy::compile(std::move(document), std::move(tailnet), before.get());
    for (const TailnetNode& node : compiled->tailnet().nodes) { // answers are worked out when asked: ask here
        (void)compiled->filter_id(node.id);
        (void)compiled->view_of(node.id);
    }
    return compiled;
}

bool concerns_routers(const NodeEvent& event) {
    return event.before && event.after &&
           (!event.after->record.approved_routes.empty() || !event.after->record.hosting.empty()) &&
           event.before->report.relay_latencies != event.after->report.relay_latencies;
}

bool concerns_policy(const NodeEvent& event) {
    if (!event.before || !event.after) return true;
    const Node& before = *event.before;
    const Node& after = *event.after;
    if (before.record.authorized != after.record.authorized || before.record.tags != after.record.tags ||
        before.record.user != after.record.user || before.record.v4 != after.record.v4 ||
        before.record.v6 != after.record.v6 || before.record.approved_routes != after.record.approved_routes ||
        before.report.routable_ips != after.report.routable_ips || before.record.hosting != after.record.hosting ||
        before.report.announced != after.report.announced || before.record.attributes != after.record.attributes ||
        before.report.posture != after.report.posture || before.report.app_connector != after.report.app_connector ||
        before.report.peer_api4 != after.report.peer_api4 || before.report.peer_api6 != after.report.peer_api6)
        return true;
    bool expired_now = event.before != event.after && before == after; // time alone made the difference
    return (before.report.online != after.report.online || before.record.key_expiry != after.record.key_expiry ||
            expired_now) &&
           (!after.record.approved_routes.empty() || !after.record.hosting.empty());
}

} // namespace tailrace
