#include "agent/router/accepted_routes.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

namespace tailrace {
namespace {

constexpr std::size_t kMostSentences = 5;
constexpr double kMuch = 0.5; // of all addresses of a family

/// How much of its family the prefixes cover together, 0 to 1.
double share_of(std::vector<IpPrefix> prefixes) {
    std::ranges::sort(prefixes, [](const IpPrefix& a, const IpPrefix& b) {
        return std::tuple{a.address(), a.bits()} < std::tuple{b.address(), b.bits()};
    });
    double share = 0;
    const IpPrefix* last = nullptr;
    for (const IpPrefix& prefix : prefixes) {
        if (last != nullptr && last->contains(prefix.address())) continue; // sorted: it is inside
        share += std::pow(2.0, -prefix.bits());
        last = &prefix;
    }
    return share;
}

} // namespace

std::vector<std::string> accepted_route_warnings(const std::vector<AcceptedRoute>& routes,
                                                 const std::vector<HostNetwork>& networks) {
    std::vector<std::string> out;
    std::size_t more = 0;
    auto say = [&](std::string text) {
        if (out.size() < kMostSentences)
            out.push_back(std::move(text));
        else
            ++more;
    };
    std::set<std::pair<IpPrefix, IpPrefix>> told; // two addresses of one network are one matter
    for (const HostNetwork& network : networks) {
        if (network.loopback || network.prefix.is_single() || is_tailscale_address(network.prefix.address()) ||
            network.prefix.address().is_link_local())
            continue;
        const IpPrefix attached = network.prefix.masked();
        for (const AcceptedRoute& route : routes) {
            const bool covers = route.prefix.contains(attached.address()) && route.prefix.bits() <= attached.bits();
            const bool is_part = attached.contains(route.prefix.address()) && route.prefix.bits() > attached.bits();
            if ((!covers && !is_part) || !told.insert({route.prefix, attached}).second) continue;
            say(fmt::format(
                "The accepted route {} of {} covers {}{} of {}: this host reaches {} through the tunnel, not "
                "directly. To go on as before, run \"tailrace set --accept-routes=false\", or take the "
                "route back on {}.",
                route.prefix.text(), route.router, is_part ? "a part of the network " : "the network ", attached.text(),
                network.interface, is_part ? route.prefix.text() : attached.text(), route.router));
        }
    }
    for (bool v6 : {false, true}) {
        std::map<std::string, std::vector<IpPrefix>> by_router;
        std::vector<IpPrefix> all;
        for (const AcceptedRoute& route : routes)
            if (route.prefix.address().is_v6() == v6 && !route.prefix.is_default()) {
                by_router[route.router].push_back(route.prefix);
                all.push_back(route.prefix);
            }
        if (share_of(all) < kMuch) continue;
        std::string who;
        for (const auto& [router, prefixes] : by_router)
            if (share_of(prefixes) >= kMuch / 2) who += (who.empty() ? "" : ", ") + router;
        say(fmt::format(
            "The accepted routes of {} are together half of all {} addresses or more: most internet traffic of "
            "this host goes there, though no exit node was chosen.",
            who.empty() ? "several nodes" : who, v6 ? "IPv6" : "IPv4"));
    }
    if (more > 0) out.push_back(fmt::format("And {} more accepted routes cover networks of this host.", more));
    return out;
}

} // namespace tailrace
