#include "control/admin/routes_api.hpp"

#include "base/json/json.hpp"
#include "control/admin/failure.hpp"
#include "control/routes/route_rules.hpp"

#include <set>

namespace tailrace {

namespace {

using namespace admin;

std::string health_of(const AdminBackend& backend, const Node& node) {
    using State = RouteHealth::State;
    if (node.record.expired(WallTime::now())) return "expired";
    auto state = backend.route_state(node.id());
    if (!state) return node.report.online ? "online" : "offline"; // nobody else has its routes: it is not watched
    switch (*state) {
    case State::Steady:
        return "healthy";
    case State::Probation:
        return "on probation";
    case State::Doubted:
        return "silent";
    case State::Witnessed:
        return "reached by peers";
    case State::Restarting:
        return "restarting";
    case State::Unreached:
        return "not reached by peers";
    case State::Gone:
        return "gone";
    }
    return "";
}

/// What "all" means: what could be approved, or what is.
std::vector<IpPrefix> all_of(const TailnetState& tailnet, const Node& node, const std::string& verb) {
    if (verb == "revoke-routes") return node.record.approved_routes;
    std::vector<IpPrefix> routes;
    for (const IpPrefix& route : node.report.routable_ips)
        if (!contains_route(node.record.approved_routes, route) && !tailnet.route_problem(route))
            routes.push_back(route);
    return routes;
}

} // namespace

std::vector<RouteInfo> describe_routes(const AdminBackend& backend, const Node& node) {
    const NodeRecord& record = node.record;
    std::set<IpPrefix> all;
    for (const auto* list : {&node.report.routable_ips, &record.approved_routes, &record.revoked_routes})
        all.insert(list->begin(), list->end());
    std::string health = health_of(backend, node);
    std::vector<RouteInfo> routes;
    for (const IpPrefix& route : all) {
        RouteInfo& info = routes.emplace_back();
        info.node = node.id();
        info.name = record.given_name;
        info.route = route;
        info.offered = contains_route(node.report.routable_ips, route);
        info.approved = contains_route(record.approved_routes, route);
        info.decided_by = contains_route(record.policy_routes, route)                     ? "policy"
                          : info.approved || contains_route(record.revoked_routes, route) ? "hand"
                                                                                          : "";
        info.primary = info.offered && info.approved && contains_route(record.primary_routes, route);
        info.carries_for = backend.carries_for(node.id(), route);
        info.health = health;
        if (auto problem = backend.tailnet().route_problem(route)) info.problem = *problem;
    }
    return routes;
}

Task<HttpResponse> change_routes(AdminBackend& backend, NodeId id, std::string verb, std::string body) {
    auto wish = json::parse<ChangeRoutes>(body);
    if (!wish) co_return failed(400, wish.error().message());
    TailnetState& tailnet = backend.tailnet();
    NodePtr node = tailnet.node(id);
    std::vector<IpPrefix> routes;
    for (const std::string& text : wish->routes) {
        auto route = parse_route(text);
        if (!route) co_return failed(400, route.error().message());
        routes.push_back(*route);
    }
    if (wish->all) routes = all_of(tailnet, *node, verb);
    if (routes.empty() && !wish->all) co_return failed(400, "name the routes, or --all");
    auto changed = verb == "approve-routes"
                       ? tailnet.approve_routes(WallTime::now(), id, std::move(routes), Approval::Person)
                       : tailnet.revoke_routes(WallTime::now(), id, std::move(routes));
    if (!changed) co_return failed(400, changed.error().message());
    auto committed = co_await backend.commit();
    if (!committed) co_return failed(500, committed.error().message());
    co_await backend.settled();
    node = tailnet.node(id);
    if (!node) co_return failed(404, "the node has left already");
    co_return HttpResponse::json(200, json::write(describe_routes(backend, *node)));
}

} // namespace tailrace
