// policy/compile_routes.cpp - which routes of a peer a viewer may use, and which are approved by themselves.
#include "policy/compiled_data.hpp"

#include <algorithm>
#include <tuple>

namespace tailrace {
namespace {

bool has(const std::vector<IpPrefix>& list, const IpPrefix& route) {
    return std::find(list.begin(), list.end(), route) != list.end();
}

} // namespace

const CompiledPolicy::Data::RouteViewers& CompiledPolicy::Data::viewers_of(const Directory::SubnetRoute& route) const {
    const auto [found, is_new] = route_viewers.try_emplace({route.prefix, directory.connectors().contains(route.node)});
    auto& viewers = found->second;
    if (!is_new) return viewers;
    viewers.by_rule = viewers.by_return = viewers.routers = BitSet{directory.size()};
    for (const auto& rule : list.rules) {
        if (rule.self) continue; // between addresses of nodes only
        const bool leads_there =
            rule.kind == Rule::Kind::Ports && !rule.via &&
            std::any_of(rule.destinations.begin(), rule.destinations.end(),
                        [&](const RuleDestination& destination) { return overlaps(destination, directory, route); });
        if (leads_there) viewers.by_rule |= rule.sources->touched;
        // (A service answers, but never asks.)
        if (!rule.silent && !route.service && rule.sources->overlaps(directory, route))
            viewers.by_return |= rule.receivers;
    }
    for (const auto& other : directory.subnet_routes()) {
        if (other.prefix == route.prefix) viewers.routers.insert(other.node);
    }
    return viewers;
}

/// Who may use the internet through this exit node by rules without `via`.
const BitSet& CompiledPolicy::Data::internet_viewers(NodeIndex exit_node) const {
    const auto [found, is_new] = exit_viewers.try_emplace(exit_node, BitSet{directory.size()});
    if (!is_new) return found->second;
    for (const auto& rule : list.rules) {
        const bool leads_there = rule.kind == Rule::Kind::Ports && !rule.via && !rule.self &&
                                 rule.receivers.contains(exit_node) &&
                                 std::any_of(rule.destinations.begin(), rule.destinations.end(), is_internet);
        if (leads_there) found->second |= rule.sources->touched;
    }
    return found->second;
}

bool CompiledPolicy::Data::may_use_exit(NodeIndex viewer, NodeIndex exit_node) const {
    if (internet_viewers(exit_node).contains(viewer)) return true;
    return std::any_of(list.vias.begin(), list.vias.end(), [&](const ViaGrant& via) {
        return via.internet && via.tagged.contains(exit_node) && via.sources->touched.contains(viewer);
    });
}

/// Whether the route's node is the one that routers with the tags of `via` serve it by: of those online, the steady
/// ones rather, the one that is a router for longest.
bool CompiledPolicy::Data::leads_via_group(const ViaGrant& via, const Directory::SubnetRoute& route) const {
    const Directory::SubnetRoute* leader = nullptr;
    const auto rank = [&](const Directory::SubnetRoute& of) { // the least leads
        const auto& node = directory.node(of.node);
        return std::tuple{!node.online, node.online && !node.steady, node.router_since, node.id};
    };
    for (const auto& other : directory.subnet_routes()) {
        if (other.prefix != route.prefix || !via.tagged.contains(other.node)) continue;
        if (leader == nullptr || rank(other) < rank(*leader)) leader = &other;
    }
    return leader != nullptr && leader->node == route.node;
}

/// Routers are viewers like others: one that carries a route for its own region gets it from nobody.
bool CompiledPolicy::Data::is_primary_for(NodeIndex viewer, const Directory::SubnetRoute& route) const {
    const auto& regional = directory.tailnet().regional;
    if (const auto choices = regional.find(route.prefix); choices != regional.end()) {
        if (const auto chosen = choices->second.find(directory.node(viewer).region); chosen != choices->second.end())
            return chosen->second == directory.node(route.node).id;
    }
    return has(directory.node(route.node).primaries, route.prefix);
}

bool CompiledPolicy::Data::may_use_route(NodeIndex viewer, const Directory::SubnetRoute& route) const {
    const auto& viewers = viewers_of(route);
    const bool is_primary = is_primary_for(viewer, route);
    if (route.service && viewers.routers.contains(viewer)) return false; // who hosts a service finds it at itself
    if (is_primary && viewers.routers.contains(viewer)) return true;     // a standby knows the primary
    const bool by_rule = viewers.by_rule.contains(viewer);
    bool steered = false;
    for (const auto& via : list.vias) {
        if (!via.sources->touched.contains(viewer)) continue;
        if (std::none_of(via.destinations.begin(), via.destinations.end(),
                         [&](const RuleDestination& destination) { return overlaps(destination, directory, route); }))
            continue;
        steered = true;
        if (via.tagged.contains(route.node) && leads_via_group(via, route) && (is_primary || !by_rule)) return true;
    }
    if (!is_primary) return false;
    return by_rule || (!steered && viewers.by_return.contains(viewer));
}

/// Who may ask this app connector for names: port 53 of 0.0.0.0 is open to them.
const BitSet& CompiledPolicy::Data::name_askers(NodeIndex connector) const {
    const auto [found, is_new] = connector_askers.try_emplace(connector, BitSet{directory.size()});
    if (!is_new) return found->second;
    const auto leads_there = [](const RuleDestination& destination) {
        const bool is_wide = destination.kind == RuleDestination::Kind::Internet ||
                             destination.kind == RuleDestination::Kind::Everything;
        return is_wide && std::any_of(destination.ports.begin(), destination.ports.end(),
                                      [](PortRange ports) { return ports.contains(53); });
    };
    for (const auto& rule : list.rules) {
        const auto& protocols = rule.protocols;
        const bool is_tcp = protocols.empty() || std::find(protocols.begin(), protocols.end(), 6) != protocols.end();
        if (rule.kind == Rule::Kind::Ports && !rule.silent && !rule.self && is_tcp &&
            rule.receivers.contains(connector) &&
            std::any_of(rule.destinations.begin(), rule.destinations.end(), leads_there))
            found->second |= rule.sources->touched;
    }
    return found->second;
}

std::vector<PolicyNodeId> CompiledPolicy::connectors_for(PolicyNodeId viewer_id) const {
    std::vector<PolicyNodeId> out;
    const auto& directory = data_->directory;
    const auto viewer = directory.index_of(viewer_id);
    if (!viewer) return out;
    directory.connectors().for_each([&](std::size_t number) {
        const auto node = static_cast<NodeIndex>(number);
        if (node != *viewer && data_->name_askers(node).contains(*viewer) && data_->view(*viewer).seen.contains(node))
            out.push_back(directory.node(node).id);
    });
    return out;
}

bool CompiledPolicy::is_connector(PolicyNodeId id) const {
    const auto node = data_->directory.index_of(id);
    return node && data_->directory.connectors().contains(*node);
}

std::vector<IpPrefix> CompiledPolicy::allowed_routes(PolicyNodeId viewer_id, PolicyNodeId peer_id) const {
    const auto& directory = data_->directory;
    const auto viewer = directory.index_of(viewer_id);
    const auto peer = directory.index_of(peer_id);
    if (!viewer || !peer || directory.node(*peer).routes.empty()) return {};
    const auto& routes = directory.node(*peer).routes;
    if (*viewer == *peer) return routes;
    if (!data_->view(*viewer).seen.contains(*peer)) return {};
    std::vector<IpPrefix> allowed;
    auto subnet_route = directory.subnet_routes_of(*peer).begin();
    for (const auto& route : routes) {
        const bool may = is_exit_route(route)
                             ? data_->may_use_exit(*viewer, *peer)
                             : data_->may_use_route(*viewer, directory.subnet_routes()[*subnet_route++]);
        if (may) allowed.push_back(route);
    }
    return allowed;
}

std::vector<IpPrefix> CompiledPolicy::primary_routes(PolicyNodeId viewer, PolicyNodeId peer) const {
    if (viewer == peer) {
        const auto node = data_->directory.index_of(peer);
        if (!node) return {};
        auto own = data_->directory.node(*node).primaries;
        own.erase(std::remove_if(own.begin(), own.end(),
                                 [&](const IpPrefix& route) { return data_->directory.is_of_service(route); }),
                  own.end());
        for (const auto& [route, choices] : tailnet().regional) {
            const bool is_chosen =
                std::any_of(choices.begin(), choices.end(), [&](const auto& choice) { return choice.second == peer; });
            if (is_chosen && !has(own, route) && !data_->directory.is_of_service(route)) own.push_back(route);
        }
        return own;
    }
    auto routes = allowed_routes(viewer, peer); // only a primary hands out its subnet routes
    routes.erase(std::remove_if(routes.begin(), routes.end(),
                                [&](const IpPrefix& route) {
                                    return is_exit_route(route) || data_->directory.is_of_service(route);
                                }),
                 routes.end());
    return routes;
}

std::vector<const TailnetService*> CompiledPolicy::services_of(PolicyNodeId id) const {
    const auto node = data_->directory.index_of(id);
    std::vector<const TailnetService*> hosted;
    for (const auto& service : tailnet().services) {
        const bool hosts = node && std::any_of(service.addresses.begin(), service.addresses.end(), [&](const auto& ip) {
                               return has(data_->directory.node(*node).routes, IpPrefix::single(ip));
                           });
        if (hosts) hosted.push_back(&service);
    }
    return hosted;
}

std::vector<const TailnetService*> CompiledPolicy::services_for(PolicyNodeId id) const {
    if (tailnet().services.empty()) return {};
    auto found = services_of(id);
    const auto viewer = data_->directory.index_of(id);
    if (!viewer) return {};
    for (const auto& route : data_->directory.subnet_routes()) {
        if (!route.service || !data_->view(*viewer).seen.contains(route.node) || !data_->may_use_route(*viewer, route))
            continue;
        const auto* service = &tailnet().services[*route.service];
        if (std::find(found.begin(), found.end(), service) == found.end()) found.push_back(service);
    }
    std::sort(found.begin(), found.end());
    return found;
}

std::vector<IpAddress> CompiledPolicy::addresses(PolicyNodeId viewer_id, PolicyNodeId peer_id) const {
    const auto& directory = data_->directory;
    const auto viewer = directory.index_of(viewer_id);
    const auto peer = directory.index_of(peer_id);
    if (!viewer || !peer) return {};
    auto addresses = directory.node(*peer).addresses;
    if (directory.is_without_ipv4(*peer) || directory.is_without_ipv4(*viewer))
        addresses.erase(std::remove_if(addresses.begin(), addresses.end(),
                                       [](const IpAddress& address) { return address.is_v4(); }),
                        addresses.end());
    return addresses;
}

bool CompiledPolicy::approves_route(PolicyNodeId id, const IpPrefix& route) const {
    const auto node = data_->directory.index_of(id);
    if (!node) return false;
    const auto& approvers = data_->document->auto_approvers;
    const auto any_matches = [&](const std::vector<Selector>& selectors) {
        return std::any_of(selectors.begin(), selectors.end(), [&](const Selector& selector) {
            return data_->directory.nodes_matching(selector).contains(*node);
        });
    };
    if (is_exit_route(route)) return any_matches(approvers.exit_node);
    return std::any_of(approvers.routes.begin(), approvers.routes.end(),
                       [&](const auto& entry) { return entry.first.contains(route) && any_matches(entry.second); });
}

bool CompiledPolicy::approves_service(PolicyNodeId id, std::string_view service,
                                      const std::vector<std::string>& service_tags) const {
    const auto node = data_->directory.index_of(id);
    if (!node) return false;
    const auto& services = data_->document->auto_approvers.services;
    return std::any_of(services.begin(), services.end(), [&](const auto& entry) {
        const bool meant = entry.first == service ||
                           std::find(service_tags.begin(), service_tags.end(), entry.first) != service_tags.end();
        return meant && std::any_of(entry.second.begin(), entry.second.end(), [&](const Selector& selector) {
                   return data_->directory.nodes_matching(selector).contains(*node);
               });
    });
}

} // namespace tailrace
