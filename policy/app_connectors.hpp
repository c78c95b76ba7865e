// policy/app_connectors.hpp - what `nodeAttrs` say of app connectors, to those who are some and to those who use them.
#pragma once
#include "base/json/fields.hpp"
#include "base/result.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// The name in `app` of `nodeAttrs`, and in the CapMap of a node.
inline constexpr const char* kAppConnectorsCap = "tailscale.com/app-connectors";

/// One value of it. Source: tailscale types/appctype/appconnector.go, AppConnectorAttr.
struct AppConnectorEntry {
    std::vector<std::string> connectors; ///< tags, "*" for every node that offers to be one
    std::vector<std::string> domains;    ///< "example.com", "*.example.com"
    std::vector<std::string> routes;

    /// Whether a node with these tags is meant.
    bool means(const std::vector<std::string>& tags) const;
};
Result<AppConnectorEntry> parse_app_connector_entry(std::string_view json);

/// Whether a name in the DNS can be meant: "example.com", or "*.example.com" for all below it; in any case, a dot at
/// the end does no harm.
Result<void> check_app_domain(std::string_view text);
/// A prefix without host bits: agents do not offer others.
Result<void> check_app_route(std::string_view text);

/// Lower case, without a dot at the end.
std::string plain_domain(std::string_view name);

template <>
struct JsonFields<AppConnectorEntry> {
    static constexpr auto fields =
        field_table(field("connectors", &AppConnectorEntry::connectors), field("domains", &AppConnectorEntry::domains),
                    field("routes", &AppConnectorEntry::routes));
};

} // namespace tailrace
