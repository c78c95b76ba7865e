// Decides what has to change. Pure.
#include "netlink/router.hpp"

#include <algorithm>
#include <map>
#include <set>

namespace tailrace {
namespace {

bool contains(const std::vector<PolicyRule>& rules, const PolicyRule& rule) {
    return std::find(rules.begin(), rules.end(), rule) != rules.end();
}

void diff_addresses(const RouterState& current, const RouterConfig& wanted, bool v6, RouterChanges& changes) {
    const std::set<IpPrefix> want(wanted.addresses.begin(), wanted.addresses.end());
    const std::set<IpPrefix> quiet(wanted.quiet_addresses.begin(), wanted.quiet_addresses.end());
    const std::set<IpPrefix> have(current.addresses.begin(), current.addresses.end());
    auto add_missing = [&](const std::set<IpPrefix>& from, std::vector<IpPrefix>& to) {
        for (const auto& address : from)
            if (!have.contains(address) && (v6 || address.address().is_v4())) to.push_back(address);
    };
    add_missing(want, changes.add_addresses);
    add_missing(quiet, changes.add_quiet_addresses);
    for (const auto& address : have) {
        if (want.contains(address) || quiet.contains(address) || (!v6 && address.address().is_v6())) continue;
        const bool ours = std::any_of(wanted.own_ranges.begin(), wanted.own_ranges.end(),
                                      [&](const IpPrefix& range) { return range.contains(address.address()); });
        if (ours) changes.remove_addresses.push_back(address);
    }
}

void diff_routes(const RouterState& current, const RouterConfig& wanted, int device_index, const Ipv6Support& ipv6,
                 RouterChanges& changes) {
    using Key = std::pair<IpPrefix, std::uint32_t>; // two with another metric stand beside each other
    auto is_ours_to_touch = [&](const Route& route) {
        if (route.destination.address().is_v4() || ipv6.available) return true;
        return ipv6.present && route.type != RouteType::Unicast;
    };
    // "Never into the device" wins where a prefix is in both lists.
    std::map<Key, Route> want;
    auto add = [&](const IpPrefix& prefix, RouteType type, int index, std::uint32_t metric) {
        Route route{prefix.masked(), type, index, metric};
        if (is_ours_to_touch(route)) want[{route.destination, metric}] = route;
    };
    for (const auto& prefix : wanted.routes) add(prefix, RouteType::Unicast, device_index, 0);
    for (const auto& prefix : wanted.throw_routes) add(prefix, RouteType::Throw, 0, 0);
    if (wanted.closed)
        for (const auto& everything : {IpPrefix{IpAddress::v4(0), 0}, IpPrefix{IpAddress::v6({}), 0}})
            add(everything, RouteType::Unreachable, 0, kClosedMetric);

    std::set<Key> right;
    for (const auto& route : current.routes) {
        if (!is_ours_to_touch(route)) continue;
        const Key key{route.destination, route.metric};
        auto entry = want.find(key);
        if (entry != want.end() && entry->second == route && right.insert(key).second) continue;
        if (route.type == RouteType::Unicast && route.device_index != device_index) continue; // not ours
        changes.remove_routes.push_back(route);
    }
    for (const auto& [key, route] : want)
        if (!right.contains(key)) changes.add_routes.push_back(route);
    // Adding replaces, so what stands at the same destination is gone by then.
    std::erase_if(changes.remove_routes, [&](const Route& route) {
        const Key key{route.destination, route.metric};
        return want.contains(key) && !right.contains(key);
    });
    // What refuses comes first and goes last: at no moment is there neither the tunnel nor a refusal. Likewise what is
    // kept out of the tunnel: at no moment is it in there.
    auto keeps_out = [](const Route& route) { return route.type != RouteType::Unicast; };
    auto& added = changes.add_routes;
    auto& removed = changes.remove_routes;
    std::stable_partition(added.begin(), added.end(), keeps_out);
    std::stable_partition(removed.begin(), removed.end(), [&](const Route& route) { return !keeps_out(route); });
}

void diff_rules(const RouterState& current, bool v6, RouterChanges& changes) {
    const auto want = tailnet_rules(v6);
    std::vector<PolicyRule> seen;
    for (const auto& rule : current.rules) {
        if (rule.v6 != v6) continue;
        if (contains(want, rule) && !contains(seen, rule)) {
            seen.push_back(rule);
            continue;
        }
        const bool leftover = rule.plain && std::any_of(want.begin(), want.end(), [&](const PolicyRule& ours) {
                                  return rule.priority == ours.priority && rule.table == ours.table &&
                                         rule.unreachable == ours.unreachable;
                              });
        if (leftover) changes.remove_rules.push_back(rule);
    }
    for (const auto& rule : want)
        if (!contains(seen, rule)) changes.add_rules.push_back(rule);
}

} // namespace

std::string_view text(RouteType type) {
    switch (type) {
    case RouteType::Unicast:
        return "unicast";
    case RouteType::Throw:
        return "throw";
    case RouteType::Unreachable:
        return "unreachable";
    case RouteType::Prohibit:
        return "prohibit";
    case RouteType::Blackhole:
        return "blackhole";
    }
    return "unknown";
}

std::string Route::text() const {
    if (type == RouteType::Unicast) return fmt::format("{} by link {}", destination.text(), device_index);
    std::string behind = metric == 0 ? "" : fmt::format(" metric {}", metric);
    return fmt::format("{} {}{}", tailrace::text(type), destination.text(), behind);
}

std::string PolicyRule::text() const {
    std::string selector = mask != 0 ? fmt::format("fwmark 0x{:x}/0x{:x}", mark, mask) : std::string{"all"};
    if (!plain) selector += " and more";
    return fmt::format("{} rule {}: {} {}", v6 ? "IPv6" : "IPv4", priority, selector,
                       unreachable ? "unreachable" : fmt::format("lookup {}", table));
}

std::vector<PolicyRule> tailnet_rules(bool v6) {
    constexpr std::uint32_t kMainTable = 254;
    constexpr std::uint32_t kDefaultTable = 253;
    return {
        {v6, kRuleBase + 10, kBypassMark, kFwmarkMask, kMainTable, false, true},
        {v6, kRuleBase + 30, kBypassMark, kFwmarkMask, kDefaultTable, false, true},
        {v6, kRuleBase + 50, kBypassMark, kFwmarkMask, 0, true, true},
        {v6, kRuleBase + 70, 0, 0, kRoutingTable, false, true},
    };
}

std::vector<IpPrefix> RouterConfig::default_own_ranges() {
    return {cgnat_prefix(), tailscale_ula_prefix()};
}

bool RouterChanges::empty() const {
    return size() == 0;
}

std::size_t RouterChanges::size() const {
    return add_addresses.size() + add_quiet_addresses.size() + remove_addresses.size() + add_routes.size() +
           remove_routes.size() + add_rules.size() + remove_rules.size();
}

RouterChanges diff(const RouterState& current, const RouterConfig& wanted, int device_index, const Ipv6Support& ipv6) {
    RouterChanges changes;
    diff_addresses(current, wanted, ipv6.available, changes);
    diff_routes(current, wanted, device_index, ipv6, changes);
    diff_rules(current, false, changes);
    if (ipv6.available || (ipv6.present && wanted.closed)) diff_rules(current, true, changes);
    return changes;
}

} // namespace tailrace
