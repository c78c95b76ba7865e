#include "control/routes/route_rules.hpp"

#include "base/text.hpp"

namespace tailrace {

namespace {

void sort_unique(std::vector<IpPrefix>& routes) {
    std::sort(routes.begin(), routes.end());
    routes.erase(std::unique(routes.begin(), routes.end()), routes.end());
}

} // namespace

std::vector<IpPrefix> offered_routes(std::span<const IpPrefix> said) {
    std::vector<IpPrefix> routes;
    for (const IpPrefix& route : said)
        if (route.valid()) routes.push_back(route.masked());
    sort_unique(routes);
    if (routes.size() > kMostRoutes) routes.resize(kMostRoutes);
    return routes;
}

Result<IpPrefix> parse_route(std::string_view text) {
    auto route = IpPrefix::parse(trim(text));
    if (!route || !route->valid())
        return Error::make("\"{}\" is not a route: write an address and a length, as in 10.0.0.0/8 or 2001:db8::/32",
                           text);
    if (!route->is_masked())
        return Error::make("{} has bits set after its length: the route is {}", text, route->masked().text());
    return *route;
}

std::optional<std::string> problem_of_route(const IpPrefix& route, const IpPrefix& tailnet_v4,
                                            const IpPrefix& tailnet_v6) {
    static const IpPrefix kVia = *IpPrefix::parse("fd7a:115c:a1e0:b1a::/64");
    for (const IpPrefix& own : {cgnat_prefix(), tailscale_ula_prefix(), tailnet_v4, tailnet_v6})
        if (own.valid() && own.contains(route) && !kVia.contains(route))
            return fmt::format("{} lies in {}, where the tailnet's own nodes have their addresses", route.text(),
                               own.text());
    for (const char* local : {"127.0.0.0/8", "224.0.0.0/4", "::1/128", "fe80::/10", "ff00::/8"})
        if (IpPrefix::parse(local)->contains(route))
            return fmt::format("{} lies in {}, which is never routed", route.text(), local);
    return std::nullopt;
}

std::vector<IpPrefix> with_exit_pair(std::vector<IpPrefix> routes) {
    if (std::any_of(routes.begin(), routes.end(), [](const IpPrefix& route) { return route.is_default(); }))
        for (const char* exit : {"0.0.0.0/0", "::/0"}) routes.push_back(*IpPrefix::parse(exit));
    sort_unique(routes);
    return routes;
}

} // namespace tailrace
