#include "agent/doctor/ruleset.hpp"

#include "base/json/json.hpp"

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
        if (rule != nullptr && masquerades_all(*rule))
            facts.masquerades_all.push_back(fmt::format("chain {} of table {} {}", text_of(*rule, "chain"),
                                                        text_of(*rule, "family"), text_of(*rule, "table")));
    }
    return {};
}

} // namespace tailrace
