#include "control/config/config.hpp"

#include "base/file.hpp"
#include "base/text.hpp"
#include "base/yaml/reader.hpp"
#include "control/config/dns_keys.hpp"

namespace tailrace {

namespace {

Result<std::string> check_server_url(std::string url) {
    while (!url.empty() && url.back() == '/') url.pop_back();
    if (!url.starts_with("http://") && !url.starts_with("https://"))
        return Error::make("\"{}\" does not start with http:// or https://", url);
    std::string_view rest = std::string_view{url}.substr(url.find("://") + 3);
    if (rest.empty() || rest.find_first_of("/?# @") != std::string_view::npos)
        return Error::make("\"{}\" must be scheme, host and port only, such as https://control.example.com", url);
    return url;
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

Result<RouteChoice> check_route_choice(std::string_view text) {
    if (text == "primary") return RouteChoice::Primary;
    if (text == "region") return RouteChoice::Region;
    return Error::make("\"{}\" is neither \"primary\" nor \"region\"", text);
}

Result<int> check_port(std::string_view text) {
    auto port = parse_number<int>(text);
    if (!port || *port < -1 || *port == 0 || *port > 65535)
        return Error::make("\"{}\" is not a port from 1 to 65535, or -1 for none", text);
    return *port;
}

yaml::Handlers handlers(ControlConfig& config) {
    using namespace yaml;
    auto prefix_in = [](IpPrefix within) {
        return [within](const std::string& text) { return check_prefix(text, within); };
    };
    return {{"server_url", parsed_into(config.server_url, check_server_url)},
            {"listen", parsed_into(config.listen, ListenAddress::parse_listen)},
            {"listen_tls",
             [&config](const YAML::Node& n, const std::string& key) {
                 config.listen_tls = checked(ListenAddress::parse_listen(scalar(n, key)), n, key);
                 config.listen_tls_is_default = false;
             }},
            {"metrics_listen", parsed_into(config.metrics_listen, ListenAddress::parse_listen)},
            {"tls_certificate", text_into(config.tls_certificate)},
            {"tls_key", text_into(config.tls_key)},
            {"state_dir", text_into(config.state_dir)},
            {"socket", text_into(config.socket)},
            {"base_domain", parsed_into(config.base_domain, check_domain)},
            {"dns", dns_settings_into(config.dns)},
            {"prefixes", map_of({{"v4", parsed_into(config.prefix_v4, prefix_in(cgnat_prefix()))},
                                 {"v6", parsed_into(config.prefix_v6, prefix_in(tailscale_ula_prefix()))}})},
            {"relay", parsed_into(config.embedded_relay, check_relay)},
            {"relay_stun_port", parsed_into(config.relay_stun_port, check_port)},
            {"derp_map_file", text_into(config.derp_map_file)},
            {"policy_file", text_into(config.policy_file)},
            {"ephemeral_timeout", parsed_into(config.ephemeral_timeout, parse_duration)},
            {"device_approval", parsed_into(config.device_approval, parse_bool)},
            {"route_choice", parsed_into(config.route_choice, check_route_choice)},
            {"log", log_into(config.log_level, config.log_format)}};
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

Result<ControlConfig> parse_config(std::string_view text, const std::string& name) {
    ControlConfig config = default_config();
    if (auto done = yaml::read(text, name, handlers(config)); !done) return done.error();
    if (config.tls_certificate.empty() != config.tls_key.empty())
        return Error::make("{}: tls_certificate and tls_key go together: set both or neither", name);
    if (config.dns.split.contains(config.base_domain) && config.dns.magic_dns)
        return Error::make("{}: dns: split: {} is base_domain, whose names are those of the nodes: take it away", name,
                           config.base_domain);
    if (!config.listen.enabled && !config.listen_tls.enabled)
        return Error::make("{}: listen and listen_tls are both empty, so nobody could connect", name);
    if (config.embedded_relay && !config.listen_tls.enabled && config.server_url.starts_with("http://"))
        return Error::make("{}: relay: embedded needs TLS, which its clients want: set listen_tls", name);
    return config;
}

Result<ControlConfig> load_config(const std::string& path) {
    auto text = read_file(path, 1 << 20);
    if (!text)
        return Error::make("configuration: {}: name a file that can be read, or start without --config",
                           text.error().message());
    return parse_config(*text, path);
}

} // namespace tailrace
