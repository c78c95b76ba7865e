#include "policy/app_connectors.hpp"

#include "base/json/json.hpp"
#include "base/net.hpp"
#include "base/text.hpp"
#include "policy/words.hpp"

#include <algorithm>

namespace tailrace {
namespace {

/// RFC 1035 2.3.4, and the underscores of RFC 8552.
bool is_dns_name(std::string_view text) {
    constexpr std::size_t kLongestName = 253, kLongestLabel = 63;
    const auto labels = split(text, '.');
    return text.size() <= kLongestName && std::all_of(labels.begin(), labels.end(), [](std::string_view label) {
               return !label.empty() && label.size() <= kLongestLabel &&
                      std::all_of(label.begin(), label.end(), [](char c) {
                          return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                                 c == '-' || c == '_';
                      });
           });
}

} // namespace

bool AppConnectorEntry::means(const std::vector<std::string>& tags) const {
    return std::any_of(connectors.begin(), connectors.end(), [&](const std::string& name) {
        return name == "*" || std::find(tags.begin(), tags.end(), name) != tags.end();
    });
}

Result<AppConnectorEntry> parse_app_connector_entry(std::string_view json) {
    return json::parse<AppConnectorEntry>(json);
}

Result<void> check_app_domain(std::string_view text) {
    auto name = text;
    if (name.starts_with("*.")) name.remove_prefix(2);
    if (name.ends_with('.')) name.remove_suffix(1);
    if (is_dns_name(name)) return {};
    const bool is_ascii =
        std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 128; });
    return Error::make("{}: want a name such as example.com, or *.example.com for all below it{}", quoted(text),
                       is_ascii ? "" : "; letters beyond ASCII as the DNS has them, xn--...");
}

Result<void> check_app_route(std::string_view text) {
    auto prefix = IpPrefix::parse(text);
    if (!prefix) {
        const auto address = IpAddress::parse(text);
        if (address && address->valid())
            return Error::make("{}: want a prefix: write {}", quoted(text), IpPrefix::single(*address).text());
        return prefix.error();
    }
    if (!prefix->valid()) return Error::make("{}: want a prefix such as 192.0.2.0/24", quoted(text));
    if (!prefix->is_masked())
        return Error::make("{}: want a prefix without bits behind its length: write {}", quoted(text),
                           prefix->masked().text());
    return {};
}

std::string plain_domain(std::string_view name) {
    if (!name.empty() && name.back() == '.') name.remove_suffix(1);
    return to_lower(name);
}

} // namespace tailrace
