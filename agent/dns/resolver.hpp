// agent/dns/resolver.hpp - knows the names of the tailnet, and whom to ask about all others (dns.md 3, 4.1). Pure.
#pragma once
#include "agent/dns/effective.hpp"
#include "base/time.hpp"
#include "proto/dns_message.hpp"

#include <string>
#include <unordered_map>
#include <unordered_set>
#include <variant>
#include <vector>

namespace tailrace {

struct DnsNode {
    std::string name; ///< as control writes it: "peer.tail.example."
    std::vector<IpAddress> addresses;
    bool with_subdomains = false; ///< any name below its own is its own, too
};

class DnsResolver {
public:
    struct Names {
        std::vector<DnsNode> nodes;     ///< this one first: it says what the suffix is
        bool ipv6_beside_ipv4 = false;  ///< also AAAA for nodes that have both. Node attribute magicdns-aaaa
        std::vector<IpAddress> service; ///< where we answer
    };
    /// Ask these; an empty list is nobody.
    struct Forward {
        std::vector<DnsUpstream> upstreams;
    };
    using Verdict = std::variant<Bytes, Forward>;

    /// `defaults`: for names that no route covers.
    DnsResolver(EffectiveDns dns, Names names, std::vector<DnsUpstream> defaults);

    /// Empty bytes: say nothing.
    Verdict resolve(BytesView query, const WallTime& now) const;
    const std::string& suffix() const { return suffix_; }
    const std::vector<DnsUpstream>& upstreams_for(std::string_view name) const;

private:
    using Addresses = std::vector<IpAddress>;
    const Addresses* find(const std::string& name) const;
    Bytes answer(BytesView query, const DnsQuery& question, const std::string& name, const Addresses& addresses,
                 const WallTime& now) const;
    Verdict resolve_pointer(BytesView query, const std::string& name, const WallTime& now) const;
    Bytes negative(BytesView query, const std::string& name, DnsResult result, const WallTime& now) const;
    std::string zone_of(const std::string& name) const;

    EffectiveDns dns_;
    std::vector<DnsUpstream> defaults_;
    std::string suffix_;
    std::unordered_map<std::string, Addresses> names_;
    std::unordered_map<IpAddress, std::string> pointers_; ///< with a dot behind
    std::unordered_set<std::string> with_subdomains_;
};

/// "1.0.64.100.in-addr.arpa", "....ip6.arpa": the address; the zero value when the name is none of these.
IpAddress address_of_pointer(std::string_view name);
/// "10-1-1-16-via-7", alone or below ts.net or tailscale.net: its address; the zero value when it is none.
IpAddress via_address(std::string_view name);

} // namespace tailrace
