// agent/dns/effective.hpp - from what control says about DNS and what the user wants to what is in force (dns.md 2.1).
// Pure.
#pragma once
#include "agent/store/prefs.hpp"
#include "base/net.hpp"
#include "proto/control/dns.hpp"
#include "proto/control/node.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// Somebody to ask: a server of DNS, or a peer that takes questions over HTTP (RFC 8484) at this path.
struct DnsUpstream {
    Endpoint at;
    std::string path; ///< "" for DNS itself
    std::string text() const;
    bool operator==(const DnsUpstream&) const = default;
};

/// Names below a suffix ("corp.example", lower case, no dots at the ends) are asked of these; of none: we know them
/// all.
struct DnsRoute {
    std::string suffix;
    std::vector<DnsUpstream> upstreams;
    bool operator==(const DnsRoute&) const = default;
};

struct EffectiveDns {
    bool proxied = false;              ///< MagicDNS is on: names of nodes are answered without the suffix, too
    std::vector<DnsRoute> routes;      ///< the longest suffix first
    std::vector<DnsUpstream> defaults; ///< none: what the host used before us
    std::vector<IpPrefix> outside;     ///< reached past the exit node: what the host used there is not asked
    std::vector<std::string> search;   ///< "tail.example"
    std::vector<wire::DnsRecord> extra_records;
    bool install = false;           ///< the host shall ask us
    std::vector<std::string> notes; ///< for health
    bool operator==(const EffectiveDns&) const = default;
};

/// `exit_node`: the one that is chosen and there; `exit_node_chosen`: also while it is not.
EffectiveDns effective_dns(const wire::DnsConfig& config, const wire::Node& self, const Prefs& prefs,
                           const wire::Node* exit_node, bool exit_node_chosen);

/// Where a peer answers for others' names; empty when it does not.
std::optional<DnsUpstream> dns_proxy_of(const wire::Node& peer, bool v4, bool v6);
/// "8.8.8.8", "10.0.0.1:5353", "http://100.64.0.7:4000/dns-query". Other forms are an error that says so.
Result<DnsUpstream> parse_dns_upstream(std::string_view text);
/// The longest suffix that a name ("a.corp.example", lower case, no dot behind) is below or is itself.
const DnsRoute* find_dns_route(const std::vector<DnsRoute>& routes, std::string_view name);
/// Lower case, without dots at the ends.
std::string plain_dns_name(std::string_view name);

} // namespace tailrace
