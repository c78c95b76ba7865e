// policy/compiled_data.hpp - what a CompiledPolicy keeps. Internal to policy/.
#pragma once
#include "policy/compile.hpp"
#include "policy/directory.hpp"
#include "policy/posture.hpp"
#include "policy/rule.hpp"
#include "policy/sources.hpp"
#include "policy/ssh_rules.hpp"

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
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
        std::uint32_t
            item; ///< number of an address or of a range; of capabilities with node 0: of a route to a service
        std::uint32_t node;
        auto operator<=>(const Kept&) const = default;
    };
    struct FilterIds {
        ContentHash content, lines;
    };
    /// What one class of nodes sees.
    struct View {
        BitSet seen;
        NodeList nodes;
    };
    using ViewPointer = std::shared_ptr<const View>;
    /// The rules that each node receives something of or is a source of, by number and in order.
    class RuleLists {
    public:
        explicit RuleLists(const Data& data);
        template <typename Visit>
        void for_each_received(NodeIndex node, Visit visit) const {
            for (const auto rule : received_.rules_of(node)) visit(rule);
        }
        template <typename Visit>
        void for_each_sent(NodeIndex node, Visit visit) const {
            for (const auto rule : sent_.rules_of(node)) visit(rule);
        }
        static const BitSet& receivers_of(const Rule& rule) { return rule.receivers; }
        static const BitSet& senders_of(const Rule& rule) {
            return rule.self ? rule.self_sources.get() : rule.sources->touched;
        }

    private:
        /// Many rules share a set of nodes: nodes are listed with sets, sets with rules.
        class List {
        public:
            List(const std::vector<Rule>& rules, std::size_t nodes, const BitSet& (*set_of)(const Rule&));
            std::vector<std::uint32_t> rules_of(NodeIndex node) const;

        private:
            struct Set {
                const BitSet* nodes;
                std::vector<std::uint32_t> rules;
            };

            std::vector<Set> sets_;
            std::vector<std::uint32_t> broad_; ///< sets of so many nodes that they are not listed with each
            std::vector<std::uint32_t> begin_, sets_of_node_;
        };

        List received_, sent_;
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
    /// Whether the entry goes on with the rule of the one before it, which is null at the begin.
    bool continues(const Kept* last, const Kept& entry) const;
    /// The address at which an entry grants its capabilities.
    IpAddress granted_at(const Kept& entry) const;
    Rules render(const std::vector<Kept>& kept) const;
    std::vector<RuleLines> lines_of(const std::vector<Kept>& kept) const;
    /// What stands for the content of that filter.
    ContentHash hash_of(const std::vector<Kept>& kept) const;
    ContentHash hash_of_lines(const std::vector<Kept>& kept) const;
    const FilterIds& filter_ids(NodeIndex node) const;
    /// Calls `visit` with each span, and whether a rule begins with it.
    template <typename Visit>
    void for_each_span(const std::vector<Kept>& kept, Visit visit) const;
    void number_lines();
    const View& view(NodeIndex node) const;
    BitSet compute_seen(NodeIndex node) const;
    /// The one view with this content.
    ViewPointer intern_view(BitSet seen, NodeList nodes = nullptr) const;
    const RuleLists& rule_lists() const;
    /// Takes over the answers of the compilation before that still hold.
    void carry_over(const Data& before);
    const RouteViewers& viewers_of(const Directory::SubnetRoute& route) const;
    const BitSet& internet_viewers(NodeIndex exit_node) const;
    bool may_use_exit(NodeIndex viewer, NodeIndex exit_node) const;
    const BitSet& name_askers(NodeIndex connector) const;
    bool may_use_route(NodeIndex viewer, const Directory::SubnetRoute& route) const;
    bool is_primary_for(NodeIndex viewer, const Directory::SubnetRoute& route) const;
    bool leads_via_group(const ViaGrant& via, const Directory::SubnetRoute& route) const;

    std::shared_ptr<const Document> document;
    Directory directory;
    mutable SourceSets sources;
    RuleList list;
    bool has_self = false;
    std::map<MergeKey, std::uint32_t> first_of; ///< where rules of that key stand in a filter
    std::vector<std::uint32_t> merged_into;     ///< of each rule: the rule in whose place it stands, by the map above

    // Worked out when asked for.
    mutable std::optional<RuleLists> lists;
    mutable std::vector<std::optional<FilterIds>> ids_of_filters;
    mutable std::unordered_map<ContentHash, Rules> shared_rules;
    mutable std::vector<ContentHash> view_classes; ///< equal for nodes that are alike for every rule
    mutable std::unordered_map<ContentHash, ViewPointer> view_of_class;
    mutable std::unordered_multimap<std::size_t, ViewPointer> views; ///< by the hash of `seen`
    mutable std::vector<ViewPointer> view_of_node;
    mutable std::map<std::pair<IpPrefix, bool>, RouteViewers> route_viewers; ///< and whether by an app connector
    mutable std::map<NodeIndex, BitSet> exit_viewers, connector_askers;
};

/// The attributes by which postures are judged.
using AttributesOf = std::function<const PostureAttributes&(NodeIndex)>;
/// The ssh section as it reaches a node, if the nodes have these attributes.
std::vector<SshRule> ssh_rules(const Document& document, const Directory& directory, NodeIndex node,
                               const AttributesOf& attributes_of);

} // namespace tailrace
