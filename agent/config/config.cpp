#include "agent/config/config.hpp"

#include "agent/exit_node/choice.hpp"
#include "base/file.hpp"
#include "base/text.hpp"
#include "base/yaml/reader.hpp"

#include <net/if.h>

namespace tailrace {
namespace {

using yaml::checked;
using yaml::parsed_into;
using yaml::scalar;
using yaml::text_into;

auto one_of(std::vector<std::string> allowed) {
    return [allowed](const std::string& text) -> Result<std::string> {
        for (const std::string& good : allowed)
            if (text == good) return text;
        return Error::make("\"{}\" is none of {}", text, join(allowed, ", "));
    };
}

Result<std::string> device_name(const std::string& text) {
    if (text.empty() || text.size() >= IFNAMSIZ || text.find('/') != std::string::npos)
        return Error::make("\"{}\": an interface name has 1 to {} characters, and no slash", text, IFNAMSIZ - 1);
    return text;
}

Result<std::string> on_off_or_auto(const std::string& text) {
    if (text == "auto") return text;
    auto on = yaml::parse_bool(text);
    if (!on) return Error::make("\"{}\" is neither auto nor on or off", text);
    return std::string{*on ? "on" : "off"};
}

/// One of the settings that are flags of `up` and `set` too. Its value is tried at once, so that the line is known.
yaml::Handler pref_handler(const cli::PrefFlag& flag, AgentConfig& config) {
    return [&flag, &config](const YAML::Node& node, const std::string& key) {
        std::string text = join(yaml::scalars(node, key), ",");
        if (flag.kind == cli::PrefFlag::Kind::Bool)
            text = checked(yaml::parse_bool(text), node, key) ? "true" : "false";
        if (key == "exit-node" && text.starts_with("auto:") && text != kUnresolvedExitNode)
            throw yaml::BadConfig{node.Mark().line, fmt::format("exit-node: the only one of the kind of \"{}\" is {}",
                                                                text, kUnresolvedExitNode)};
        Prefs scratch;
        if (auto assigned = flag.assign(scratch, text); !assigned)
            throw yaml::BadConfig{node.Mark().line, fmt::format("{}: {}", key, assigned.error().message())};
        config.given[key] = text;
        config.declares_prefs = true;
    };
}

yaml::Handler secret_file_handler(AgentConfig& config, std::string& path) {
    return [&config, &path](const YAML::Node& node, const std::string& key) {
        path = scalar(node, key);
        if (!path.starts_with('/'))
            throw yaml::BadConfig{node.Mark().line,
                                  fmt::format("{} wants a path that begins with a slash: the key itself has no place "
                                              "in a file that others read",
                                              key)};
        config.declares_prefs = true;
    };
}

yaml::Handlers handlers(AgentConfig& config) {
    DaemonOptions& daemon = config.daemon;
    auto number = [](const std::string& text) { return yaml::parse_between<std::uint32_t>(text, 1, 1'000'000); };
    auto port = [](const std::string& text) { return yaml::parse_between<std::uint16_t>(text, 0, 65535); };
    yaml::Handlers all = {
        {"state-dir", text_into(daemon.state_dir)},
        {"socket", text_into(daemon.socket)},
        {"device", parsed_into(daemon.device, device_name)},
        {"port", parsed_into(daemon.port, port)},
        {"wireguard", parsed_into(daemon.wireguard, one_of({"auto", "kernel", "uapi"}))},
        {"steering", parsed_into(daemon.steering, one_of({"auto", "socket"}))},
        {"port-mapping", parsed_into(daemon.port_mapping, yaml::parse_bool)},
        {"static-endpoints",
         [&daemon](const YAML::Node& node, const std::string& key) {
             daemon.static_endpoints = checked(parse_static_endpoints(join(yaml::scalars(node, key), ",")), node, key);
         }},
        {"probe-path-mtu", parsed_into(daemon.probe_path_mtu, on_off_or_auto)},
        {"fast-path", parsed_into(daemon.fast_path, yaml::parse_bool)},
        {"guard", parsed_into(daemon.guard, yaml::parse_bool)},
        {"guard-rate", parsed_into(daemon.guard_rate, number)},
        {"guard-burst", parsed_into(daemon.guard_burst, number)},
        {"metrics-listen", parsed_into(daemon.metrics_listen, parse_metrics_address)},
        {"on-stop", parsed_into(daemon.on_stop, parse_on_stop)},
        {"log", yaml::log_into(daemon.log_level, daemon.log_format)},
        {"enabled",
         [&config](const YAML::Node& node, const std::string& key) {
             config.enabled = checked(yaml::parse_bool(scalar(node, key)), node, key);
             config.declares_prefs = true;
         }},
        {"locked", parsed_into(config.locked, yaml::parse_bool)},
        {"auth-key-file", secret_file_handler(config, config.auth_key_file)},
        {"oauth-client-file", secret_file_handler(config, config.oauth_client_file)},
    };
    for (const cli::PrefFlag& flag : cli::pref_flags()) all[flag.name] = pref_handler(flag, config);
    return all;
}

} // namespace

Result<OnStop> parse_on_stop(std::string_view text) {
    if (text == "keep") return OnStop::Keep;
    if (text == "down") return OnStop::Down;
    return Error::make("\"{}\" is neither keep nor down", text);
}

Result<Endpoint> parse_metrics_address(std::string_view text) {
    auto at = Endpoint::parse(text);
    if (!at || !at->valid() || at->port == 0 || at->address.is_unspecified() || at->address.is_multicast())
        return Error::make("\"{}\": want one address and a port, like 127.0.0.1:9442 or [::1]:9442", text);
    return at;
}

Result<std::vector<Endpoint>> parse_static_endpoints(std::string_view text) {
    std::vector<Endpoint> out;
    for (std::string_view piece : split(text, ',')) {
        piece = trim(piece);
        if (piece.empty()) continue;
        auto endpoint = Endpoint::parse(piece);
        if (!endpoint || endpoint->port == 0 || endpoint->address.is_unspecified() || endpoint->address.is_multicast())
            return Error::make("\"{}\" is not an address with a port, like 203.0.113.7:41641 or [2001:db8::7]:41641",
                               piece);
        out.push_back(*endpoint);
    }
    if (out.size() > kMostStaticEndpoints)
        return Error::make("{} addresses are more than peers try; at most {}", out.size(), kMostStaticEndpoints);
    return out;
}

Result<AgentConfig> parse_agent_config(std::string_view text, const std::string& name) {
    AgentConfig config;
    if (auto read = yaml::read(text, name, handlers(config)); !read) return read.error();
    auto prefs = declared_prefs(config, Prefs{});
    if (!prefs) return prefs.error().with("{}", name);
    if (auto good = check_prefs(*prefs); !good) return good.error().with("{}", name);
    if (!config.auth_key_file.empty() && !config.oauth_client_file.empty())
        return Error::make("{}: auth-key-file and oauth-client-file are both here: take one of them away", name);
    if (!config.oauth_client_file.empty() && config.locked && prefs->tags().empty())
        return Error::make("{}: oauth-client-file needs advertise-tags: an OAuth client lets in nodes with tags only",
                           name);
    if (config.declares_prefs && config.locked && config.enabled && prefs->control_url.empty())
        return Error::make("{}: login-server is missing: which coordination server shall this node join?", name);
    return config;
}

Result<AgentConfig> load_agent_config(const std::string& path) {
    auto text = read_file(path, 1 << 20);
    if (!text) return Error::make("configuration: {}: name a file that can be read", text.error().message());
    return parse_agent_config(*text, path);
}

Result<Prefs> declared_prefs(const AgentConfig& config, const Prefs& current) {
    Prefs start = current;
    if (config.locked) {
        start = Prefs{};
        start.control_url = current.control_url;
        start.logged_out = current.logged_out;
        start.profile_name = current.profile_name;
        start.auto_update = current.auto_update;
        start.config = current.config;
    }
    auto wanted = cli::prefs_of_set(config.given, start);
    if (!wanted) return wanted.error();
    wanted->want_running = config.enabled;
    if (wanted->exit_node_id == kUnresolvedExitNode) {
        wanted->auto_exit_node = wanted->exit_node_id.substr(wanted->exit_node_id.find(':') + 1);
        if (current.auto_exit_node == wanted->auto_exit_node) wanted->exit_node_id = current.exit_node_id;
    }
    return wanted;
}

std::vector<std::string> changed_options(const DaemonOptions& before, const DaemonOptions& after) {
    std::vector<std::string> names;
    auto note = [&](const char* name, bool same) {
        if (!same) names.emplace_back(name);
    };
    note("state-dir", before.state_dir == after.state_dir);
    note("socket", before.socket == after.socket);
    note("device", before.device == after.device);
    note("port", before.port == after.port);
    note("wireguard", before.wireguard == after.wireguard);
    note("steering", before.steering == after.steering);
    note("port-mapping", before.port_mapping == after.port_mapping);
    note("static-endpoints", before.static_endpoints == after.static_endpoints);
    note("probe-path-mtu", before.probe_path_mtu == after.probe_path_mtu);
    note("fast-path", before.fast_path == after.fast_path);
    note("guard", before.guard == after.guard);
    note("guard-rate", before.guard_rate == after.guard_rate);
    note("guard-burst", before.guard_burst == after.guard_burst);
    note("metrics-listen", before.metrics_listen == after.metrics_listen);
    note("log.format", before.log_format == after.log_format);
    return names;
}

} // namespace tailrace
