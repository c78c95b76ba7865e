// policy/compile_views.cpp - who sees whom.
#include "policy/compiled_data.hpp"

#include <algorithm>

namespace tailrace {

CompiledPolicy::Data::RuleLists::RuleLists(const Data& data)
    : received_(data.list.rules, data.directory.size(), receivers_of),
      sent_(data.list.rules, data.directory.size(), senders_of) {}

CompiledPolicy::Data::RuleLists::List::List(const std::vector<Rule>& rules, std::size_t nodes,
                                            const BitSet& (*set_of)(const Rule&)) {
    std::unordered_map<const BitSet*, std::uint32_t> known;
    for (std::uint32_t i = 0; i < rules.size(); ++i) {
        const BitSet& set = set_of(rules[i]);
        const auto [found, is_new] = known.try_emplace(&set, static_cast<std::uint32_t>(sets_.size()));
        if (is_new) sets_.push_back({&set, {}});
        sets_[found->second].rules.push_back(i);
    }
    const auto most = std::max<std::size_t>(64, nodes / 16); // bounds the list to a sixteenth of sets x nodes
    std::vector<bool> is_broad(sets_.size());
    begin_.resize(nodes + 1);
    for (std::uint32_t i = 0; i < sets_.size(); ++i) {
        is_broad[i] = sets_[i].nodes->count() > most;
        if (is_broad[i])
            broad_.push_back(i);
        else
            sets_[i].nodes->for_each([&](std::size_t node) { ++begin_[node + 1]; });
    }
    for (std::size_t i = 1; i < begin_.size(); ++i) begin_[i] += begin_[i - 1];
    sets_of_node_.resize(begin_.back());
    auto next = begin_;
    for (std::uint32_t i = 0; i < sets_.size(); ++i) {
        if (!is_broad[i]) sets_[i].nodes->for_each([&](std::size_t node) { sets_of_node_[next[node]++] = i; });
    }
}

std::vector<std::uint32_t> CompiledPolicy::Data::RuleLists::List::rules_of(NodeIndex node) const {
    std::vector<std::uint32_t> rules;
    const auto add = [&](std::uint32_t set) {
        rules.insert(rules.end(), sets_[set].rules.begin(), sets_[set].rules.end());
    };
    for (auto at = begin_[node]; at < begin_[node + 1]; ++at) add(sets_of_node_[at]);
    for (const auto set : broad_) {
        if (sets_[set].nodes->contains(node)) add(set);
    }
    std::sort(rules.begin(), rules.end());
    return rules;
}

const CompiledPolicy::Data::RuleLists& CompiledPolicy::Data::rule_lists() const {
    if (!lists) lists.emplace(*this);
    return *lists;
}

BitSet CompiledPolicy::Data::compute_seen(NodeIndex node) const {
    BitSet seen{directory.size()};
    const bool untagged = directory.untagged().contains(node);
    const auto& own = directory.nodes_of_user(directory.node(node).user);
    rule_lists().for_each_received(node, [&](std::uint32_t i) {
        const auto& rule = list.rules[i];
        if (!rule.self) {
            seen |= rule.sources->touched;
        } else if (untagged) {
            BitSet sources = own;
            sources &= rule.self_sources;
            seen |= sources;
        }
    });
    rule_lists().for_each_sent(node, [&](std::uint32_t i) {
        const auto& rule = list.rules[i];
        if (!rule.self)
            seen |= rule.receivers;
        else if (untagged)
            seen |= own;
    });
    return seen;
}

CompiledPolicy::Data::ViewPointer CompiledPolicy::Data::intern_view(BitSet seen, NodeList nodes) const {
    const auto hash = seen.hash();
    const auto [begin, end] = views.equal_range(hash);
    for (auto at = begin; at != end; ++at) {
        if (at->second->seen == seen) return at->second;
    }
    if (!nodes) {
        std::vector<PolicyNodeId> ids;
        ids.reserve(seen.count());
        seen.for_each([&](std::size_t other) { ids.push_back(directory.node(static_cast<NodeIndex>(other)).id); });
        nodes = std::make_shared<const std::vector<PolicyNodeId>>(std::move(ids));
    }
    auto view = std::make_shared<const View>(View{std::move(seen), std::move(nodes)});
    views.emplace(hash, view);
    return view;
}

const CompiledPolicy::Data::View& CompiledPolicy::Data::view(NodeIndex node) const {
    auto& known = view_of_node[node];
    if (known) return *known;
    if (view_classes.empty()) {
        view_classes.resize(directory.size());
        for (std::uint64_t i = 0; i < list.rules.size(); ++i) {
            ContentHash receives, sends;
            receives.add(2 * i);
            sends.add(2 * i + 1);
            const auto& rule = list.rules[i];
            rule.receivers.for_each([&](std::size_t each) { view_classes[each].include(receives); });
            RuleLists::senders_of(rule).for_each([&](std::size_t each) { view_classes[each].include(sends); });
        }
        if (has_self) {
            directory.untagged().for_each([&](std::size_t each) {
                view_classes[each].add(static_cast<std::uint64_t>(directory.node(static_cast<NodeIndex>(each)).user));
            });
        }
    }
    auto& of_class = view_of_class[view_classes[node]];
    if (!of_class) of_class = intern_view(compute_seen(node));
    known = of_class;
    return *known;
}

bool CompiledPolicy::visible(PolicyNodeId a, PolicyNodeId b) const {
    const auto first = data_->directory.index_of(a);
    const auto second = data_->directory.index_of(b);
    return first && second && *first != *second && data_->view(*first).seen.contains(*second);
}

CompiledPolicy::NodeList CompiledPolicy::view_of(PolicyNodeId id) const {
    static const NodeList kNobody = std::make_shared<const std::vector<PolicyNodeId>>();
    const auto node = data_->directory.index_of(id);
    return node ? data_->view(*node).nodes : kNobody;
}

std::vector<PolicyNodeId> CompiledPolicy::peers_of(PolicyNodeId id) const {
    auto peers = *view_of(id);
    peers.erase(std::remove(peers.begin(), peers.end(), id), peers.end());
    return peers;
}

} // namespace tailrace
