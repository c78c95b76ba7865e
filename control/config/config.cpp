// control/config/config.cpp - reads YAML by yaml-cpp, which throws: the throwing stays in this file.
#include "control/config/config.hpp"

#include "base/file.hpp"
#include "base/text.hpp"

#include <yaml-cpp/yaml.h>

#include <functional>
#include <map>

namespace tailrace {

namespace {

/// A complaint about one place of the file, thrown to the one place that catches.
struct BadConfig {
    int line; // from 0, as yaml-cpp counts; -1 for none
    std::string what;
};

std::string scalar(const YAML::Node& node, const std::string& key) {
    if (node.IsNull()) return "";
    if (!node.IsScalar()) throw BadConfig{node.Mark().line, fmt::format("{} wants a single value", key)};
    return node.Scalar();
}

template <typename T>
T checked(Result<T> result, const YAML::Node& node, const std::string& key) {
    if (!result) throw BadConfig{node.Mark().line, fmt::format("{}: {}", key, result.error().message())};
    return std::move(*result);
}

using Handler = std::function<void(const YAML::Node&)>;

void read_map(const YAML::Node& map, const std::string& within, const std::map<std::string, Handler>& handlers) {
    if (map.IsNull()) return;
    if (!map.IsMap()) throw BadConfig{map.Mark().line, fmt::format("{} wants \"key: value\" lines", within)};
    std::map<std::string, int> seen;
    for (const auto& entry : map) {
        const std::string key = scalar(entry.first, "a key");
        auto handler = handlers.find(key);
        if (handler == handlers.end()) {
            std::vector<std::string> known;
            for (const auto& [name, unused] : handlers) known.push_back(name);
            throw BadConfig{entry.first.Mark().line,
                            fmt::format("unknown key \"{}\" (known here: {})", key, join(known, ", "))};
        }
        if (auto [at, fresh] = seen.emplace(key, entry.first.Mark().line); !fresh)
            throw BadConfig{entry.first.Mark().line,
                            fmt::format("\"{}\" is already set in line {}", key, at->second + 1)};
        handler->second(entry.second);
    }
}

Result<std::string> check_server_url(std::string url) {
    while (!url.empty() && url.back() == '/') url.pop_back();
    if (!url.starts_with("http://") && !url.starts_with("https://"))
        return Error::make("\"{}\" does not start with http:// or https://", url);
    std::string_view rest = std::string_view{url}.substr(url.find("://") + 3);
    if (rest.empty() || rest.find_first_of("/?# @") != std::string_view::npos)
        return Error::make("\"{}\" must be scheme, host and port only, such as https://control.example.com", url);
    return url;
}

Result<std::string> check_domain(std::string domain) {
    if (!domain.empty() && domain.back() == '.') domain.pop_back();
    domain = to_lower(domain);
    if (domain.size() > 200) return Error::make("longer than 200 characters");
    for (std::string_view label : split(domain, '.')) {
        bool good = !label.empty() && label.size() <= 63 && label.front() != '-' && label.back() != '-';
        for (char c : label) good = good && ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-');
        if (!good) return Error::make("\"{}\" is not a domain name", domain);
    }
    return domain;
}

Result<IpPrefix> check_prefix(std::string_view text, const IpPrefix& within) {
    auto prefix = IpPrefix::parse(text);
    if (!prefix) return prefix.error();
    if (!within.contains(prefix->masked()))
        return Error::make("{} is outside of {}, the only range that clients accept", text, within.text());
    if (prefix->address().bits() - prefix->bits() < 4) return Error::make("{} is too small for a tailnet", text);
    return prefix->masked();
}

Result<bool> check_relay(std::string_view text) {
    if (text == "embedded") return true;
    if (text == "none" || text.empty()) return false;
    return Error::make("\"{}\" is neither \"embedded\" nor \"none\"", text);
}

Result<int> check_port(std::string_view text) {
    auto port = parse_number<int>(text);
    if (!port || *port < -1 || *port == 0 || *port > 65535)
        return Error::make("\"{}\" is not a port from 1 to 65535, or -1 for none", text);
    return *port;
}

void read_all(const YAML::Node& root, ControlConfig& config) {
    read_map(
        root, "the file",
        {
            {"server_url",
             [&](const YAML::Node& n) {
                 config.server_url = checked(check_server_url(scalar(n, "server_url")), n, "server_url");
             }},
            {"listen",
             [&](const YAML::Node& n) {
                 config.listen = checked(ListenAddress::parse_listen(scalar(n, "listen")), n, "listen");
             }},
            {"listen_tls",
             [&](const YAML::Node& n) {
                 config.listen_tls = checked(ListenAddress::parse_listen(scalar(n, "listen_tls")), n, "listen_tls");
                 config.listen_tls_is_default = false;
             }},
            {"metrics_listen",
             [&](const YAML::Node& n) {
                 config.metrics_listen =
                     checked(ListenAddress::parse_listen(scalar(n, "metrics_listen")), n, "metrics_listen");
             }},
            {"tls_certificate", [&](const YAML::Node& n) { config.tls_certificate = scalar(n, "tls_certificate"); }},
            {"tls_key", [&](const YAML::Node& n) { config.tls_key = scalar(n, "tls_key"); }},
            {"state_dir", [&](const YAML::Node& n) { config.state_dir = scalar(n, "state_dir"); }},
            {"socket", [&](const YAML::Node& n) { config.socket = scalar(n, "socket"); }},
            {"base_domain",
             [&](const YAML::Node& n) {
                 config.base_domain = checked(check_domain(scalar(n, "base_domain")), n, "base_domain");
             }},
            {"prefixes",
             [&](const YAML::Node& prefixes) {
                 read_map(prefixes, "prefixes",
                          {{"v4",
                            [&](const YAML::Node& n) {
                                config.prefix_v4 = checked(check_prefix(scalar(n, "v4"), cgnat_prefix()), n, "v4");
                            }},
                           {"v6", [&](const YAML::Node& n) {
                                config.prefix_v6 =
                                    checked(check_prefix(scalar(n, "v6"), tailscale_ula_prefix()), n, "v6");
                            }}});
             }},
            {"relay",
             [&](const YAML::Node& n) {
                 config.embedded_relay = checked(check_relay(scalar(n, "relay")), n, "relay");
             }},
            {"relay_stun_port",
             [&](const YAML::Node& n) {
                 config.relay_stun_port = checked(check_port(scalar(n, "relay_stun_port")), n, "relay_stun_port");
             }},
            {"derp_map_file", [&](const YAML::Node& n) { config.derp_map_file = scalar(n, "derp_map_file"); }},
            {"policy_file", [&](const YAML::Node& n) { config.policy_file = scalar(n, "policy_file"); }},
            {"ephemeral_timeout",
             [&](const YAML::Node& n) {
                 config.ephemeral_timeout =
                     checked(parse_duration(scalar(n, "ephemeral_timeout")), n, "ephemeral_timeout");
             }},
            {"log",
             [&](const YAML::Node& log_node) {
                 read_map(log_node, "log",
                          {{"level",
                            [&](const YAML::Node& n) {
                                config.log_level = checked(log::parse_level(scalar(n, "level")), n, "level");
                            }},
                           {"format", [&](const YAML::Node& n) {
                                config.log_format = checked(log::parse_format(scalar(n, "format")), n, "format");
                            }}});
             }},
        });
}

} // namespace

Result<ListenAddress> ListenAddress::parse_listen(std::string_view text) {
    ListenAddress out;
    out.text = std::string{trim(text)};
    if (out.text.empty()) return out;
    std::string full = out.text.front() == ':' ? "[::]" + out.text : out.text;
    if (full.starts_with("localhost:")) full.replace(0, 9, "127.0.0.1");
    auto endpoint = Endpoint::parse(full);
    if (!endpoint)
        return Error::make("\"{}\" is not an address and a port, such as \"0.0.0.0:8080\" or \":8080\"", text);
    out.endpoint = *endpoint;
    out.enabled = true;
    return out;
}

std::string ControlConfig::server_host() const {
    std::string_view rest = std::string_view{server_url}.substr(server_url.find("://") + 3);
    if (rest.starts_with('[')) return std::string{rest.substr(1, rest.find(']') - 1)};
    return std::string{rest.substr(0, rest.find(':'))};
}

ControlConfig default_config() {
    ControlConfig config;
    config.server_url = "http://127.0.0.1:8080";
    config.listen = *ListenAddress::parse_listen("127.0.0.1:8080");
    config.listen_tls = *ListenAddress::parse_listen(":443");
    config.metrics_listen = *ListenAddress::parse_listen("127.0.0.1:9090");
    config.state_dir = "/var/lib/tailrace-control";
    config.socket = "/run/tailrace-control/control.sock";
    config.base_domain = "tail.internal";
    config.prefix_v4 = cgnat_prefix();
    config.prefix_v6 = tailscale_ula_prefix();
    config.ephemeral_timeout = std::chrono::minutes{30};
    config.log_format = log::default_format();
    return config;
}

Result<ControlConfig> parse_config(std::string_view yaml, const std::string& name) {
    ControlConfig config = default_config();
    try {
        read_all(YAML::Load(std::string{yaml}), config);
    } catch (const BadConfig& bad) {
        return Error::make("{}:{}: {}", name, bad.line + 1, bad.what);
    } catch (const YAML::Exception& bad) {
        return Error::make("{}:{}: {}", name, bad.mark.line + 1, bad.msg);
    } catch (const std::exception& bad) {
        return Error::make("{}: {}", name, bad.what());
    }
    if (config.tls_certificate.empty() != config.tls_key.empty())
        return Error::make("{}: tls_certificate and tls_key go together: set both or neither", name);
    if (!config.listen.enabled && !config.listen_tls.enabled)
        return Error::make("{}: listen and listen_tls are both empty, so nobody could connect", name);
    if (config.embedded_relay && !config.listen_tls.enabled && config.server_url.starts_with("http://"))
        return Error::make("{}: relay: embedded needs TLS, which its clients want: set listen_tls", name);
    return config;
}

Result<ControlConfig> load_config(const std::string& path) {
    auto text = read_file(path, 1 << 20);
    if (!text) return text.error();
    return parse_config(*text, path);
}

} // namespace tailrace
