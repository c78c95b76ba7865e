#include "policy/app_connectors.hpp"

#include "base/json/json.hpp"
#include "base/text.hpp"

#include <algorithm>

namespace tailrace {

bool AppConnectorEntry::means(const std::vector<std::string>& tags) const {
    return std::any_of(connectors.begin(), connectors.end(), [&](const std::string& name) {
        return name == "*" || std::find(tags.begin(), tags.end(), name) != tags.end();
    });
}

Result<AppConnectorEntry> parse_app_connector_entry(std::string_view json) {
    return json::parse<AppConnectorEntry>(json);
}

std::string plain_domain(std::string_view name) {
    if (!name.empty() && name.back() == '.') name.remove_suffix(1);
    return to_lower(name);
}

} // namespace tailrace
