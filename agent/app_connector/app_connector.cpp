#include "agent/app_connector/app_connector.hpp"
#include "agent/router/via6.hpp"
#include "base/json/json.hpp"
#include "base/text.hpp"
#include "proto/dns_message.hpp"

#include <algorithm>

namespace tailrace {

namespace {

constexpr std::uint16_t kInternet = 1; // the class of RFC 1035 3.2.4

template <typename T>
void sort_unique(std::vector<T>& list) {
    std::ranges::sort(list);
    list.erase(std::unique(list.begin(), list.end()), list.end());
}

bool is_below(std::string_view name, std::string_view suffix) {
    return name.size() > suffix.size() + 1 && name.ends_with(suffix) && name[name.size() - suffix.size() - 1] == '.';
}

/// Source: tailscale ipn/ipnlocal/local.go, allowedAutoRoute. A prefix that begins at zero is everything, or nothing.
bool may_offer(const IpPrefix& route) {
    static const std::vector<IpPrefix> never = {*IpPrefix::parse("::1/128"), *IpPrefix::parse("127.0.0.0/8"),
                                                *IpPrefix::parse("224.0.0.0/4"), *IpPrefix::parse("ff00::/8")};
    return route.valid() && route.is_masked() && !route.address().is_unspecified() &&
           std::ranges::none_of(never, [&](const IpPrefix& other) { return other.overlaps(route); }) &&
           check_via(route);
}

/// Names are others' to fill in. One that led to a node of the tailnet would take the node's traffic away from it, and
/// one that led to what is near the connector only (cloud metadata) would give that away; the reference client offers
/// them.
bool may_learn(const IpAddress& address) {
    return may_offer(IpPrefix::single(address)) && address == address.unmapped() && !address.is_link_local() &&
           !cgnat_prefix().contains(address) && !tailscale_ula_prefix().contains(address) &&
           address != IpAddress::v4(0xffffffff);
}

bool is_covered(const IpPrefix& route, const std::vector<IpPrefix>& by) {
    return std::ranges::any_of(by, [&](const IpPrefix& other) { return !other.is_default() && other.contains(route); });
}

} // namespace

Result<AppConnectorConfig> app_connector_config(const std::vector<RawJson>& values,
                                                const std::vector<std::string>& tags) {
    AppConnectorConfig out;
    for (const RawJson& value : values) {
        auto entry = parse_app_connector_entry(value.text);
        if (!entry) return entry.error().with("{}", kAppConnectorsCap);
        if (!entry->means(tags)) continue;
        for (const std::string& domain : entry->domains)
            if (std::string name = plain_domain(domain); !name.empty()) out.domains.push_back(std::move(name));
        for (const std::string& text : entry->routes) {
            auto route = IpPrefix::parse(text);
            if (!route) return route.error().with("{}: routes", kAppConnectorsCap);
            if (may_offer(*route)) out.routes.push_back(*route);
        }
    }
    sort_unique(out.domains);
    sort_unique(out.routes);
    return out;
}

Result<AppConnectorRoutes> parse_app_connector_routes(std::string_view text) {
    return json::parse<AppConnectorRoutes>(text);
}
std::string write_app_connector_routes(const AppConnectorRoutes& routes) {
    return json::write(routes);
}

void AppConnector::restore(AppConnectorRoutes routes) {
    *this = AppConnector{};
    std::erase_if(routes.control, [](const IpPrefix& route) { return !may_offer(route); });
    routes_.control = std::move(routes.control);
    sort_unique(routes_.control);
    routes_.wildcards = std::move(routes.wildcards);
    for (const auto& [name, addresses] : routes.domains) {
        if (routes_.domains.size() >= kMostNames) break;
        routes_.domains[name];
        for (const IpAddress& address : addresses) learn(name, address);
    }
}

void AppConnector::configure(const AppConnectorConfig& config, bool take_back) {
    if (take_back)
        for (const IpPrefix& route : routes_.control)
            if (std::ranges::find(config.routes, route) == config.routes.end()) withdrawn_.insert(route);
    routes_.control = config.routes;

    auto before = std::exchange(routes_.domains, {});
    routes_.wildcards.clear();
    addresses_ = 0;
    for (const std::string& domain : config.domains)
        if (domain.starts_with("*."))
            routes_.wildcards.push_back(domain.substr(2));
        else if (routes_.domains.size() < kMostNames)
            routes_.domains[domain];
    for (auto& [name, addresses] : before) {
        const bool stays =
            routes_.domains.contains(name) || (below_wildcard(name) && routes_.domains.size() < kMostNames);
        if (stays) {
            addresses_ += addresses.size();
            routes_.domains[name] = std::move(addresses);
        } else if (take_back) {
            for (const IpAddress& address : addresses) withdrawn_.insert(IpPrefix::single(address));
        }
    }
    for (const auto& [name, addresses] : routes_.domains) // another name has it still
        for (const IpAddress& address : addresses) withdrawn_.erase(IpPrefix::single(address));
    for (const IpPrefix& route : routes_.control) withdrawn_.erase(route);
}

bool AppConnector::below_wildcard(std::string_view name) const {
    return std::ranges::any_of(routes_.wildcards, [&](const std::string& suffix) { return is_below(name, suffix); });
}

std::string AppConnector::routed_name(std::string name, const Aliases& aliases) {
    for (std::size_t i = 0; i <= kMostAliases; ++i) {
        if (routes_.domains.contains(name)) return name;
        if (below_wildcard(name)) {
            if (routes_.domains.size() >= kMostNames) return "";
            routes_.domains[name];
            return name;
        }
        auto next = aliases.find(name);
        if (next == aliases.end()) break;
        name = next->second;
    }
    return "";
}

bool AppConnector::learn(const std::string& name, const IpAddress& address) {
    if (addresses_ >= kMostAddresses || !may_learn(address)) return false;
    auto& known = routes_.domains[name];
    auto at = std::ranges::lower_bound(known, address);
    if (at != known.end() && *at == address) return false;
    known.insert(at, address);
    ++addresses_;
    withdrawn_.erase(IpPrefix::single(address));
    return true;
}

bool AppConnector::observe(BytesView message) {
    auto answer = parse_dns_answer(message);
    if (!answer) return false;
    Aliases aliases;
    for (const DnsRecordText& record : answer->answers)
        if (record.dns_class == kInternet && record.type == dns_type::kCname)
            aliases[plain_domain(record.body)] = plain_domain(record.name);
    bool is_new = false;
    for (const DnsRecordText& record : answer->answers) {
        if (record.dns_class != kInternet || (record.type != dns_type::kA && record.type != dns_type::kAaaa)) continue;
        auto address = IpAddress::parse(record.body);
        if (!address || !may_learn(*address)) continue;
        std::string name = routed_name(plain_domain(record.name), aliases);
        if (!name.empty() && learn(name, *address)) is_new = true;
    }
    return is_new;
}

void AppConnector::forget_learned() {
    for (auto& [name, addresses] : routes_.domains) addresses.clear();
    addresses_ = 0;
    withdrawn_.clear();
}

std::vector<IpPrefix> AppConnector::routes_beside(std::vector<IpPrefix> current) const {
    std::set<IpPrefix> learned;
    for (const auto& [name, addresses] : routes_.domains)
        for (const IpAddress& address : addresses) learned.insert(IpPrefix::single(address));
    std::erase_if(current, [&](const IpPrefix& route) {
        const bool is_kept = std::ranges::binary_search(routes_.control, route);
        return withdrawn_.contains(route) ||
               (!is_kept && learned.contains(route) && is_covered(route, routes_.control));
    });
    std::set<IpPrefix> offered{current.begin(), current.end()};
    auto wide = current; // those that may cover others
    std::erase_if(wide, [](const IpPrefix& route) { return route.is_single() || route.is_default(); });
    auto add = [&](const IpPrefix& route) {
        if (offered.contains(route) || is_covered(route, wide)) return;
        offered.insert(route);
        current.push_back(route);
        if (!route.is_single()) wide.push_back(route);
    };
    for (const IpPrefix& route : routes_.control) add(route);
    for (const IpPrefix& route : learned) add(route);
    return current;
}

} // namespace tailrace
