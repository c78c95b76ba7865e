#include "agent/router/accepted_routes.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

namespace tailrace {
namespace {

constexpr std::size_t kMostSentences = 5;
constexpr double kMuch = 0.5; // of all addresses of the internet of a family

/// How much of the internet of their family the prefixes cover together, 0 to 1. That of IPv6 is 2000::/3 (RFC 4291
/// 2.4).
double share_of(std::vector<IpPrefix> prefixes) {
    static const IpPrefix global6 = *IpPrefix::parse("2000::/3");
    for (IpPrefix& prefix : prefixes)
        if (prefix.address().is_v6() && prefix.contains(global6.address()) && prefix.bits() < global6.bits())
            prefix = global6;
    std::erase_if(prefixes, [&](const IpPrefix& prefix) {
        return prefix.address().is_v6() && !global6.contains(prefix.address());
    });
    const bool v6 = !prefixes.empty() && prefixes.front().address().is_v6();
    std::ranges::sort(prefixes, [](const IpPrefix& a, const IpPrefix& b) {
        return std::tuple{a.address(), a.bits()} < std::tuple{b.address(), b.bits()};
    });
    double share = 0;
    const IpPrefix* last = nullptr;
    for (const IpPrefix& prefix : prefixes) {
        if (last != nullptr && last->contains(prefix.address())) continue; // sorted: it is inside
        share += std::pow(2.0, (v6 ? global6.bits() : 0) - prefix.bits());
        last = &prefix;
    }
    return share;
}

/// Whether people mean this one when they speak of the networks that a host is attached to.
bool is_attached(const HostNetwork& network) {
    const IpAddress& address = network.prefix.address();
    return network.in_use && !network.loopback && !network.prefix.is_single() && !is_tailscale_address(address) &&
           !address.is_link_local();
}

bool covers(const IpPrefix& route, const IpPrefix& attached) {
    return route.contains(attached.address()) && route.bits() <= attached.bits();
}

bool is_within(const IpPrefix& route, const IpPrefix& attached) {
    return attached.contains(route.address()) && route.bits() >= attached.bits();
}

} // namespace

AttachedFirst keep_attached(const std::vector<AcceptedRoute>& routes, const std::vector<HostNetwork>& networks) {
    std::set<IpPrefix> kept_out, left_out;
    for (const HostNetwork& network : networks) {
        if (!is_attached(network)) continue;
        const IpPrefix attached = network.prefix.masked();
        for (const AcceptedRoute& route : routes) {
            if (is_within(route.prefix, attached)) left_out.insert(route.prefix);
            if (covers(route.prefix, attached)) kept_out.insert(attached);
        }
    }
    return {{kept_out.begin(), kept_out.end()}, {left_out.begin(), left_out.end()}};
}

std::vector<std::string> accepted_route_warnings(const std::vector<AcceptedRoute>& routes,
                                                 const std::vector<HostNetwork>& networks, AttachedBy by,
                                                 std::string_view cure) {
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
        if (!is_attached(network)) continue;
        const IpPrefix attached = network.prefix.masked();
        for (const AcceptedRoute& route : routes) {
            const bool is_all = covers(route.prefix, attached);
            if (!is_all && !is_within(route.prefix, attached)) continue;
            if (!told.insert({route.prefix, attached}).second) continue;
            const std::string claimed =
                fmt::format("The accepted route {} of {} covers {}{} of {}", route.prefix.text(), route.router,
                            is_all ? "the network " : "a part of the network ", attached.text(), network.interface);
            const std::string what = is_all ? attached.text() : route.prefix.text();
            if (by == AttachedBy::Host)
                say(fmt::format("{}: this host goes on reaching {} directly, not through the tunnel. Where that is "
                                "another network than the one behind {}, \"tailrace set --routes-over-lan\" leads to "
                                "that one, and whoever works on this host from {} is cut off.",
                                claimed, what, route.router, attached.text()));
            else
                say(fmt::format("{}: this host reaches {} through the tunnel, not directly. To reach it directly, run "
                                "\"tailrace set {}\", or take the route back on {}.",
                                claimed, what, cure, route.router));
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
            "The accepted routes of {} are together half of all {} addresses of the internet or more: most of this "
            "host's traffic with it goes there, though no exit node was chosen. Take the routes back there, or run "
            "\"tailrace set --accept-routes=false\" here.",
            who.empty() ? "several nodes" : who, v6 ? "IPv6" : "IPv4"));
    }
    if (more > 0) out.push_back(fmt::format("And {} more accepted routes cover networks of this host.", more));
    return out;
}

} // namespace tailrace
