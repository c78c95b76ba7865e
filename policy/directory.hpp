// policy/directory.hpp - the tailnet by every key that a policy asks with. Internal to policy/.
#pragma once
#include "policy/address_set.hpp"
#include "policy/bit_set.hpp"
#include "policy/content_hash.hpp"
#include "policy/document.hpp"
#include "policy/tailnet.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace tailrace {

/// An index of a node in the directory; nodes are in ID order.
using NodeIndex = std::uint32_t;

/// Who and what is in the tailnet, looked up by name, tag, address and route. Immutable once made.
class Directory {
public:
    /// An address that the policy speaks of: of a node, and not taken away by disable-ipv4.
    struct Address {
        IpAddress ip;
        std::string text;
        NodeIndex node = 0;
        ContentHash hash; ///< of the text
    };
    struct SubnetRoute {
        IpPrefix prefix;
        IpRange range;
        NodeIndex node = 0;
        std::vector<std::uint32_t> addresses; ///< those of nodes that lie inside: hardly ever any
        std::optional<std::uint32_t> service; ///< whose address it is, a number of Tailnet::services
    };

    Directory(const Document& document, Tailnet tailnet);
    Directory(const Directory&) = delete;
    Directory& operator=(const Directory&) = delete;

    const Tailnet& tailnet() const { return tailnet_; }
    const std::string& domain() const { return tailnet_.domain; }
    std::size_t size() const { return tailnet_.nodes.size(); }
    const TailnetNode& node(NodeIndex node) const { return tailnet_.nodes[node]; }
    std::optional<NodeIndex> index_of(PolicyNodeId id) const;
    const TailnetUser* user_of(NodeIndex node) const; ///< null for tagged nodes
    const TailnetUser* user(PolicyUserId id) const;

    /// The nodes that a selector means by who they are; for addresses, the nodes that own one of them.
    BitSet nodes_matching(const Selector& selector) const;
    const BitSet& untagged() const { return untagged_; }
    const BitSet& exit_nodes() const { return exit_nodes_; }
    /// Those that offer to be app connectors and are meant to be: they lead to what is in the internet of their routes.
    const BitSet& connectors() const { return connectors_; }
    /// The untagged nodes of the user of an untagged node.
    const BitSet& nodes_of_user(PolicyUserId user) const;

    /// Numbered in the byte order of their texts, as filters list them.
    const std::vector<Address>& addresses() const { return addresses_; }
    const std::vector<std::uint32_t>& addresses_of(NodeIndex node) const { return addresses_of_[node]; }
    std::optional<std::uint32_t> address_named(const IpAddress& ip) const;
    /// Calls `visit(address number)` for the addresses in the range.
    template <typename Visit>
    void for_each_address_in(const IpRange& range, Visit visit) const {
        for (auto at = first_at_or_behind(range.first); at != by_ip_.end() && range.contains(addresses_[*at].ip); ++at)
            visit(*at);
    }

    const std::vector<SubnetRoute>& subnet_routes() const { return subnet_routes_; }
    const std::vector<std::uint32_t>& subnet_routes_of(NodeIndex node) const { return subnet_routes_of_[node]; }
    /// Calls `visit(number of a subnet route)` for those that have an address in the range.
    template <typename Visit>
    void for_each_route_in(const IpRange& range, Visit visit) const {
        // Prefixes that reach into the range begin in it or contain its begin.
        for (const int bits : route_lengths_) {
            if (bits > range.first.bits()) continue;
            const auto around = IpPrefix{range.first, bits}.masked();
            if (around.address() == range.first) continue;
            if (const auto found = routes_by_prefix_.find(around); found != routes_by_prefix_.end())
                for (const auto route : found->second) visit(route);
        }
        auto at = std::partition_point(routes_by_begin_.begin(), routes_by_begin_.end(), [&](std::uint32_t route) {
            return subnet_routes_[route].range.first < range.first;
        });
        for (; at != routes_by_begin_.end() && range.contains(subnet_routes_[*at].range.first); ++at) visit(*at);
    }
    /// The subnet routes that have an address of a node.
    const std::vector<std::uint32_t>& routes_with_addresses() const { return routes_with_addresses_; }
    /// The number of the service with this name.
    std::optional<std::uint32_t> service_named(std::string_view name) const;
    bool is_of_service(const IpPrefix& route) const { return services_.count(route) != 0; }
    /// Each once, without the addresses of services.
    const std::vector<IpPrefix>& distinct_subnet_routes() const { return distinct_subnet_routes_; }

    bool has_attribute(NodeIndex node, std::string_view attribute) const;
    bool is_without_ipv4(NodeIndex node) const { return without_ipv4_.contains(node); }

private:
    std::vector<std::uint32_t>::const_iterator first_at_or_behind(const IpAddress& ip) const;
    BitSet nodes_of_login(const std::string& login) const;
    BitSet nodes_of_role(Autogroup role) const;
    void index_nodes();
    void index_addresses();
    void index_routes();
    void find_connectors();
    bool is_connector(NodeIndex node) const;

    const Document& document_;
    Tailnet tailnet_;
    std::unordered_map<PolicyUserId, std::size_t> users_;
    std::unordered_map<std::string, PolicyUserId> users_by_login_;
    std::unordered_map<PolicyUserId, BitSet> nodes_by_user_;
    std::unordered_map<std::string, BitSet> nodes_by_tag_;
    mutable std::unordered_map<std::string, BitSet> nodes_by_group_;
    BitSet untagged_;
    BitSet exit_nodes_;
    BitSet connectors_;
    BitSet without_ipv4_;
    BitSet nobody_;
    std::vector<Address> addresses_;
    std::vector<std::uint32_t> by_ip_;
    std::vector<std::vector<std::uint32_t>> addresses_of_;
    std::vector<SubnetRoute> subnet_routes_;
    std::vector<std::vector<std::uint32_t>> subnet_routes_of_;
    std::vector<IpPrefix> distinct_subnet_routes_;
    std::vector<std::uint32_t> routes_by_begin_, routes_with_addresses_;
    std::unordered_map<IpPrefix, std::vector<std::uint32_t>> routes_by_prefix_;
    std::vector<int> route_lengths_; ///< those that there are
    std::unordered_map<std::string, std::uint32_t> services_by_name_;
    std::map<IpPrefix, std::uint32_t> services_; ///< by their addresses
};

} // namespace tailrace
