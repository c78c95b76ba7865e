// proto/control/filter.hpp - packet filter rules in wire form (control-protocol.md 6.8). Source: tailscale
// tailcfg/tailcfg.go. What they mean is the business of policy/.
#pragma once
#include "base/json/fields.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace tailrace::wire {

/// Inclusive; 0 to 65535 is any port.
struct PortRange {
    std::uint16_t first = 0;
    std::uint16_t last = 0;
    bool operator==(const PortRange&) const = default;
};

struct NetPortRange {
    std::string ip;          ///< address, CIDR, "a-b", "*"
    std::optional<int> bits; ///< obsolete: its presence voids the whole filter
    PortRange ports;
    bool operator==(const NetPortRange&) const = default;
};

using CapMap = std::map<std::string, std::vector<RawJson>>; ///< capability -> arguments; none: just present

struct CapGrant {
    std::vector<std::string> dsts; ///< prefixes of the receiving node
    std::vector<std::string> caps; ///< old form, names only
    CapMap cap_map;
    bool operator==(const CapGrant&) const = default;
};

struct FilterRule {
    std::vector<std::string> src_ips;         ///< as NetPortRange::ip, or "cap:<node capability>"
    std::optional<std::vector<int>> src_bits; ///< obsolete: when not empty it voids the whole filter
    std::vector<NetPortRange> dst_ports;
    std::vector<int> ip_proto; ///< empty: TCP, UDP, ICMP, ICMPv6
    std::vector<CapGrant> cap_grant;
    bool operator==(const FilterRule&) const = default;
};

/// Where in the policy the next `count` elements of a rule's DstPorts are written; 0: all that are left.
struct LineSpan {
    std::uint32_t line = 0; ///< from 1; 0: nowhere
    std::uint32_t count = 0;
    bool operator==(const LineSpan&) const = default;
};
/// Of one rule. What the policy allows the same sources becomes one rule, wherever it is written.
using RuleLines = std::vector<LineSpan>;

} // namespace tailrace::wire

namespace tailrace {

template <>
struct JsonFields<wire::PortRange> {
    static constexpr auto fields =
        field_table(field("First", &wire::PortRange::first), field("Last", &wire::PortRange::last));
};

template <>
struct JsonFields<wire::NetPortRange> {
    using S = wire::NetPortRange;
    static constexpr auto fields =
        field_table(field("IP", &S::ip), field("Bits", &S::bits, Omit::Empty), field("Ports", &S::ports));
};

template <>
struct JsonFields<wire::CapGrant> {
    using S = wire::CapGrant;
    static constexpr auto fields = field_table(field("Dsts", &S::dsts), field("Caps", &S::caps, Omit::Empty),
                                               field("CapMap", &S::cap_map, Omit::Empty));
};

template <>
struct JsonFields<wire::FilterRule> {
    using S = wire::FilterRule;
    static constexpr auto fields =
        field_table(field("SrcIPs", &S::src_ips), field("SrcBits", &S::src_bits, Omit::Empty),
                    field("DstPorts", &S::dst_ports, Omit::Empty), field("IPProto", &S::ip_proto, Omit::Empty),
                    field("CapGrant", &S::cap_grant, Omit::Empty));
};

template <>
struct JsonFields<wire::LineSpan> {
    using S = wire::LineSpan;
    static constexpr auto fields =
        field_table(field("Line", &S::line, Omit::Empty), field("Count", &S::count, Omit::Empty));
};

} // namespace tailrace
