// policy/compile.cpp - answers about a compiled policy: filters, visibility, capabilities. Routes: compile_routes.cpp.
#include "policy/compile.hpp"

#include "policy/compiled_data.hpp"

#include <algorithm>

namespace tailrace {
namespace {

std::string prefix_text(const IpAddress& address) {
    return IpPrefix::single(address).text();
}

bool is_in_internet(const IpRange& range) {
    const auto& internet = internet_ranges();
    return std::any_of(internet.begin(), internet.end(),
                       [&](const IpRange& part) { return part.contains(range.first) && part.contains(range.last); });
}

} // namespace

CompiledPolicy::Data::Data(std::shared_ptr<const Document> policy, Tailnet tailnet)
    : document(std::move(policy)), directory(*document, std::move(tailnet)), sources(directory) {
    list = build_rules(*document, directory, sources);
    number_lines();
    for (std::uint32_t i = 0; i < list.rules.size(); ++i) {
        const auto& rule = list.rules[i];
        has_self = has_self || rule.self;
        merged_into.push_back(i);
        if (mergeable(rule) && !rule.self)
            merged_into.back() = first_of.try_emplace({rule.sources, rule.protocols}, i).first->second;
    }
    ids_of_filters.resize(directory.size());
    view_of_node.resize(directory.size());
}

CompiledPolicy::CompiledPolicy(std::unique_ptr<Data> data) : data_(std::move(data)) {}
CompiledPolicy::~CompiledPolicy() = default;

std::shared_ptr<const CompiledPolicy> CompiledPolicy::compile(std::shared_ptr<const Document> document, Tailnet tailnet,
                                                              const CompiledPolicy* before) {
    auto data = std::make_unique<Data>(std::move(document), std::move(tailnet));
    if (before != nullptr && before->data_->document == data->document &&
        before->tailnet().services == data->directory.tailnet().services)
        data->carry_over(*before->data_);
    return std::shared_ptr<const CompiledPolicy>{new CompiledPolicy{std::move(data)}};
}

const Document& CompiledPolicy::document() const {
    return *data_->document;
}
std::shared_ptr<const Document> CompiledPolicy::shared_document() const {
    return data_->document;
}
const Tailnet& CompiledPolicy::tailnet() const {
    return data_->directory.tailnet();
}

const SourceSet* CompiledPolicy::Data::sources_of(const Rule& rule, NodeIndex receiver) const {
    if (!rule.self) return rule.sources;
    BitSet nodes = directory.nodes_of_user(directory.node(receiver).user);
    if (!rule.self_reply) nodes &= rule.self_sources;
    return sources.of_nodes(nodes);
}

/// The rules of a node's filter in wire order, each with its narrowed destinations. Equal results mean equal filters.
std::vector<CompiledPolicy::Data::Kept> CompiledPolicy::Data::reduce(NodeIndex node) const {
    struct Candidate {
        std::uint32_t position; // where the rule that it merges with stands
        std::uint32_t rule;
        const SourceSet* sources;
    };
    std::vector<Candidate> candidates;
    std::map<MergeKey, std::uint32_t> own_first; // of the rules between the devices of this user
    rule_lists().for_each_received(node, [&](std::uint32_t i) {
        const auto& rule = list.rules[i];
        if (rule.silent) return;
        const auto* set = sources_of(rule, node);
        candidates.push_back({rule.self ? i : merged_into[i], i, set});
        if (rule.self && mergeable(rule)) own_first.try_emplace({set, rule.protocols}, i);
    });
    for (auto& candidate : candidates) {
        const auto& rule = list.rules[candidate.rule];
        if (!mergeable(rule) || own_first.empty()) continue;
        const MergeKey key{candidate.sources, rule.protocols};
        if (rule.self) {
            if (const auto found = first_of.find(key); found != first_of.end())
                candidate.position = std::min(candidate.position, found->second);
        }
        if (const auto found = own_first.find(key); found != own_first.end())
            candidate.position = std::min(candidate.position, found->second);
    }
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const Candidate& a, const Candidate& b) { return a.position < b.position; });

    std::vector<Kept> kept;
    for (const auto& candidate : candidates) {
        const auto& rule = list.rules[candidate.rule];
        for (std::uint32_t i = 0; i < rule.destinations.size(); ++i)
            keep(node, candidate.position, candidate.rule, i, kept);
    }
    return kept;
}

void CompiledPolicy::Data::keep(NodeIndex node, std::uint32_t position, std::uint32_t rule_number, std::uint32_t index,
                                std::vector<Kept>& kept) const {
    const auto& rule = list.rules[rule_number];
    const auto& destination = rule.destinations[index];
    const auto add = [&](std::uint32_t item, bool own) {
        kept.push_back({position, rule_number, index, item, own || rule.self ? node + 1 : 0});
    };
    const auto& routes = directory.subnet_routes_of(node);
    const auto routes_range = [&](const IpRange& range) {
        return std::any_of(routes.begin(), routes.end(),
                           [&](std::uint32_t route) { return directory.subnet_routes()[route].range.overlaps(range); });
    };
    const auto& own_addresses = directory.addresses_of(node);
    const bool is_exit = directory.exit_nodes().contains(node);

    if (rule.kind == Rule::Kind::Capabilities) { // narrowed to the node's own addresses and those of services it hosts
        for (const auto address : own_addresses) {
            const auto& ip = directory.addresses()[address].ip;
            const bool inside =
                rule.self || destination.kind == RuleDestination::Kind::Everything ||
                (destination.kind == RuleDestination::Kind::Nodes && destination.nodes.contains(node)) ||
                std::any_of(destination.ranges.begin(), destination.ranges.end(),
                            [&](const auto& range) { return range.first.contains(ip); });
            if (inside) add(address, true);
        }
        for (const auto route : routes) {
            const auto& hosted = directory.subnet_routes()[route];
            if (hosted.service && std::any_of(destination.ranges.begin(), destination.ranges.end(),
                                              [&](const auto& range) { return range.first.overlaps(hosted.range); }))
                add(route, false);
        }
        return;
    }
    switch (destination.kind) {
    case RuleDestination::Kind::Everything:
        add(0, false);
        return;
    case RuleDestination::Kind::Internet:
        if (is_exit || directory.connectors().contains(node)) add(0, false);
        return;
    case RuleDestination::Kind::Ranges:
        for (std::uint32_t i = 0; i < destination.ranges.size(); ++i) {
            const auto& range = destination.ranges[i].first;
            const bool owns = std::any_of(own_addresses.begin(), own_addresses.end(), [&](std::uint32_t address) {
                return range.contains(directory.addresses()[address].ip);
            });
            if ((owns && !rule.via) || routes_range(range) || (is_exit && is_in_internet(range))) add(i, false);
        }
        return;
    case RuleDestination::Kind::Nodes:
        break;
    }
    if (rule.self || (destination.nodes.contains(node) && !rule.via)) {
        for (const auto address : own_addresses) add(address, true);
    }
    // Other nodes' addresses inside a route of this node: it takes an odd tailnet.
    for (const auto route : routes) {
        for (const auto address : directory.subnet_routes()[route].addresses) {
            const auto owner = directory.addresses()[address].node;
            if (!rule.self && owner != node && destination.nodes.contains(owner)) add(address, true);
        }
    }
}

bool CompiledPolicy::Data::continues(const Kept* last, const Kept& entry) const {
    return last != nullptr && last->position == entry.position &&
           (mergeable(list.rules[entry.rule]) || last->rule == entry.rule);
}

IpAddress CompiledPolicy::Data::granted_at(const Kept& entry) const {
    return entry.node == 0 ? directory.subnet_routes()[entry.item].prefix.address()
                           : directory.addresses()[entry.item].ip;
}

CompiledPolicy::Rules CompiledPolicy::Data::render(const std::vector<Kept>& kept) const {
    auto rules = std::make_shared<std::vector<FilterRule>>();
    const Kept* last = nullptr;
    for (const auto& entry : kept) {
        const auto& rule = list.rules[entry.rule];
        const auto& destination = rule.destinations[entry.destination];
        const bool same_rule = continues(last, entry);
        last = &entry;
        if (!same_rule) {
            auto& made = rules->emplace_back();
            made.src_ips = sources_of(rule, entry.node == 0 ? 0 : entry.node - 1)->wire(directory);
            made.ip_proto = rule.protocols;
            if (rule.kind == Rule::Kind::Capabilities) {
                made.cap_grant.emplace_back();
                made.cap_grant.back().cap_map = *rule.capabilities;
            }
        }
        auto& made = rules->back();
        if (rule.kind == Rule::Kind::Capabilities) {
            auto& dsts = made.cap_grant.back().dsts;
            auto text = prefix_text(granted_at(entry));
            if (std::find(dsts.begin(), dsts.end(), text) == dsts.end()) dsts.push_back(std::move(text));
            continue;
        }
        const auto add = [&](const std::string& ip) {
            for (const auto& ports : destination.ports) made.dst_ports.push_back({ip, ports, false});
        };
        switch (destination.kind) {
        case RuleDestination::Kind::Everything:
            add("*");
            break;
        case RuleDestination::Kind::Internet:
            for (const auto& range : internet_ranges()) add(range.text());
            break;
        case RuleDestination::Kind::Ranges:
            add(destination.ranges[entry.item].second);
            break;
        case RuleDestination::Kind::Nodes:
            add(directory.addresses()[entry.item].text);
            break;
        }
    }
    return rules;
}

ContentHash CompiledPolicy::Data::hash_of(const std::vector<Kept>& kept) const {
    ContentHash hash;
    const Kept* last = nullptr;
    for (const auto& entry : kept) {
        const auto& rule = list.rules[entry.rule];
        const auto& destination = rule.destinations[entry.destination];
        const bool same_rule = continues(last, entry);
        last = &entry;
        if (!same_rule) {
            hash.add(sources_of(rule, entry.node == 0 ? 0 : entry.node - 1)->hash);
            hash.add(static_cast<std::uint64_t>(rule.kind) << 32 | rule.protocols.size());
            for (const int protocol : rule.protocols) hash.add(static_cast<std::uint64_t>(protocol));
            if (rule.kind == Rule::Kind::Capabilities) {
                for (const auto& [name, values] : *rule.capabilities) {
                    hash.add(name);
                    hash.add(values ? values->size() + 1 : 0);
                    for (const auto& value : values.value_or(std::vector<std::string>{})) hash.add(value);
                }
            }
        }
        hash.add(static_cast<std::uint64_t>(destination.kind));
        if (destination.kind == RuleDestination::Kind::Ranges && rule.kind == Rule::Kind::Ports)
            hash.add(destination.ranges[entry.item].second);
        else if (rule.kind == Rule::Kind::Capabilities && entry.node == 0)
            hash.add(granted_at(entry).text());
        else if (destination.kind == RuleDestination::Kind::Nodes || rule.kind == Rule::Kind::Capabilities)
            hash.add(directory.addresses()[entry.item].hash);
        if (rule.kind == Rule::Kind::Capabilities) continue;
        for (const auto& ports : destination.ports) hash.add(std::uint64_t{ports.first} << 16 | ports.last);
    }
    return hash;
}

const CompiledPolicy::Data::FilterIds& CompiledPolicy::Data::filter_ids(NodeIndex node) const {
    auto& known = ids_of_filters[node];
    if (!known) {
        const auto kept = reduce(node);
        known = {hash_of(kept), hash_of_lines(kept)};
    }
    return *known;
}

ContentHash CompiledPolicy::filter_id(PolicyNodeId id) const {
    const auto node = data_->directory.index_of(id);
    return node ? data_->filter_ids(*node).content : ContentHash{};
}

CompiledPolicy::Rules CompiledPolicy::rules_for(PolicyNodeId id) const {
    static const Rules kNone = std::make_shared<const std::vector<FilterRule>>();
    const auto node = data_->directory.index_of(id);
    if (!node) return kNone;
    auto& ids = data_->ids_of_filters[*node];
    if (ids) {
        if (const auto shared = data_->shared_rules.find(ids->content); shared != data_->shared_rules.end())
            return shared->second;
    }
    const auto kept = data_->reduce(*node);
    if (!ids) ids = {data_->hash_of(kept), data_->hash_of_lines(kept)};
    if (kept.empty()) return kNone;
    const bool shared = std::all_of(kept.begin(), kept.end(), [](const Data::Kept& entry) { return entry.node == 0; });
    if (!shared) return data_->render(kept);
    auto& known = data_->shared_rules[ids->content];
    if (!known) known = data_->render(kept);
    return known;
}

} // namespace tailrace
