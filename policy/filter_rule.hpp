// policy/filter_rule.hpp
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace tailrace {

/// Both ends included; 0-65535 is "every port".
struct PortRange {
    std::uint16_t first = 0;
    std::uint16_t last = 65535;

    static constexpr PortRange all() { return {0, 65535}; }
    constexpr bool is_all() const { return first == 0 && last == 65535; }
    constexpr bool contains(std::uint16_t port) const { return first <= port && port <= last; }
    friend constexpr bool operator==(const PortRange&, const PortRange&) = default;
};

/// One element of a rule's DstPorts.
struct FilterDestination {
    std::string ip; ///< address | prefix without host bits | first-last | *
    PortRange ports;
    bool has_bits = false; ///< the obsolete "Bits" was present: the whole filter is refused

    friend bool operator==(const FilterDestination&, const FilterDestination&) = default;
};

/// One element of a rule's CapGrant: never lets a packet in, the agent answers capability questions from it.
struct CapGrant {
    std::vector<std::string> dsts; ///< prefixes
    std::vector<std::string> caps; ///< legacy: names without values
    std::map<std::string, std::optional<std::vector<std::string>>>
        cap_map; ///< name -> values, each one JSON text; none is null

    friend bool operator==(const CapGrant&, const CapGrant&) = default;
};

/// One rule of a node's packet filter, as it is on the wire (the JSON is read and written elsewhere).
/// Source: tailscale tailcfg/tailcfg.go, type FilterRule.
struct FilterRule {
    std::vector<std::string> src_ips; ///< address | prefix without host bits | first-last | * | cap:NAME
    std::vector<FilterDestination> dst_ports;
    std::vector<int> ip_proto; ///< empty: 6, 17, 1 and 58; values outside 0-255 are ignored by receivers
    std::vector<CapGrant> cap_grant;
    bool has_src_bits = false; ///< the obsolete "SrcBits" was present: the whole filter is refused

    friend bool operator==(const FilterRule&, const FilterRule&) = default;
};

/// Where in the policy the next `destinations` elements of a rule's dst_ports are written.
struct LineSpan {
    std::uint32_t line = 0; ///< 0: nowhere, as what holds when there are neither acls nor grants
    std::uint32_t destinations = 0;

    friend bool operator==(const LineSpan&, const LineSpan&) = default;
};
/// Of one rule of a filter: what the policy allows the same sources by the same protocols becomes one rule, wherever it
/// is written.
using RuleLines = std::vector<LineSpan>;

/// The filter that allows everything, as the reference server's "FilterAllowAll".
inline std::vector<FilterRule> filter_allow_all() {
    return {FilterRule{{"*"}, {FilterDestination{"*", PortRange::all(), false}}, {}, {}, false}};
}

} // namespace tailrace
