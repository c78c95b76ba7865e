// control/map/wire_json.hpp - records as the JSON that clients read. Pure functions; who may see what comes as
// arguments.
#pragma once
#include "control/config/dns.hpp"
#include "control/model/model.hpp"
#include "policy/document.hpp"
#include "policy/filter_rule.hpp"
#include "proto/control/dns.hpp"

#include <string>
#include <vector>

namespace tailrace {

/// What of a node depends on who looks.
struct NodeView {
    std::vector<IpAddress> addresses;
    std::vector<IpPrefix> routes;         ///< that the viewer may use through it
    std::vector<IpPrefix> primary_routes; ///< that it is primary of, for the viewer
    CapabilityValues capabilities;

    bool operator==(const NodeView&) const = default;
    /// Equal views have equal texts.
    std::string text() const;
};

/// As a peer sees it: only the part of its Hostinfo that peers use.
std::string peer_json(const Node& node, const std::string& fqdn, const NodeView& view, const WallTime& now);
/// As it sees itself.
std::string self_json(const Node& node, const std::string& fqdn, const NodeView& view, const WallTime& now);
std::string filter_json(const std::vector<FilterRule>& rules);
/// MapResponse::policy_lines.
std::string lines_json(const std::vector<RuleLines>& lines);
/// MagicDNS for the base domain and the reverse zones of our addresses.
/// What all nodes are told of DNS.
wire::DnsConfig dns_config(const std::string& base_domain, const DnsSettings& settings);

/// Which members of a node changed; what can't be patched is Full.
enum class NodeChange : unsigned {
    None = 0,
    Full = 1,
    Endpoints = 2,
    HomeDerp = 4,
    DiscoKey = 8,
    Online = 16,
    Cap = 32,
    Key = 64,
    KeyExpiry = 128,
};
constexpr NodeChange operator|(NodeChange a, NodeChange b) {
    return static_cast<NodeChange>(static_cast<unsigned>(a) | static_cast<unsigned>(b));
}
constexpr bool has(NodeChange set, NodeChange one) {
    return (static_cast<unsigned>(set) & static_cast<unsigned>(one)) != 0;
}
/// Makes two records equal in what is known about routes and hosted services.
void take_routes(NodeRecord& into, const NodeRecord& from);
/// What a peer must be told when `before` becomes `after`; last_seen alone is no news.
NodeChange difference(const Node& before, const Node& after);
/// One element of PeersChangedPatch.
std::string patch_json(const Node& node, NodeChange change);

} // namespace tailrace
