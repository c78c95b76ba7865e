// proto/control/dns.hpp - the DNS part of a netmap (control-protocol.md 6.6). Source: tailscale tailcfg/tailcfg.go,
// types/dnstype.
#pragma once
#include "base/json/fields.hpp"
#include "base/net.hpp"

#include <map>
#include <string>
#include <vector>

namespace tailrace::wire {

struct Resolver {
    std::string addr; ///< IP, IP:port, https://... (DNS over HTTPS), http://node:port/path (over the tailnet)
    std::vector<IpAddress> bootstrap_resolution;
    bool use_with_exit_node = false;
    bool operator==(const Resolver&) const = default;
};

struct DnsRecord {
    std::string name;
    std::string type; ///< "", "A" or "AAAA"
    std::string value;
    bool operator==(const DnsRecord&) const = default;
};

struct DnsConfig {
    std::vector<Resolver> resolvers;                     ///< global, instead of what the machine had
    std::map<std::string, std::vector<Resolver>> routes; ///< suffix -> resolvers; none: answer it ourselves
    std::vector<Resolver> fallback_resolvers;
    std::vector<std::string> domains; ///< search domains without trailing dot; the first is the tailnet's
    bool proxied = false;             ///< MagicDNS
    std::vector<IpAddress> nameservers;
    std::vector<std::string> cert_domains;
    std::vector<DnsRecord> extra_records;
    std::vector<std::string> exit_node_filtered_set;
    bool operator==(const DnsConfig&) const = default;
};

} // namespace tailrace::wire

namespace tailrace {

template <>
struct JsonFields<wire::Resolver> {
    using S = wire::Resolver;
    static constexpr auto fields = field_table(field("Addr", &S::addr, Omit::Empty),
                                               field("BootstrapResolution", &S::bootstrap_resolution, Omit::Empty),
                                               field("UseWithExitNode", &S::use_with_exit_node, Omit::Empty));
};

template <>
struct JsonFields<wire::DnsRecord> {
    using S = wire::DnsRecord;
    static constexpr auto fields =
        field_table(field("Name", &S::name), field("Type", &S::type, Omit::Empty), field("Value", &S::value));
};

template <>
struct JsonFields<wire::DnsConfig> {
    using S = wire::DnsConfig;
    static constexpr auto fields = field_table(
        field("Resolvers", &S::resolvers, Omit::Empty), field("Routes", &S::routes, Omit::Empty),
        field("FallbackResolvers", &S::fallback_resolvers, Omit::Empty), field("Domains", &S::domains, Omit::Empty),
        field("Proxied", &S::proxied, Omit::Empty), field("Nameservers", &S::nameservers, Omit::Empty),
        field("CertDomains", &S::cert_domains, Omit::Empty), field("ExtraRecords", &S::extra_records, Omit::Empty),
        field("ExitNodeFilteredSet", &S::exit_node_filtered_set, Omit::Empty));
};

} // namespace tailrace
