// control/server/routes.cpp - the coordinator's part in routes: what the policy approves by itself, who is primary, and
// whom to ask whether it is there. The rules themselves: routes/, tailnet/routes.cpp, policy/.
#include "control/server/coordinator.hpp"

#include "base/random.hpp"
#include "control/routes/route_rules.hpp"

#include <algorithm>

namespace tailrace {

namespace {

constexpr std::size_t kMostQuestions = 16; // that wait for one slow stream
constexpr std::size_t kMostRivals = 8;     // that a router is compared with

} // namespace

RouteWatch::Server Coordinator::route_watch_server() {
    RouteWatch::Server server;
    auto scheme = config_.server_url.find("://");
    server.authority = scheme == std::string::npos ? config_.server_url : config_.server_url.substr(scheme + 3);
    server.ask = [this](NodeId to, const wire::PingRequest& question) { put_question(to, question); };
    server.peers_of = [this](NodeId router, std::size_t most) { return witnesses_of(router, most); };
    server.address_of = [this](NodeId id) {
        const NodePtr& node = tailnet_.node(id);
        return node ? node->record.v4 : IpAddress{};
    };
    server.end_stream = [this](NodeId id) {
        if (auto at = streams_.find(id); at != streams_.end()) end_stream(at->second);
    };
    server.turned = [this](const RouteHealth::Turn& turn) {
        if (turn.gone)
            tailnet_.on_router_gone(turn.router);
        else
            tailnet_.on_router_back(WallTime::now(), turn.router, turn.falls);
        commit_later(turn.gone ? "a router is gone" : "a router is back");
    };
    server.changed = [this] { policy_is_stale(); };
    return server;
}

void Coordinator::put_question(NodeId to, const wire::PingRequest& question) {
    auto at = streams_.find(to);
    if (at == streams_.end() || at->second->questions.size() >= kMostQuestions) return;
    at->second->questions.push_back(MapComposer::question(question, at->second->viewer.compression));
    at->second->wake.notify(); // at once: it is not news that others get too
}

void Coordinator::commit_later(const char* name) {
    auto task = [](Coordinator* self) -> Task<void> { (void)co_await self->commit(); }; // it has logged
    spawn(reactor_, name, task(this));
}

std::vector<NodeId> Coordinator::witnesses_of(NodeId router, std::size_t most) const {
    std::vector<NodeId> found;
    auto view = composer_.view_of(router);
    const NodePtr& itself = tailnet_.node(router);
    if (view->empty() || !itself) return found;
    auto is_rival = [&](NodeId id) {
        const NodePtr& node = tailnet_.node(id);
        return !node ||
               std::any_of(itself->record.approved_routes.begin(), itself->record.approved_routes.end(),
                           [&](const IpPrefix& route) {
                               return !route.is_default() && contains_route(node->record.approved_routes, route);
                           });
    };
    auto is_phone = [&](NodeId id) {
        const NodePtr& node = tailnet_.node(id);
        auto os = node->report.posture.find("node:os");
        const auto* name = os == node->report.posture.end() ? nullptr : std::get_if<std::string>(&os->second);
        return name != nullptr && (*name == "ios" || *name == "android");
    };
    std::vector<NodeId> phones;
    auto count = static_cast<std::uint32_t>(view->size());
    std::uint32_t start = random_below(count);
    for (std::uint32_t i = 0; i < std::min<std::uint32_t>(count, 64) && found.size() < most; ++i) {
        NodeId id = (*view)[(start + i) % count];
        auto at = streams_.find(id);
        if (id == router || at == streams_.end() || !at->second->viewer.started || is_rival(id)) continue;
        (is_phone(id) ? phones : found).push_back(id);
    }
    for (NodeId id : phones)
        if (found.size() < most) found.push_back(id);
    return found;
}

RouteHealth::Start Coordinator::start_of(const Node& node) const {
    RouteHealth::Start start;
    auto stream = streams_.find(node.id());
    start.has_stream = stream != streams_.end() && stream->second->viewer.started;
    start.was_online = node.report.online;
    if (start.was_online && !start.has_stream) start.hold_until = started_ + TailnetState::kRestartGrace;
    start.gone = node.record.router_gone;
    start.falls = node.record.router_falls;
    start.carries = !node.record.primary_routes.empty() || !node.record.regional_routes.empty();
    if (start.falls > 0) start.returned = reactor_.now() - WallTime::now().minus(node.record.router_since);
    return start;
}

RouterStandings Coordinator::router_standings() const {
    RouterStandings standings;
    WallTime now = WallTime::now();
    for (const auto& [id, node] : tailnet_.nodes()) {
        if (node->record.approved_routes.empty() && node->record.hosting.empty()) continue;
        RouterStanding& standing = standings[id];
        auto watched = route_watch_.standing(id);
        if (!watched && is_starting_) watched = RouteHealth::standing_of(reactor_.now(), start_of(*node));
        standing = watched ? RouterStanding{watched->there, watched->steady} : RouterStanding{node->report.online};
        standing.online = standing.online && !node->record.expired(now);
    }
    return standings;
}

/// What follows from a policy that has just been compiled.
void Coordinator::settle_routes() {
    bool approved = approve_routes_by_policy();
    approved = approve_hosts_by_policy() || approved;
    bool moved = note_primaries();
    moved = note_regional() || moved;
    if (approved || moved) commit_later("routes");

    std::map<IpPrefix, std::vector<NodeId>> routers;
    for (const TailnetNode& node : composer_.policy()->tailnet().nodes)
        for (const IpPrefix& route : node.routes)
            if (!is_exit_route(route)) routers[route].push_back(node.id);
    std::map<NodeId, RouteHealth::Start> rivals;
    for (const auto& [route, ids] : routers) {
        if (ids.size() < 2) continue;
        for (NodeId id : ids) {
            const NodePtr& node = tailnet_.node(id);
            if (!node) continue;
            auto [at, fresh] = rivals.try_emplace(id);
            if (fresh) at->second = start_of(*node);
            for (NodeId other : ids)
                if (other != id && at->second.rivals.size() < kMostRivals &&
                    !std::ranges::count(at->second.rivals, other))
                    at->second.rivals.push_back(other);
        }
    }
    has_rivals_ = !rivals.empty();
    is_starting_ = false;
    route_watch_.tell([&rivals](RouteHealth& health, TimePoint now) { health.watch(now, rivals); });
}

// ---- regions

void Coordinator::note_region(const NodeEvent& event) {
    if (config_.route_choice != RouteChoice::Region) return;
    if (event.after)
        home_regions_.on_report(reactor_.now(), event.id, event.after->report.home_derp);
    else
        home_regions_.on_node_gone(event.id);
}

/// Null when all are to have the same router.
std::shared_ptr<const RegionOfNode> Coordinator::regions() {
    return config_.route_choice == RouteChoice::Region ? home_regions_.regions() : nullptr;
}

void Coordinator::follow_regions() {
    if (home_regions_.take_changed() && has_rivals_) policy_is_stale();
    auto next = home_regions_.next_timer();
    if (!next || stopping_) return region_timer_.cancel();
    region_timer_.after(std::max<Duration>(*next - reactor_.now(), std::chrono::milliseconds{1}), [this] {
        home_regions_.on_timer(reactor_.now());
        follow_regions();
    });
}

bool Coordinator::note_regional() {
    const RoutersOfRegions had = routers_of_regions(tailnet_.nodes());
    std::map<NodeId, RegionalRoutes> chosen;
    for (const auto& [route, by_region] : composer_.policy()->tailnet().regional) {
        auto before = had.find(route);
        for (const auto& [region, router] : by_region) {
            chosen[router][route].push_back(region);
            if (before == had.end()) continue;
            auto at = before->second.find(region);
            if (at == before->second.end() || at->second == router) continue;
            const NodePtr& node = tailnet_.node(router);
            log::info("a region has another router", {{"route", route.text()},
                                                      {"region", composer_.region_code(region)},
                                                      {"router", node ? node->record.given_name : ""}});
        }
    }
    std::vector<NodeId> others;
    for (const auto& [id, node] : tailnet_.nodes()) {
        auto at = chosen.find(id);
        if (node->record.regional_routes != (at == chosen.end() ? RegionalRoutes{} : at->second)) others.push_back(id);
    }
    for (NodeId id : others) tailnet_.set_regional_routes(id, std::move(chosen[id]));
    return !others.empty();
}

std::vector<std::string> Coordinator::carries_for(NodeId id, const IpPrefix& route) const {
    if (route.is_default()) return {};
    const NodePtr& node = tailnet_.node(id);
    bool is_primary = node && contains_route(node->record.primary_routes, route) &&
                      contains_route(node->record.approved_routes, route) &&
                      contains_route(node->report.routable_ips, route);
    const auto& regional = composer_.policy()->tailnet().regional;
    auto at = regional.find(route);
    static const std::map<int, NodeId> kNone;
    const auto& by_region = at == regional.end() ? kNone : at->second;
    bool is_alone =
        std::all_of(by_region.begin(), by_region.end(), [id](const auto& entry) { return entry.second == id; });
    if (is_primary && is_alone) return {"everybody"};
    std::vector<std::string> whom;
    for (const auto& [region, router] : by_region)
        if (router == id) whom.push_back(composer_.region_code(region));
    if (is_primary) whom.push_back("others"); // whose region is not known
    return whom;
}

bool Coordinator::approve_routes_by_policy() {
    const auto& approvers = policy_->auto_approvers;
    if (approvers.routes.empty() && approvers.exit_node.empty()) return false;
    if (looked_at_under_ != policy_) { // an approval is looked at when a node or the policy has changed
        looked_at_.clear();
        looked_at_under_ = policy_;
    }
    std::vector<NodePtr> offering;
    for (const auto& [id, node] : tailnet_.nodes())
        if (!node->report.routable_ips.empty() && composer_.knows(id)) offering.push_back(node);
    bool changed = false;
    for (const NodePtr& node : offering) {
        if (std::exchange(looked_at_[node->id()], node) == node) continue;
        std::vector<IpPrefix> routes;
        for (const IpPrefix& route : node->report.routable_ips)
            if (!contains_route(node->record.approved_routes, route) &&
                !contains_route(node->record.revoked_routes, route) &&
                composer_.policy()->approves_route(node->id(), route))
                routes.push_back(route);
        if (routes.empty()) continue;
        auto approved = tailnet_.approve_routes(WallTime::now(), node->id(), std::move(routes), Approval::Policy);
        if (!approved) log::warn("a route that the policy approves is not approved", {{"error", approved.error()}});
        changed = changed || approved;
    }
    return changed;
}

bool Coordinator::note_primaries() {
    bool changed = false;
    for (const TailnetNode& chosen : composer_.policy()->tailnet().nodes) {
        const NodePtr& node = tailnet_.node(chosen.id);
        if (!node) continue;
        auto routes = chosen.primaries;
        std::sort(routes.begin(), routes.end());
        if (routes == node->record.primary_routes) continue;
        for (const IpPrefix& route : routes)
            if (!contains_route(node->record.primary_routes, route))
                log::info("a route has another primary router",
                          {{"route", route.text()}, {"router", node->record.given_name}});
        tailnet_.set_primary_routes(chosen.id, std::move(routes));
        changed = true;
    }
    return changed;
}

void Coordinator::on_answer(const MachineKey& machine, const std::string& token, const std::string& body) {
    for (NodeId id : tailnet_.nodes_of_machine(machine))
        if (!take_services(id, token, body)) route_watch_.on_answer(id, token, body);
}

Task<void> Coordinator::settled() {
    while ((policy_stale_ || compiling_) && !stopping_)
        (void)co_await policy_done_.wait_for(std::chrono::milliseconds{20}); // looks again anyway
}

} // namespace tailrace
