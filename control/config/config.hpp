// control/config/config.hpp - what the operator may set, and what holds without a word from them.
#pragma once
#include "base/log.hpp"
#include "base/net.hpp"
#include "base/result.hpp"
#include "base/time.hpp"
#include "control/config/dns.hpp"

#include <optional>
#include <string>
#include <string_view>

namespace tailrace {

/// Where to listen: "HOST:PORT", ":PORT" or "" for nowhere.
struct ListenAddress {
    std::string text;  ///< as configured
    Endpoint endpoint; ///< the unspecified IPv6 address for ":PORT": both families
    bool enabled = false;

    static Result<ListenAddress> parse_listen(std::string_view text);
};

/// Which of the routers of one route a client is given.
enum class RouteChoice {
    Primary, ///< all the same one
    Region,  ///< one of its own region, or else the nearest: routes/region_choice.hpp
};

/// The configuration file of tailrace-control (YAML). README.md describes every key.
struct ControlConfig {
    std::string server_url; ///< how clients reach us: scheme, host and port, no slash at the end
    ListenAddress listen;
    ListenAddress listen_tls;
    bool listen_tls_is_default = true; ///< nobody asked for it: a port that can't be bound is a warning only
    ListenAddress metrics_listen;
    std::string tls_certificate; ///< PEM files; empty: a self-signed pair is made in state_dir
    std::string tls_key;
    std::string state_dir;
    std::string socket;
    std::string base_domain; ///< names are HOST.base_domain
    DnsSettings dns;
    IpPrefix prefix_v4;
    IpPrefix prefix_v6;
    std::string derp_map_file; ///< wire JSON; empty: no region but that of the embedded relay
    bool embedded_relay = false;
    int relay_stun_port = 3478; ///< of the embedded relay; -1: no STUN
    std::string policy_file;    ///< empty: the policy lives in the store
    Duration ephemeral_timeout{};
    bool device_approval =
        false; ///< a new node waits until an administrator lets it in, unless its key is pre-approved
    RouteChoice route_choice = RouteChoice::Primary;
    log::Level log_level = log::Level::Info;
    log::Format log_format = log::Format::Text;

    std::string server_host() const; ///< of server_url, without port and brackets
};

/// `name` is for messages: "control.yaml:3: unknown key \"lsiten\"".
Result<ControlConfig> parse_config(std::string_view text, const std::string& name);
Result<ControlConfig> load_config(const std::string& path);
/// Everything as if the file were empty.
ControlConfig default_config();

} // namespace tailrace
