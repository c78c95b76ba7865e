// policy/compile_views.cpp - who sees whom.
#include "policy/compiled_data.hpp"

#include <algorithm>

namespace tailrace {

CompiledPolicy::Data::RuleLists::RuleLists(const Data& data) : rules_(&data.list.rules) {
    fill(received_, data.directory.size(), [](const Rule& rule) -> const BitSet& { return rule.receivers; });
    fill(sent_, data.directory.size(), senders_of);
}

template <typename SetOf>
void CompiledPolicy::Data::RuleLists::fill(List& list, std::size_t nodes, SetOf set_of) {
    const auto most = std::max<std::size_t>(64, nodes / 16); // bounds the lists to a sixteenth of rules x nodes
    std::vector<std::uint32_t> counts(nodes + 1);
    for (std::uint32_t i = 0; i < rules_->size(); ++i) {
        const BitSet& set = set_of((*rules_)[i]);
        if (set.count() > most)
            list.broad.push_back(i);
        else
            set.for_each([&](std::size_t node) { ++counts[node + 1]; });
    }
    for (std::size_t i = 1; i < counts.size(); ++i) counts[i] += counts[i - 1];
    list.begin = counts;
    list.rules.resize(counts.back());
    auto broad = list.broad.begin();
    for (std::uint32_t i = 0; i < rules_->size(); ++i) {
        if (broad != list.broad.end() && *broad == i) {
            ++broad;
            continue;
        }
        set_of((*rules_)[i]).for_each([&](std::size_t node) { list.rules[counts[node]++] = i; });
    }
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
