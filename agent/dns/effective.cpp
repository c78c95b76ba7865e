#include "agent/dns/effective.hpp"

#include "base/text.hpp"
#include "proto/dns_query.hpp"

#include <algorithm>

namespace tailrace {
namespace {

constexpr const char* kProxyPath = "/dns-query";
constexpr int kFirstProxyVersion = 26; // capability version. Source: tailscale ipn/ipnlocal/local.go

std::vector<DnsUpstream> upstreams_of(const std::vector<wire::Resolver>& resolvers, bool only_with_exit_node,
                                      std::vector<std::string>& notes) {
    std::vector<DnsUpstream> out;
    for (const wire::Resolver& resolver : resolvers) {
        if (only_with_exit_node && !resolver.use_with_exit_node) continue;
        auto upstream = parse_dns_upstream(resolver.addr);
        if (upstream)
            out.push_back(*upstream);
        else
            notes.push_back(fmt::format("A resolver of the tailnet is not used: {}.", upstream.error().message()));
    }
    return out;
}

std::size_t labels_in(std::string_view name) {
    return name.empty() ? 0 : 1 + static_cast<std::size_t>(std::ranges::count(name, '.'));
}

void sort_routes(std::vector<DnsRoute>& routes) {
    std::ranges::stable_sort(
        routes, [](const DnsRoute& a, const DnsRoute& b) { return labels_in(a.suffix) > labels_in(b.suffix); });
}

/// The zones of addresses of a tailnet. Source: dns.md 2.1, 5.
std::vector<std::string> reverse_zones() {
    std::vector<std::string> out{"0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa"};
    for (int second = 64; second < 128; ++second) out.push_back(fmt::format("{}.100.in-addr.arpa", second));
    return out;
}

std::string suffix_of(const wire::Node& self) {
    std::string name = plain_dns_name(self.name);
    auto dot = name.find('.');
    return dot == std::string::npos ? std::string{} : name.substr(dot + 1);
}

} // namespace

std::string DnsUpstream::text() const {
    if (!path.empty()) return fmt::format("http://{}{}", at.text(), path);
    return at.port == kDnsPort ? at.address.text() : at.text();
}

std::string plain_dns_name(std::string_view name) {
    while (!name.empty() && name.back() == '.') name.remove_suffix(1);
    while (!name.empty() && name.front() == '.') name.remove_prefix(1);
    return to_lower(name);
}

Result<DnsUpstream> parse_dns_upstream(std::string_view text) {
    constexpr std::string_view kHttp = "http://";
    if (text.starts_with(kHttp)) {
        std::string_view rest = text.substr(kHttp.size());
        auto slash = rest.find('/');
        auto at = Endpoint::parse(rest.substr(0, slash));
        if (slash == std::string_view::npos || !at || !at->valid() || at->port == 0)
            return Error::make("\"{}\" has no address, port and path", text);
        return DnsUpstream{*at, std::string{rest.substr(slash)}};
    }
    if (text.find("://") != std::string_view::npos)
        return Error::make("\"{}\": only addresses are asked, not resolvers over TLS", text);
    if (auto address = IpAddress::parse(text); address && address->valid())
        return DnsUpstream{{*address, kDnsPort}, {}};
    auto at = Endpoint::parse(text);
    if (!at || !at->valid() || at->port == 0) return Error::make("\"{}\" is no address of a resolver", text);
    return DnsUpstream{*at, {}};
}

std::optional<DnsUpstream> dns_proxy_of(const wire::Node& peer, bool v4, bool v6) {
    std::uint16_t port4 = 0, port6 = 0;
    bool speaks = peer.cap >= kFirstProxyVersion;
    for (const wire::Service& service : peer.hostinfo.value.services) {
        if (service.proto == "peerapi4") port4 = service.port;
        if (service.proto == "peerapi6") port6 = service.port;
        if (service.proto == "peerapi-dns-proxy" && service.port >= 1) speaks = true;
    }
    if (!speaks) return std::nullopt;
    for (const IpPrefix& prefix : peer.addresses) {
        const IpAddress& address = prefix.address();
        std::uint16_t port = address.is_v4() ? port4 : port6;
        if (port != 0 && (address.is_v4() ? v4 : v6)) return DnsUpstream{{address, port}, kProxyPath};
    }
    return std::nullopt;
}

const DnsRoute* find_dns_route(const std::vector<DnsRoute>& routes, std::string_view name) {
    for (const DnsRoute& route : routes) {
        const std::string& suffix = route.suffix;
        if (suffix.empty() || name == suffix) return &route;
        if (name.size() > suffix.size() && name.ends_with(suffix) && name[name.size() - suffix.size() - 1] == '.')
            return &route;
    }
    return nullptr;
}

EffectiveDns effective_dns(const wire::DnsConfig& config, const wire::Node& self, const Prefs& prefs,
                           const wire::Node* exit_node, bool exit_node_chosen) {
    EffectiveDns out;
    out.proxied = config.proxied;
    out.extra_records = config.extra_records;
    if (!prefs.corp_dns) return out;
    for (const std::string& domain : config.domains)
        if (std::string name = plain_dns_name(domain); !name.empty()) out.search.push_back(std::move(name));
    auto add = [&](std::string suffix, std::vector<DnsUpstream> upstreams) {
        bool known = std::ranges::any_of(out.routes, [&](const DnsRoute& route) { return route.suffix == suffix; });
        if (!known) out.routes.push_back({std::move(suffix), std::move(upstreams)});
    };

    bool v4 = false, v6 = false;
    for (const IpPrefix& address : self.addresses) (address.address().is_v4() ? v4 : v6) = true;
    auto proxy = exit_node != nullptr ? dns_proxy_of(*exit_node, v4, v6) : std::nullopt;
    for (const auto& [name, resolvers] : config.routes) {
        auto upstreams = upstreams_of(resolvers, proxy.has_value(), out.notes);
        if (resolvers.empty() || !upstreams.empty()) add(plain_dns_name(name), std::move(upstreams));
    }
    if (config.proxied) {
        if (std::string suffix = suffix_of(self); !suffix.empty()) add(std::move(suffix), {});
        for (std::string& zone : reverse_zones()) add(std::move(zone), {});
    }
    if (proxy) {
        out.defaults = upstreams_of(config.resolvers, true, out.notes);
        if (out.defaults.empty()) out.defaults = {*proxy};
    } else {
        out.defaults = upstreams_of(config.resolvers, false, out.notes);
        if (out.defaults.empty() && exit_node != nullptr && exit_node->is_wireguard_only)
            out.defaults = upstreams_of(exit_node->exit_node_dns_resolvers, false, out.notes);
        if (out.defaults.empty() && exit_node_chosen)
            out.defaults = upstreams_of(config.fallback_resolvers, false, out.notes);
    }
    sort_routes(out.routes);
    for (const wire::DnsRecord& record : config.extra_records)
        if (std::string name = plain_dns_name(record.name); !name.empty() && !find_dns_route(out.routes, name))
            out.routes.push_back({std::move(name), {}});
    sort_routes(out.routes);
    out.install = !out.routes.empty() || !out.defaults.empty() || !out.search.empty();
    return out;
}

} // namespace tailrace
