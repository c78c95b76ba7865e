// agent/config/config.hpp - tailraced.yaml: what an administrator declares instead of typing it.
#pragma once
#include "agent/cli/pref_flags.hpp"
#include "agent/store/prefs.hpp"
#include "base/log.hpp"
#include "base/result.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// Where the packages put it.
inline constexpr const char* kAgentConfigFile = "/etc/tailrace/tailraced.yaml";

/// What becomes of traffic when tailraced is stopped in order.
enum class OnStop { Keep, Down };
Result<OnStop> parse_on_stop(std::string_view text); ///< "keep", "down"

/// The address must be named: metrics are for whom they were meant for, not for every network that this host is in.
Result<Endpoint> parse_metrics_address(std::string_view text);

/// Addresses with ports, commas between them; at most kMostStaticEndpoints.
inline constexpr std::size_t kMostStaticEndpoints = 16;
Result<std::vector<Endpoint>> parse_static_endpoints(std::string_view text);

/// How tailraced runs. From the file, and from flags, which stand above it.
struct DaemonOptions {
    std::string state_dir = "/var/lib/tailrace";
    std::string socket = "/run/tailrace/tailraced.sock";
    std::string device = "tailrace0";
    std::uint16_t port = 41641;
    std::string wireguard = "auto"; ///< auto, kernel, uapi
    std::string steering = "auto";  ///< auto, socket
    bool port_mapping = true;
    std::vector<Endpoint> static_endpoints; ///< where else `port` is reached, as by a forward on a router
    std::string probe_path_mtu = "auto";    ///< auto: as control says; on, off
    bool fast_path = true;                  ///< for forwarded flows
    bool guard = false;                     ///< against floods of handshakes, where drivers have XDP
    std::uint32_t guard_rate = 100;         ///< handshakes a second from unknown sources that it lets in
    std::uint32_t guard_burst = 500;        ///< and at once
    std::optional<Endpoint> metrics_listen; ///< none: metrics are not served
    OnStop on_stop = OnStop::Keep;
    log::Level log_level = log::Level::Info;
    log::Format log_format = log::default_format();
    bool operator==(const DaemonOptions&) const = default;
};

struct AgentConfig {
    DaemonOptions daemon;
    /// Does the file say anything of this node's place in a tailnet? If not, `tailrace up` and `set` do.
    bool declares_prefs = false;
    bool enabled = true; ///< connected, or as after `tailrace down`
    bool locked = true;  ///< changes by the command line are refused
    std::string auth_key_file;
    std::string oauth_client_file; ///< instead of auth_key_file
    cli::GivenFlags given;         ///< by the names of the flags of `up` and `set`
};

/// `name` is for messages: "tailraced.yaml:3: unknown key \"hostnmae\"".
Result<AgentConfig> parse_agent_config(std::string_view text, const std::string& name);
Result<AgentConfig> load_agent_config(const std::string& path);

/// The preferences that the file asks for. Locked: what it does not name has its default. Otherwise that stays as in
/// `current`. Who we are at control stays in any case.
Result<Prefs> declared_prefs(const AgentConfig& config, const Prefs& current);

/// Daemon options that differ, by their names in the file: they need a restart.
std::vector<std::string> changed_options(const DaemonOptions& before, const DaemonOptions& after);

} // namespace tailrace
