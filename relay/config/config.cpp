#include "relay/config/config.hpp"

#include "base/file.hpp"
#include "base/io/http.hpp"
#include "base/io/tls.hpp"
#include "base/text.hpp"
#include "base/yaml/reader.hpp"

namespace tailrace::relay {
namespace {

yaml::Handler mesh(RelayConfig& config) {
    return yaml::map_of({{"key_file", yaml::text_into(config.mesh_key_file)},
                         {"with", [&config](const YAML::Node& list, const std::string& key) {
                              if (!list.IsSequence())
                                  throw yaml::BadConfig{list.Mark().line, "with wants a list of URLs"};
                              for (const auto& item : list)
                                  config.mesh_with.push_back(
                                      yaml::checked(parse_mesh_peer(yaml::scalar(item, key)), item, key));
                          }}});
}

yaml::Handler verify(RelayConfig& config) {
    auto url = [](const std::string& text) -> Result<std::string> {
        auto parsed = Url::parse(text);
        if (!parsed) return parsed.error();
        return text;
    };
    auto pin = [](const std::string& text) -> Result<std::optional<std::array<std::byte, 32>>> {
        auto digest = parse_certificate_pin(text);
        if (!digest) return digest.error();
        return std::optional{*digest};
    };
    return yaml::map_of({{"control_url", yaml::parsed_into(config.verify_url, url)},
                         {"certificate", yaml::parsed_into(config.verify_pin, pin)},
                         {"key_file", yaml::text_into(config.verify_key_file)},
                         {"fail_open", yaml::parsed_into(config.verify_fail_open, yaml::parse_bool)}});
}

yaml::Handler rate(RelayConfig& config) {
    auto bytes = [](const std::string& text) -> Result<double> {
        constexpr std::int64_t kMost = 1'000'000'000'000;
        auto number = yaml::parse_between<std::int64_t>(text, 1, kMost);
        if (!number) return number.error();
        return static_cast<double>(*number);
    };
    return yaml::map_of({{"bytes_per_second", yaml::parsed_into(config.rate_bytes_per_second, bytes)},
                         {"burst_bytes", yaml::parsed_into(config.rate_burst_bytes, bytes)}});
}

yaml::Handlers handlers(RelayConfig& config) {
    using namespace yaml;
    auto between = [](int least, int most) {
        return [least, most](const std::string& text) { return parse_between(text, least, most); };
    };
    return {{"listen", parsed_into(config.listen, parse_listen)},
            {"listen_http", parsed_into(config.listen_http, parse_listen)},
            {"metrics_listen", parsed_into(config.metrics_listen, parse_listen)},
            {"stun_port", parsed_into(config.stun_port, between(-1, 65535))},
            {"hostname", text_into(config.hostname)},
            {"cert_mode", parsed_into(config.cert_mode, parse_cert_mode)},
            {"tls_certificate", text_into(config.tls_certificate)},
            {"tls_key", text_into(config.tls_key)},
            {"state_dir", text_into(config.state_dir)},
            {"verify_clients", verify(config)},
            {"mesh", mesh(config)},
            {"rate_limit", rate(config)},
            {"write_timeout", parsed_into(config.write_timeout, parse_duration)},
            {"drain", parsed_into(config.drain, parse_duration)},
            {"cores", parsed_into(config.cores, between(0, 256))},
            {"log", log_into(config.log_level, config.log_format)}};
}

} // namespace

Result<CertMode> parse_cert_mode(std::string_view text) {
    if (text == "self-signed") return CertMode::SelfSigned;
    if (text == "files") return CertMode::Files;
    if (text == "plain") return CertMode::Plain;
    return Error::make("\"{}\" is none of self-signed, files, plain", text);
}

Result<std::optional<Endpoint>> parse_listen(std::string_view text) {
    std::string full{trim(text)};
    if (full.empty()) return std::optional<Endpoint>{};
    if (full.front() == ':') full = "[::]" + full;
    if (full.starts_with("localhost:")) full.replace(0, 9, "127.0.0.1");
    auto endpoint = Endpoint::parse(full);
    if (!endpoint) return Error::make("\"{}\" is not an address and a port, such as \"0.0.0.0:443\" or \":443\"", text);
    return std::optional{*endpoint};
}

Result<MeshPeer> parse_mesh_peer(std::string_view text) {
    MeshPeer peer;
    auto hash = text.find('#');
    if (hash != std::string_view::npos) {
        peer.cert_name = to_lower(text.substr(hash + 1));
        if (!peer.cert_name.starts_with("sha256-raw:") || peer.cert_name.size() != 11 + 64)
            return Error::make("\"{}\": behind # stands sha256-raw: and 64 hex digits", text);
        text = text.substr(0, hash);
    }
    auto url = Url::parse(text);
    if (!url) return Error::make("\"{}\" is not a URL such as https://relay2.example.com", text);
    peer.host = url->host;
    peer.port = url->port;
    peer.tls = url->scheme == "https";
    return peer;
}

void set_verify(RelayConfig& config, const std::string& url_or_file) {
    bool url = url_or_file.starts_with("http://") || url_or_file.starts_with("https://");
    (url ? config.verify_url : config.verify_key_file) = url_or_file;
}

RelayConfig default_config() {
    RelayConfig config;
    config.listen = *parse_listen(":443");
    config.state_dir = "/var/lib/tailrace-relay";
    config.write_timeout = std::chrono::seconds{2};
    config.drain = std::chrono::seconds{2};
    config.log_format = log::default_format();
    return config;
}

Result<void> check_config(const RelayConfig& config) {
    if (!config.listen) return Error::make("listen is empty, so nobody could connect");
    bool has_files = !config.tls_certificate.empty() && !config.tls_key.empty();
    if (config.cert_mode == CertMode::Files && !has_files)
        return Error::make("cert_mode files needs tls_certificate and tls_key, the paths of two PEM files");
    if (config.cert_mode != CertMode::Files && (!config.tls_certificate.empty() || !config.tls_key.empty()))
        return Error::make("tls_certificate and tls_key are for cert_mode files only");
    if (config.cert_mode == CertMode::SelfSigned && config.hostname.empty())
        return Error::make("cert_mode self-signed needs hostname: the name or address that clients dial");
    if (!config.mesh_with.empty() && config.mesh_key_file.empty())
        return Error::make(
            "mesh.with needs mesh.key_file, a file with the 64 hex digits that all relays of the region share");
    if (config.rate_bytes_per_second <= 0 && config.rate_burst_bytes > 0)
        return Error::make("rate_limit.burst_bytes needs rate_limit.bytes_per_second");
    if (config.rate_bytes_per_second > 0 && config.rate_burst_bytes > 0 && config.rate_burst_bytes < kLeastBurstBytes)
        return Error::make("rate_limit.burst_bytes must be {:.0f} or more: one packet of the largest size",
                           kLeastBurstBytes);
    if (config.write_timeout <= Duration::zero()) return Error::make("write_timeout must be above zero");
    if (config.drain < Duration::zero() || config.drain > std::chrono::minutes{5})
        return Error::make("drain must be from 0s to 5m");
    return {};
}

std::vector<std::string> keep_what_is_fixed(const RelayConfig& in_force, RelayConfig& fresh) {
    std::vector<std::string> differed;
    auto keep = [&](auto RelayConfig::*field, const char* name) {
        if (fresh.*field == in_force.*field) return;
        fresh.*field = in_force.*field;
        differed.emplace_back(name);
    };
    if (fresh.cert_mode != in_force.cert_mode) { // the files belong to the mode
        fresh.tls_certificate = in_force.tls_certificate;
        fresh.tls_key = in_force.tls_key;
    }
    if (fresh.verify_key_file.empty() && !in_force.verify_key_file.empty()) { // what would judge instead starts later
        fresh.verify_key_file = in_force.verify_key_file;
        differed.emplace_back("verify_clients.key_file");
    }
    keep(&RelayConfig::listen, "listen");
    keep(&RelayConfig::listen_http, "listen_http");
    keep(&RelayConfig::metrics_listen, "metrics_listen");
    keep(&RelayConfig::stun_port, "stun_port");
    keep(&RelayConfig::hostname, "hostname");
    keep(&RelayConfig::cert_mode, "cert_mode");
    keep(&RelayConfig::state_dir, "state_dir");
    keep(&RelayConfig::verify_url, "verify_clients.control_url");
    keep(&RelayConfig::verify_pin, "verify_clients.certificate");
    keep(&RelayConfig::verify_fail_open, "verify_clients.fail_open");
    keep(&RelayConfig::mesh_key_file, "mesh.key_file");
    keep(&RelayConfig::mesh_with, "mesh.with");
    keep(&RelayConfig::write_timeout, "write_timeout");
    keep(&RelayConfig::cores, "cores");
    keep(&RelayConfig::log_format, "log.format");
    return differed;
}

Result<RelayConfig> parse_config(std::string_view text, const std::string& name) {
    RelayConfig config = default_config();
    if (auto done = yaml::read(text, name, handlers(config)); !done) return done.error();
    return config;
}

Result<RelayConfig> load_config(const std::string& path) {
    auto text = read_file(path, 1 << 20);
    if (!text)
        return Error::make("configuration: {}: name a file that can be read, or start without --config",
                           text.error().message());
    return parse_config(*text, path);
}

} // namespace tailrace::relay
