// agent/app_connector/app_connector.hpp - routes that follow from names (linux-router.md 11).
#pragma once
#include "base/bytes.hpp"
#include "base/json/fields.hpp"
#include "base/net.hpp"
#include "base/result.hpp"
#include "policy/app_connectors.hpp"

#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// With it the routes of what leaves the configuration are taken back.
inline constexpr const char* kStoreRoutesCap = "store-appc-routes";

/// What is for us of all that control says of connectors.
struct AppConnectorConfig {
    std::vector<std::string> domains; ///< "example.com", or "*.example.com" for what is below it
    std::vector<IpPrefix> routes;     ///< offered whatever the names say
    bool operator==(const AppConnectorConfig&) const = default;
};
/// `values` of kAppConnectorsCap, for a node with these tags. Sorted, each once; routes that nobody may offer are left
/// out.
Result<AppConnectorConfig> app_connector_config(const std::vector<RawJson>& values,
                                                const std::vector<std::string>& tags);

/// What a restart must not forget. Names of the reference client: tailscale types/appctype/appconnector.go.
struct AppConnectorRoutes {
    std::vector<IpPrefix> control;                         ///< of the configuration
    std::map<std::string, std::vector<IpAddress>> domains; ///< learned, sorted; also names without any so far
    std::vector<std::string> wildcards;                    ///< without "*."
    bool operator==(const AppConnectorRoutes&) const = default;
};
Result<AppConnectorRoutes> parse_app_connector_routes(std::string_view text);
std::string write_app_connector_routes(const AppConnectorRoutes& routes);

/// Learns from the answers that peers get which addresses the configured names have, and says what is to be offered
/// for them. Pure.
class AppConnector {
public:
    static constexpr std::size_t kMostNames = 4096;
    static constexpr std::size_t kMostAddresses = 3000; ///< of all names together; control heeds 4096 routes of a node
    static constexpr std::size_t kMostAliases = 16;     ///< between a name and its address

    /// Replaces all that was known. Of a file that says more than we would, the rest is left out.
    void restore(AppConnectorRoutes routes);
    /// From now on. `take_back`: what it says no more is offered no more; else routes only ever come.
    void configure(const AppConnectorConfig& config, bool take_back);
    /// A DNS message that goes to a peer; what is no answer teaches nothing. True when an address is new.
    bool observe(BytesView answer);
    /// Somebody has chosen all routes by hand: addresses are learned anew.
    void forget_learned();

    /// `current` with what is to be offered, and without what is not: unchanged where nothing is to be done.
    std::vector<IpPrefix> routes_beside(std::vector<IpPrefix> current) const;
    /// What routes_beside() said is in force and saved.
    void routes_are_saved() { withdrawn_.clear(); }

    const AppConnectorRoutes& routes() const { return routes_; }
    bool is_full() const { return addresses_ >= kMostAddresses || routes_.domains.size() >= kMostNames; }

private:
    using Aliases = std::map<std::string, std::string>; ///< canonical name -> the name that it stands for
    /// The name that is ours among `name` and those it stands for, "" for none.
    std::string routed_name(std::string name, const Aliases& aliases);
    bool below_wildcard(std::string_view name) const;
    bool learn(const std::string& name, const IpAddress& address);

    AppConnectorRoutes routes_;
    std::set<IpPrefix> withdrawn_; ///< offered before, to be taken back
    std::size_t addresses_ = 0;    ///< in routes_.domains
};

template <>
struct JsonFields<AppConnectorRoutes> {
    static constexpr auto fields = field_table(field("Control", &AppConnectorRoutes::control, Omit::Empty),
                                               field("Domains", &AppConnectorRoutes::domains, Omit::Empty),
                                               field("Wildcards", &AppConnectorRoutes::wildcards, Omit::Empty));
};

} // namespace tailrace
