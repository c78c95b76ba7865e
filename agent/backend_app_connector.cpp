// What the backend has to do as an app connector: routes that follow from names.
#include "agent/backend.hpp"
#include "base/json/json.hpp"
#include "base/log.hpp"

namespace tailrace {

std::string Backend::connector_key() const {
    return "profile-" + profile_id_ + "||_routeInfo"; // Source: linux-router.md 11
}

void Backend::load_connector() {
    auto text = store_.get(connector_key());
    if (!text) return;
    auto routes = parse_app_connector_routes(*text);
    if (!routes) {
        log::warn("what the app connector had learned cannot be read; it learns anew", {{"error", routes.error()}});
        return;
    }
    connector_.restore(std::move(*routes));
    connector_saved_ = connector_.routes();
}

/// Whatever control thinks of taking routes back: where tailraced.yaml says which routes there are, a restart has only
/// this to go by.
void Backend::save_connector() {
    if (profile_id_.empty() || connector_.routes() == connector_saved_) return;
    auto saved = store_.set(connector_key(), write_app_connector_routes(connector_.routes()));
    if (saved)
        connector_saved_ = connector_.routes();
    else
        log::warn("what the app connector learned is not saved", {{"error", saved.error()}});
}

void Backend::forget_learned_routes() {
    connector_.forget_learned();
    save_connector();
}

Prefs Backend::with_connector_routes(Prefs prefs) {
    if (!prefs.app_connector.advertise) return prefs;
    if (netmap_.has_self()) {
        const wire::Node& self = netmap_.self();
        auto said = self.cap_map.find(kAppConnectorsCap);
        auto config = said == self.cap_map.end() ? AppConnectorConfig{} : app_connector_config(said->second, self.tags);
        if (config) connector_.configure(*config, self.has_cap(kStoreRoutesCap));
        connector_trouble_ = config ? "" : config.error().message();
    }
    auto routes = connector_.routes_beside(prefs.routes());
    if (routes == prefs.routes()) return prefs;
    if (routes.empty())
        prefs.advertise_routes.reset();
    else
        prefs.advertise_routes = std::move(routes);
    return prefs;
}

void Backend::follow_connector() {
    if (!prefs_.app_connector.advertise) return;
    const std::size_t before = prefs_.routes().size();
    auto done = edit_prefs(prefs_);
    if (!done)
        log::warn("routes of the app connector are not offered; tried again with the next", {{"error", done.error()}});
    else if (const std::size_t now = prefs_.routes().size(); now != before)
        log::info("the app connector has other routes", {{"before", before}, {"now", now}});
    save_connector();
}

std::string Backend::on_connector_routes_wanted() {
    if (!prefs_.app_connector.advertise) return R"({"Domains":null})";
    return "{\"Domains\":" + json::write(connector_.routes().domains) + "}";
}

} // namespace tailrace
