// agent/store/prefs.hpp - what the user asked for. JSON names and defaults of the reference client (cli-localapi.md
// 10).
#pragma once
#include "base/json/fields.hpp"
#include "base/net.hpp"
#include "base/result.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// Who we are at control: empty before the first login.
struct Persist {
    struct User {
        std::int64_t id = 0;
        std::string login_name;
        std::string display_name;
        std::string profile_pic_url;
        bool operator==(const User&) const = default;
    };
    static const std::string& zero_node_key();
    static const std::string& zero_lock_key();

    std::string private_node_key = zero_node_key();     ///< "privkey:<hex>"; zero: none
    std::string old_private_node_key = zero_node_key(); ///< sent as OldNodeKey after a rotation
    User user_profile;
    std::string network_lock_key = zero_lock_key(); ///< "nlpriv:<hex>"
    std::string node_id;                            ///< StableID

    bool has_node_key() const { return private_node_key != zero_node_key(); }
    bool operator==(const Persist&) const = default;
};

enum class NetfilterMode : int { Off = 0, NoDivert = 1, On = 2 };

struct Prefs {
    struct AutoUpdate {
        bool check = true;
        std::optional<bool> apply;
        bool operator==(const AutoUpdate&) const = default;
    };
    struct AppConnector {
        bool advertise = false;
        bool operator==(const AppConnector&) const = default;
    };

    std::string control_url;
    bool route_all = false;
    std::string exit_node_id;
    std::string exit_node_ip;
    std::string auto_exit_node;
    std::string internal_exit_node_prior;
    bool exit_node_allow_lan_access = false;
    bool corp_dns = true;
    bool run_ssh = false;
    bool run_web_client = false;
    bool want_running = false;
    bool logged_out = false;
    bool shields_up = false;
    std::optional<std::vector<std::string>> advertise_tags;
    std::string hostname;
    bool notepad_urls = false;
    bool force_daemon = false;
    std::optional<std::vector<IpPrefix>> advertise_routes;
    std::optional<std::vector<std::string>> advertise_services;
    std::optional<bool> sync;
    bool no_snat = false;
    std::optional<bool> no_stateful_filtering = true;
    int netfilter_mode = static_cast<int>(NetfilterMode::On);
    std::string operator_user;
    std::string profile_name;
    AutoUpdate auto_update;
    AppConnector app_connector;
    bool posture_checking = false;
    std::string netfilter_kind;
    bool remote_config = false;
    std::optional<std::vector<RawJson>> drive_shares;
    std::optional<std::uint16_t> relay_server_port; ///< 0: any; empty: it does not relay for peers
    std::optional<std::vector<Endpoint>> relay_server_static_endpoints;
    bool hard_nat_traversal = true; ///< ours; the reference client has none
    bool routes_over_lan = false;   ///< likewise: accepted routes win over networks that this host is attached to
    std::optional<Persist> config;

    bool operator==(const Prefs&) const = default;

    std::vector<IpPrefix> routes() const { return advertise_routes.value_or(std::vector<IpPrefix>{}); }
    std::vector<std::string> tags() const { return advertise_tags.value_or(std::vector<std::string>{}); }
    std::vector<std::string> services() const { return advertise_services.value_or(std::vector<std::string>{}); }
    bool advertises_exit_node() const;
    /// As shown to anybody who asks: the secrets are zero.
    Prefs without_secrets() const;
};

/// Why these preferences make no sense; one line a reason. Does not look at the machine.
Result<void> check_prefs(const Prefs& prefs);

/// `body` is a MaskedPrefs document: the fields whose "<Field>Set" is true replace those of `prefs`.
Result<Prefs> apply_masked_prefs(const Prefs& prefs, std::string_view body);
/// The document that changes exactly `names` (JSON names) to the values that they have in `prefs`.
std::string masked_prefs(const Prefs& prefs, const std::vector<std::string>& names);
/// JSON name and JSON text of each preference that differs.
std::vector<std::string> changed_prefs(const Prefs& before, const Prefs& after);

Result<Prefs> parse_prefs(std::string_view text);
std::string write_prefs(const Prefs& prefs);

template <>
struct JsonFields<Persist::User> {
    static constexpr auto fields =
        field_table(field("ID", &Persist::User::id), field("LoginName", &Persist::User::login_name),
                    field("DisplayName", &Persist::User::display_name),
                    field("ProfilePicURL", &Persist::User::profile_pic_url, Omit::Empty));
};
template <>
struct JsonFields<Persist> {
    static constexpr auto fields = field_table(
        field("PrivateNodeKey", &Persist::private_node_key), field("OldPrivateNodeKey", &Persist::old_private_node_key),
        field("UserProfile", &Persist::user_profile), field("NetworkLockKey", &Persist::network_lock_key),
        field("NodeID", &Persist::node_id));
};
template <>
struct JsonFields<Prefs::AutoUpdate> {
    static constexpr auto fields =
        field_table(field("Check", &Prefs::AutoUpdate::check), field("Apply", &Prefs::AutoUpdate::apply));
};
template <>
struct JsonFields<Prefs::AppConnector> {
    static constexpr auto fields = field_table(field("Advertise", &Prefs::AppConnector::advertise));
};
template <>
struct JsonFields<Prefs> {
    static constexpr auto fields = field_table(
        field("ControlURL", &Prefs::control_url), field("RouteAll", &Prefs::route_all),
        field("ExitNodeID", &Prefs::exit_node_id), field("ExitNodeIP", &Prefs::exit_node_ip),
        field("AutoExitNode", &Prefs::auto_exit_node, Omit::Empty),
        field("InternalExitNodePrior", &Prefs::internal_exit_node_prior),
        field("ExitNodeAllowLANAccess", &Prefs::exit_node_allow_lan_access), field("CorpDNS", &Prefs::corp_dns),
        field("RunSSH", &Prefs::run_ssh), field("RunWebClient", &Prefs::run_web_client),
        field("WantRunning", &Prefs::want_running), field("LoggedOut", &Prefs::logged_out),
        field("ShieldsUp", &Prefs::shields_up), field("AdvertiseTags", &Prefs::advertise_tags),
        field("Hostname", &Prefs::hostname), field("NotepadURLs", &Prefs::notepad_urls),
        field("ForceDaemon", &Prefs::force_daemon, Omit::Empty), field("AdvertiseRoutes", &Prefs::advertise_routes),
        field("AdvertiseServices", &Prefs::advertise_services), field("Sync", &Prefs::sync),
        field("NoSNAT", &Prefs::no_snat), field("NoStatefulFiltering", &Prefs::no_stateful_filtering),
        field("NetfilterMode", &Prefs::netfilter_mode), field("OperatorUser", &Prefs::operator_user, Omit::Empty),
        field("ProfileName", &Prefs::profile_name, Omit::Empty), field("AutoUpdate", &Prefs::auto_update),
        field("AppConnector", &Prefs::app_connector), field("PostureChecking", &Prefs::posture_checking),
        field("NetfilterKind", &Prefs::netfilter_kind), field("RemoteConfig", &Prefs::remote_config),
        field("DriveShares", &Prefs::drive_shares), field("RelayServerPort", &Prefs::relay_server_port, Omit::Empty),
        field("RelayServerStaticEndpoints", &Prefs::relay_server_static_endpoints, Omit::Empty),
        field("HardNATTraversal", &Prefs::hard_nat_traversal), field("RoutesOverLAN", &Prefs::routes_over_lan),
        field("Config", &Prefs::config));
};

} // namespace tailrace
