// `tailrace appc-routes`: what an app connector has learned. Words of the reference client (cli-localapi.md 5).
#include "agent/app_connector/app_connector.hpp"
#include "agent/cli/commands.hpp"
#include "agent/local/pretty_json.hpp"
#include "base/json/json.hpp"

#include <algorithm>

namespace tailrace::cli {
namespace {

/// As Go's json.MarshalIndent(value, " ", "  ").
std::string indented(const std::string& json) {
    std::string out;
    for (char c : pretty_json(json, "  ")) {
        out += c;
        if (c == '\n') out += ' ';
    }
    return out;
}

} // namespace

std::string app_connector_text(const AppConnectorRoutes& routes, AppConnectorView view) {
    if (view == AppConnectorView::Map) return json::write(routes.domains) + "\n";
    if (view == AppConnectorView::All)
        return fmt::format("Learned Routes\n==============\n{}\n\nRoutes from Policy\n==================\n{}\n\n",
                           indented(json::write(routes.domains)), indented(json::write(routes.control)));
    std::vector<std::pair<std::string, std::size_t>> counts;
    std::size_t width = 0;
    for (const auto& [name, addresses] : routes.domains) {
        counts.emplace_back(name, addresses.size());
        width = std::max(width, name.size());
    }
    std::ranges::stable_sort(counts, std::ranges::greater{}, [](const auto& entry) { return entry.second; });
    std::string out;
    for (const auto& [name, count] : counts) out += fmt::format("{:<{}} {}\n", name, width, count);
    return out;
}

Task<int> app_connector_routes(LocalClient& client, AppConnectorView view) {
    auto prefs = co_await client.prefs();
    if (!prefs) co_return fail(prefs.error().message());
    if (!prefs->app_connector.advertise) {
        fmt::print("{}\n", view == AppConnectorView::Json ? "null" : "not a connector");
        co_return 0;
    }
    if (view == AppConnectorView::Number) {
        fmt::print("{}\n", prefs->routes().size());
        co_return 0;
    }
    auto body = co_await client.request("GET", "/localapi/v0/appc-route-info", "");
    if (!body) co_return fail(body.error().message());
    if (view == AppConnectorView::Json) {
        fmt::print("{}\n", pretty_json(*body, "  "));
        co_return 0;
    }
    auto routes = parse_app_connector_routes(*body);
    if (!routes) co_return fail(routes.error().message());
    fmt::print("{}", app_connector_text(*routes, view));
    co_return 0;
}

} // namespace tailrace::cli
