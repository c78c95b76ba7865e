// policy/compiled_data.hpp - what a CompiledPolicy keeps. Internal to policy/.
#pragma once
#include "policy/compile.hpp"
#include "policy/directory.hpp"
#include "policy/rule.hpp"
#include "policy/sources.hpp"

#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace tailrace {

struct CompiledPolicy::Data {
    Data(std::shared_ptr<const Document> policy, Tailnet tailnet);

    /// One word of a narrowed destination. `node` is 0 where it does not depend on the receiver, else the receiver + 1.
    struct Kept {
        std::uint32_t position;
        std::uint32_t rule;
        std::uint32_t destination;
        std::uint32_t item; ///< number of an address or of a range
        std::uint32_t node;
        auto operator<=>(const Kept&) const = default;
    };
    /// What one class of nodes sees.
    struct View {
        BitSet seen;
        NodeList nodes;
    };
    /// For whom a subnet route is meant, apart from who is its primary.
    struct RouteViewers {
        BitSet by_rule;   ///< may send something to it
        BitSet by_return; ///< receive something from it
        BitSet routers;   ///< have it approved themselves
    };
    using MergeKey = std::pair<const SourceSet*, std::vector<int>>;

    static bool mergeable(const Rule& rule) { return rule.kind == Rule::Kind::Ports && !rule.via; }
    const SourceSet* sources_of(const Rule& rule, NodeIndex receiver) const;
    std::vector<Kept> reduce(NodeIndex node) const;
    void keep(NodeIndex node, std::uint32_t position, std::uint32_t rule, std::uint32_t index,
              std::vector<Kept>& kept) const;
    Rules render(const std::vector<Kept>& kept) const;
    const View& view(NodeIndex node) const;
    const RouteViewers& viewers_of(const Directory::SubnetRoute& route) const;
    const BitSet& internet_viewers(NodeIndex exit_node) const;
    bool may_use_exit(NodeIndex viewer, NodeIndex exit_node) const;
    bool may_use_route(NodeIndex viewer, const Directory::SubnetRoute& route) const;
    bool leads_via_group(const ViaGrant& via, const Directory::SubnetRoute& route) const;

    std::shared_ptr<const Document> document;
    Directory directory;
    mutable SourceSets sources;
    RuleList list;
    bool has_self = false;
    std::map<MergeKey, std::uint32_t> first_of; ///< where rules of that key stand in a filter

    // Worked out when asked for.
    mutable std::map<std::vector<Kept>, Rules> shared_rules;
    mutable std::map<std::vector<std::uint64_t>, View> views;
    mutable std::vector<const View*> view_of_node;
    mutable std::map<IpPrefix, RouteViewers> route_viewers;
    mutable std::map<NodeIndex, BitSet> exit_viewers;
};

} // namespace tailrace
