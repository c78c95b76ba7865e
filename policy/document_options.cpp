// policy/document_options.cpp - derpMap, attrConfig, OneCGNATRoute: what holds for the whole network.
#include "base/text.hpp"
#include "policy/document_reader.hpp"
#include "policy/walk.hpp"
#include "policy/words.hpp"

#include <algorithm>
#include <optional>

namespace tailrace {
namespace {

enum class KnownType { String, Version, Number, Bool };

/// The type of an attribute that devices report or that attrConfig declares.
std::optional<KnownType> type_of(const std::string& attribute, const std::map<std::string, AttributeConfig>& config) {
    struct Known {
        std::string_view attribute;
        KnownType type;
    };
    static constexpr Known kKnown[] = {
        {"node:os", KnownType::String},         {"node:osVersion", KnownType::Version},
        {"node:tsVersion", KnownType::Version}, {"node:tsReleaseTrack", KnownType::String},
        {"node:tsAutoUpdate", KnownType::Bool}, {"node:tsStateEncrypted", KnownType::Bool},
        {"ip:country", KnownType::String},      {"ip:publicAddress", KnownType::String},
        {"falcon:ztaScore", KnownType::Number},
    };
    const auto* known = std::find_if(std::begin(kKnown), std::end(kKnown),
                                     [&](const Known& entry) { return entry.attribute == attribute; });
    if (known != std::end(kKnown)) return known->type;
    const auto declared = config.find(attribute);
    if (declared == config.end()) return std::nullopt;
    using Type = AttributeConfig::Type;
    return declared->second.type == Type::String   ? KnownType::String
           : declared->second.type == Type::Number ? KnownType::Number
                                                   : KnownType::Bool;
}

bool is_order(PostureAssertion::Operator op) {
    using Operator = PostureAssertion::Operator;
    return op == Operator::Less || op == Operator::LessOrEqual || op == Operator::Greater ||
           op == Operator::GreaterOrEqual;
}

} // namespace

Result<void> check_posture_types(const PostureAssertion& assertion,
                                 const std::map<std::string, AttributeConfig>& config) {
    const auto type = type_of(assertion.attribute, config);
    if (!type || assertion.operands.empty()) return {};
    const bool orders = is_order(assertion.op);
    const auto& operand = assertion.operands.front();
    const bool is_bool = !assertion.is_string && (operand == "true" || operand == "false");
    const bool is_number = !assertion.is_string && !is_bool;
    switch (*type) {
    case KnownType::String:
        if (orders) return Error::make("{} is a string and has no order", assertion.attribute);
        [[fallthrough]];
    case KnownType::Version:
        if (!assertion.is_string)
            return Error::make("{} is a string: compare it with one in single quotes", assertion.attribute);
        return {};
    case KnownType::Number:
        if (!is_number) return Error::make("{} is a number: compare it with one", assertion.attribute);
        return {};
    case KnownType::Bool:
        if (!is_bool || orders)
            return Error::make("{} is true or false: compare it with == or !=", assertion.attribute);
        return {};
    }
    return {};
}

bool DocumentReader::read_cgnat_route(const Value& value) {
    if (!read_string(value, "OneCGNATRoute", document_.one_cgnat_route)) return false;
    const auto& route = document_.one_cgnat_route;
    return route.empty() || route == "mac-always" || route == "mac-never" ||
           fail(value, fmt::format("OneCGNATRoute {}: want \"\", \"mac-always\" or \"mac-never\"", quoted(route)));
}

bool DocumentReader::read_attribute_config(const Value& section) {
    return each_member(section, "attrConfig", [&](const std::string& name, const Value& at, const Value& value) {
        const auto what = fmt::format("attrConfig[{}]", quoted(name));
        constexpr std::size_t kLongestName = 50;
        if (!name.starts_with("custom:") || name.size() == 7 || name.size() > kLongestName)
            return fail(at, what + ": names start with \"custom:\" and have at most 50 characters");
        auto& config = document_.attribute_config[name];
        return read_object(
            value, what,
            {{"type",
              [&](const Value& type) {
                  std::string word;
                  if (!read_string(type, what, word)) return false;
                  using Type = AttributeConfig::Type;
                  if (word != "string" && word != "number" && word != "bool")
                      return fail(type, fmt::format("{}: type {}: want string, number or bool", what, quoted(word)));
                  config.type = word == "string" ? Type::String : word == "number" ? Type::Number : Type::Bool;
                  return true;
              }},
             {"allowSetByNode", [&](const Value& allow) { return read_bool(allow, what, config.allow_set_by_node); }},
             {"broadcastToPeers", [&](const Value& peers) {
                  return read_selectors(peers, what, Position::Destination, config.broadcast_to_peers);
              }}});
    });
}

bool DocumentReader::read_derp_map(const Value& section) {
    const bool read = read_object(
        section, "derpMap",
        {{"OmitDefaultRegions",
          [&](const Value& value) { return expect(value, hujson::Kind::Bool, "derpMap.OmitDefaultRegions"); }},
         {"Regions", [&](const Value& value) {
              return each_member(value, "derpMap.Regions",
                                 [&](const std::string& key, const Value& at, const Value& region) {
                                     return read_derp_region(key, at, region);
                                 });
          }}});
    if (read) document_.derp_map = hujson::minimize(tree_.text(), section);
    return read;
}

bool DocumentReader::read_derp_region(const std::string& key, const Value& at, const Value& region) {
    const auto what = fmt::format("derpMap.Regions[{}]", quoted(key));
    auto number = parse_number<int>(key);
    if (!number || *number <= 0) return fail(at, what + ": regions are named by their number");
    if (region.kind == hujson::Kind::Null) return true; // takes a default region away
    const auto same_region = [&](const Value& value) {
        return (value.kind == hujson::Kind::Number && value.text == key) ||
               fail(value, fmt::format("{}: RegionID must be {}", what, key));
    };
    const auto string = [&](const Value& value) { return expect(value, hujson::Kind::String, what); };
    const auto boolean = [&](const Value& value) { return expect(value, hujson::Kind::Bool, what); };
    const auto port = [&](const Value& value) {
        const auto port_number = parse_number<int>(value.text);
        return (value.kind == hujson::Kind::Number && port_number && *port_number >= -1 && *port_number <= 65535) ||
               fail(value, what + ": want a port");
    };
    bool has_id = false;
    const bool read =
        read_object(region, what,
                    {{"RegionID",
                      [&](const Value& value) {
                          has_id = true;
                          return same_region(value);
                      }},
                     {"RegionCode", string},
                     {"RegionName", string},
                     {"Avoid", boolean},
                     {"NoMeasureNoHome", boolean},
                     {"Latitude", [&](const Value& value) { return expect(value, hujson::Kind::Number, what); }},
                     {"Longitude", [&](const Value& value) { return expect(value, hujson::Kind::Number, what); }},
                     {"Nodes", [&](const Value& nodes) {
                          return each_element(nodes, what, [&](const Value& node) {
                              bool has_host = false;
                              const bool good = read_object(node, what + ".Nodes",
                                                            {{"Name", string},
                                                             {"RegionID", same_region},
                                                             {"HostName",
                                                              [&](const Value& value) {
                                                                  has_host = true;
                                                                  return string(value);
                                                              }},
                                                             {"CertName", string},
                                                             {"IPv4", string},
                                                             {"IPv6", string},
                                                             {"STUNPort", port},
                                                             {"STUNOnly", boolean},
                                                             {"DERPPort", port},
                                                             {"InsecureForTests", boolean},
                                                             {"STUNTestIP", string},
                                                             {"CanPort80", boolean}});
                              return good && (has_host || fail(node, what + ": a node needs a HostName"));
                          });
                      }}});
    return read && (has_id || fail(at, fmt::format("{}: RegionID must be {}", what, key)));
}

/// The old spelling and the new one do not go together.
bool DocumentReader::check_member_spelling() {
    const Selector* old_spelling = nullptr;
    bool new_spelling = false;
    std::uint32_t offset = 0;
    for_each_selector(document_, [&](const Selector& selector) {
        if (selector.text == "autogroup:members" && old_spelling == nullptr) {
            old_spelling = &selector;
            offset = selector.offset;
        }
        new_spelling = new_spelling || selector.text == "autogroup:member";
    });
    return old_spelling == nullptr || !new_spelling ||
           fail_at(offset, "autogroup:members is the old name of autogroup:member: a policy may not use both");
}

} // namespace tailrace
