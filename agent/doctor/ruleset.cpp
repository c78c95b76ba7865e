#include "agent/doctor/ruleset.hpp"

#include "base/json/json.hpp"

#include <algorithm>

namespace tailrace {
namespace {

using Object = boost::json::object;

std::string text_of(const Object& object, const char* name) {
    const auto* member = object.if_contains(name);
    return member != nullptr && member->is_string() ? std::string{member->get_string().c_str()} : std::string{};
}

const Object* object_in(const boost::json::value& value, const char* name) {
    if (!value.is_object()) return nullptr;
    const auto* member = value.get_object().if_contains(name);
    return member != nullptr && member->is_object() ? &member->get_object() : nullptr;
}

/// A rule whose statements are nothing but masquerade, and what does not choose: counters, comments.
bool masquerades_all(const Object& rule) {
    const auto* statements = rule.if_contains("expr");
    if (statements == nullptr || !statements->is_array()) return false;
    bool masquerades = false;
    for (const auto& statement : statements->get_array()) {
        if (!statement.is_object()) return false;
        const Object& object = statement.get_object();
        if (object.if_contains("match") != nullptr) return false;
        if (object.if_contains("masquerade") != nullptr) masquerades = true;
        if (const Object* foreign = object_in(statement, "xt"); // iptables: only the target has no condition
            foreign != nullptr && text_of(*foreign, "type") == "target" && text_of(*foreign, "name") == "MASQUERADE")
            masquerades = true;
    }
    return masquerades;
}

bool is_or_has(const boost::json::value& right, const boost::json::value& wanted) {
    if (right == wanted) return true;
    const auto* set = right.is_object() ? right.get_object().if_contains("set") : nullptr;
    return set != nullptr && set->is_array() && std::ranges::count(set->get_array(), wanted) != 0;
}

/// What a rule does, as far as it matters here.
struct Rule {
    bool accepts = false, refuses = false;
    bool is_of_device = false; ///< of all that comes by it
    bool is_of_port = false;   ///< of all that is for our UDP port
    int conditions = 0;
};

Rule rule_of(const Object& object, const DoctorFacts& facts) {
    Rule rule;
    const auto* statements = object.if_contains("expr");
    if (statements == nullptr || !statements->is_array()) return rule;
    for (const auto& statement : statements->get_array()) {
        if (!statement.is_object()) continue;
        const Object& one = statement.get_object();
        if (one.if_contains("accept") != nullptr) rule.accepts = true;
        if (one.if_contains("drop") != nullptr || one.if_contains("reject") != nullptr) rule.refuses = true;
        if (one.if_contains("xt") != nullptr || one.if_contains("limit") != nullptr) ++rule.conditions;
        const Object* match = object_in(statement, "match");
        if (match == nullptr) continue;
        const auto* left = match->if_contains("left");
        const auto* right = match->if_contains("right");
        const Object* meta = left != nullptr ? object_in(*left, "meta") : nullptr;
        const Object* payload = left != nullptr ? object_in(*left, "payload") : nullptr;
        bool is_equal = text_of(*match, "op") == "==" || text_of(*match, "op") == "in";
        if (right == nullptr || !is_equal) {
            ++rule.conditions;
        } else if (meta != nullptr && text_of(*meta, "key") == "l4proto" && is_or_has(*right, "udp")) {
            continue; // goes with the port
        } else if (meta != nullptr && text_of(*meta, "key") == "iifname" && is_or_has(*right, facts.device.c_str())) {
            rule.is_of_device = true;
        } else if (payload != nullptr && text_of(*payload, "field") == "dport" &&
                   (text_of(*payload, "protocol") == "udp" || text_of(*payload, "protocol") == "th") &&
                   is_or_has(*right, facts.port)) {
            rule.is_of_port = true;
        } else {
            ++rule.conditions;
        }
    }
    return rule;
}

/// Rules come in the order in which they are judged, after the chains.
void note_rule(const Object& object, DoctorFacts& facts) {
    for (DoctorFacts::Chain& chain : facts.base_chains) {
        if (chain.refuses_rest || chain.family != text_of(object, "family") ||
            chain.table != text_of(object, "table") || chain.name != text_of(object, "chain"))
            continue;
        Rule rule = rule_of(object, facts);
        if (rule.accepts && rule.conditions == 0) {
            chain.takes_device = chain.takes_device || !rule.is_of_port;
            chain.takes_port = chain.takes_port || !rule.is_of_device;
        }
        if (rule.refuses && rule.conditions == 0 && !rule.is_of_device && !rule.is_of_port) chain.refuses_rest = true;
    }
}

} // namespace

Result<void> read_ruleset(std::string_view json, DoctorFacts& facts) {
    auto value = json::parse_value(json);
    if (!value) return value.error().with("nft -j list ruleset");
    const auto* list = value->is_object() ? value->get_object().if_contains("nftables") : nullptr;
    if (list == nullptr || !list->is_array()) return Error::make("nft -j list ruleset: no list of nftables");
    for (const auto& entry : list->get_array()) {
        const Object* chain = object_in(entry, "chain");
        const Object* rule = object_in(entry, "rule");
        const Object* either = chain != nullptr ? chain : rule;
        if (either == nullptr || text_of(*either, "table").starts_with("tailrace")) continue;
        if (chain != nullptr && !text_of(*chain, "hook").empty())
            facts.base_chains.push_back({text_of(*chain, "family"), text_of(*chain, "table"), text_of(*chain, "name"),
                                         text_of(*chain, "hook"), text_of(*chain, "policy") == "drop"});
        if (rule != nullptr) note_rule(*rule, facts);
        if (rule != nullptr && masquerades_all(*rule))
            facts.masquerades_all.push_back(fmt::format("chain {} of table {} {}", text_of(*rule, "chain"),
                                                        text_of(*rule, "family"), text_of(*rule, "table")));
    }
    return {};
}

} // namespace tailrace
