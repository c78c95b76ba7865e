// What the backend tells of packets: who they belong to, the rules that let them in, and how much.
#include "agent/backend.hpp"
#include "agent/engine/packet_filter.hpp"
#include "base/json/json.hpp"

namespace tailrace {

std::vector<KnownRule> Backend::policy_rules() const {
    std::vector<KnownRule> rules;
    if (!netmap_.has_filter()) return rules;
    for (const wire::FilterRule& rule : netmap_.filter_rules()) rules.push_back({to_policy(rule), {}});
    const auto& lines = netmap_.policy_lines();
    for (std::size_t i = 0; i < std::min(rules.size(), lines.size()); ++i) rules[i].lines = lines[i];
    return rules;
}

FlowWatch::Surroundings Backend::flow_surroundings() {
    return {[this] { return engine_.filter(); }, [this](const IpAddress& address) { return peer_of(address); },
            [this](const IpAddress& address) { return caps_of(address); }, [this] { return policy_rules(); }};
}

/// The machine with this address, else the one that routes to it.
std::string Backend::peer_of(const IpAddress& address) const {
    const wire::Node* owner = netmap_.owner_of(address);
    int most_bits = -1;
    if (owner == nullptr)
        for (const auto& [id, node] : netmap_.peers())
            for (const IpPrefix& route : node.routes_to())
                if (route.bits() > most_bits && route.contains(address)) {
                    most_bits = route.bits();
                    owner = &node;
                }
    return owner == nullptr ? "" : owner->name.substr(0, owner->name.find('.'));
}

/// Capabilities of the machine with this address.
std::vector<std::string> Backend::caps_of(const IpAddress& address) const {
    std::vector<std::string> names;
    if (const wire::Node* owner = netmap_.owner_of(address))
        for (const auto& [name, values] : owner->cap_map) names.push_back(name);
    return names;
}

Result<std::string> Backend::explain_json(const PacketQuestion& question) {
    return engine_.explain_json(question, caps_of(question.source), policy_rules());
}

std::string Backend::filter_json() {
    std::map<std::size_t, tr_counter> counters;
    if (PacketFilter* filter = engine_.filter()) counters = filter->rule_counters();
    std::string out;
    std::size_t index = 0;
    const auto known = policy_rules();
    for (const wire::FilterRule& rule : netmap_.filter_rules()) {
        std::string text = json::write(rule), lines;
        if (index < known.size()) lines = policy_lines_member(policy_lines(known[index]));
        const tr_counter& counter = counters[index++];
        text.pop_back(); // the closing brace
        out += fmt::format("{}{}{}{}\"Packets\":{},\"Bytes\":{}}}", out.empty() ? "" : ",", text,
                           text.size() > 1 ? "," : "", lines, counter.packets, counter.bytes);
    }
    return "[" + out + "]";
}

} // namespace tailrace
