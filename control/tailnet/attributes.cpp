#include "control/tailnet/attributes.hpp"

#include "base/json/json.hpp"
#include "base/text.hpp"
#include "control/tailnet/tailnet_state.hpp"

#include <algorithm>

namespace tailrace {

namespace {

constexpr std::size_t kMostName = 50, kMostText = 50, kMostAttributes = 100;
constexpr std::int64_t kMostNumber = (std::int64_t{1} << 53) - 1;
constexpr std::string_view kCustom = "custom:";

bool is_alnum(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

std::string lower_case(std::string_view text) {
    std::string out{text};
    std::transform(out.begin(), out.end(), out.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
    return out;
}

/// One attribute as it is stored.
struct StoredAttribute {
    std::string name, kind, text;
    WallTime expires;
};

} // namespace

template <>
struct JsonFields<StoredAttribute> {
    using S = StoredAttribute;
    static constexpr auto fields = field_table(field("name", &S::name), field("kind", &S::kind),
                                               field("value", &S::text), field("expires", &S::expires));
};

PostureValues reported_posture(const wire::Hostinfo& hostinfo) {
    PostureValues out;
    if (!hostinfo.os.empty()) out["node:os"] = lower_case(hostinfo.os);
    if (!hostinfo.os_version.empty()) out["node:osVersion"] = hostinfo.os_version;
    // "1.102.3-t53a0d659a-g0123456": the version and what it was built from.
    std::string version = hostinfo.ipn_version.substr(0, hostinfo.ipn_version.find('-'));
    if (!version.empty()) {
        out["node:tsVersion"] = version;
        const auto parts = split(version, '.');
        if (auto minor = parts.size() > 1 ? parse_number<std::uint32_t>(parts[1]) : Result<std::uint32_t>{0u}; minor)
            out["node:tsReleaseTrack"] = std::string{*minor % 2 == 0 ? "stable" : "unstable"};
        out["node:tsAutoUpdate"] = hostinfo.allows_update;
    }
    if (hostinfo.state_encrypted) out["node:tsStateEncrypted"] = *hostinfo.state_encrypted;
    return out;
}

PostureValues posture_of(const Node& node) {
    PostureValues out = node.report.posture;
    for (const auto& [name, attribute] : node.record.attributes) out[name] = attribute.value;
    return out;
}

Result<void> check_attribute_name(std::string_view name) {
    bool good = name.starts_with(kCustom) && name.size() > kCustom.size() && name.size() <= kMostName &&
                std::all_of(name.begin(), name.end(), [](char c) { return is_alnum(c) || c == '_' || c == ':'; });
    if (good) return {};
    return Error::make("\"{}\" can't be the name of an attribute: write custom:name, with letters, digits, \"_\" and "
                       "\":\", at most {} characters in all",
                       name.substr(0, 2 * kMostName), kMostName);
}

Result<PostureValue> parse_attribute(std::string_view text) {
    if (text == "true" || text == "false") return PostureValue{text == "true"};
    bool digits = !text.empty() && std::all_of(text.begin() + (text.front() == '-' ? 1 : 0), text.end(),
                                               [](char c) { return c >= '0' && c <= '9'; });
    if (digits && text != "-") {
        auto number = parse_number<std::int64_t>(text);
        if (!number || *number > kMostNumber || *number < -kMostNumber)
            return Error::make("{} is too large: attributes are whole numbers up to {}", text.substr(0, 40),
                               kMostNumber);
        return PostureValue{static_cast<double>(*number)};
    }
    bool good = !text.empty() && text.size() <= kMostText &&
                std::all_of(text.begin(), text.end(), [](char c) { return is_alnum(c) || c == '_' || c == '.'; });
    if (!good)
        return Error::make(
            "\"{}\" can't be the value of an attribute: write true, false, a whole number, or at most {} "
            "letters, digits, \"_\" and \".\"",
            text.substr(0, 2 * kMostText), kMostText);
    return PostureValue{std::string{text}};
}

std::string attribute_text(const PostureValue& value) {
    if (const auto* truth = std::get_if<bool>(&value)) return *truth ? "true" : "false";
    if (const auto* number = std::get_if<double>(&value)) return fmt::format("{:.0f}", *number);
    return std::get<std::string>(value);
}

std::string_view attribute_kind(const PostureValue& value) {
    if (std::holds_alternative<bool>(value)) return "true or false";
    return std::holds_alternative<double>(value) ? "a number" : "a string";
}

std::string write_attributes(const CustomAttributes& attributes) {
    std::vector<StoredAttribute> stored;
    for (const auto& [name, attribute] : attributes)
        stored.push_back(
            {name, std::string{attribute_kind(attribute.value)}, attribute_text(attribute.value), attribute.expires});
    return json::write(stored);
}

Result<CustomAttributes> read_attributes(std::string_view text) {
    auto stored = json::parse<std::vector<StoredAttribute>>(text);
    if (!stored) return stored.error();
    CustomAttributes out;
    for (StoredAttribute& one : *stored) {
        if (auto named = check_attribute_name(one.name); !named) return named.error();
        // A string of digits is a string.
        auto value = one.kind == "a string" ? Result<PostureValue>{PostureValue{one.text}} : parse_attribute(one.text);
        if (!value) return value.error();
        if (attribute_kind(*value) != one.kind)
            return Error::make("attribute {}: {} is not {}", one.name, one.text, one.kind);
        out[one.name] = {std::move(*value), one.expires};
    }
    return out;
}

Result<void> TailnetState::fits_other_nodes(const std::string& name, const PostureValue& value, NodeId id) const {
    for (const auto& [other_id, other] : nodes_)
        for (const auto& [other_name, attribute] : other->record.attributes) {
            if (other_id == id && other_name == name) continue; // replaced
            if (!equals_ignoring_case(other_name, name)) continue;
            if (other_name != name)
                return Error::make("{} has an attribute {}, which differs from {} only in upper and lower case",
                                   other->record.given_name, other_name, name);
            if (attribute_kind(attribute.value) != attribute_kind(value))
                return Error::make("{} is {} for {}, so it can't be {} here", name, attribute_kind(attribute.value),
                                   other->record.given_name, attribute_kind(value));
        }
    return {};
}

Result<void> TailnetState::change_attributes(WallTime now, NodeId id,
                                             const std::map<std::string, std::optional<CustomAttribute>>& wish) {
    NodePtr before = node(id);
    if (!before) return Error::make("there is no node {}", id);
    Node after = *before;
    for (const auto& [name, attribute] : wish) {
        if (auto good = check_attribute_name(name); !good) return good.error();
        if (!attribute) {
            if (after.record.attributes.erase(name) == 0)
                return Error::make("{} has no attribute {}", before->record.given_name, name);
            continue;
        }
        if (!attribute->expires.is_zero() && attribute->expires <= now)
            return Error::make("{} would expire at once", name);
        if (auto fits = fits_other_nodes(name, attribute->value, id); !fits) return fits.error();
        after.record.attributes[name] = *attribute;
    }
    if (after.record.attributes.size() > kMostAttributes)
        return Error::make("a node can have {} attributes at most", kMostAttributes);
    put_node(std::move(after), true);
    return {};
}

} // namespace tailrace
