// What the backend has to do with routes: of ours, of others, and by an exit node.
#include "agent/backend.hpp"
#include "agent/router/ip_forwarding.hpp"

namespace tailrace {

std::string Backend::check_ip_forwarding(std::vector<IpPrefix> routes) {
    ForwardingQuestion question;
    question.routes = std::move(routes);
    auto links = engine_.links();
    if (!links) return links.error().message();
    for (const Link& link : *links) {
        if (link.name != "lo") question.interfaces.push_back(link.name);
        for (const InterfaceAddress& address : link.addresses) question.own.push_back(address.prefix.address());
    }
    return ip_forwarding_trouble(question, read_kernel_setting);
}

std::vector<std::string> Backend::check_accept_routes() {
    std::vector<const wire::Node*> peers;
    for (const auto& [id, peer] : netmap_.peers()) peers.push_back(&peer);
    return accepted_route_warnings(acceptable_routes(peers, prefs_, WallTime::now()), host_networks());
}

} // namespace tailrace
