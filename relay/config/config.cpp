// relay/config/config.cpp - reads YAML by yaml-cpp, which throws: the throwing stays in this file.
#include "relay/config/config.hpp"

#include "base/file.hpp"
#include "base/io/http.hpp"
#include "base/text.hpp"

#include <yaml-cpp/yaml.h>

#include <functional>
#include <map>

namespace tailrace::relay {
namespace {

/// A complaint about one place of the file, thrown to the one place that catches.
struct BadConfig {
    int line; // from 0, as yaml-cpp counts
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

using Handler = std::function<void(const YAML::Node& value, const std::string& key)>;

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
        handler->second(entry.second, key);
    }
}

Result<bool> parse_bool(std::string_view text) {
    if (text == "true" || text == "yes" || text == "on") return true;
    if (text == "false" || text == "no" || text == "off") return false;
    return Error::make("\"{}\" is neither true nor false", text);
}

template <typename T>
Result<T> parse_between(std::string_view text, T least, T most) {
    auto number = parse_number<T>(text);
    if (!number || *number < least || *number > most)
        return Error::make("\"{}\" is not a whole number from {} to {}", text, least, most);
    return number;
}

// Handlers that put a value where it belongs.
Handler text_into(std::string& into) {
    return [&into](const YAML::Node& n, const std::string& key) { into = scalar(n, key); };
}
template <typename T, typename Parse>
Handler parsed_into(T& into, Parse parse) {
    return
        [&into, parse](const YAML::Node& n, const std::string& key) { into = checked(parse(scalar(n, key)), n, key); };
}

void read_mesh(const YAML::Node& node, RelayConfig& config) {
    read_map(node, "mesh",
             {{"key_file", text_into(config.mesh_key_file)},
              {"with", [&](const YAML::Node& list, const std::string& key) {
                   if (!list.IsSequence()) throw BadConfig{list.Mark().line, "with wants a list of URLs"};
                   for (const auto& item : list)
                       config.mesh_with.push_back(checked(parse_mesh_peer(scalar(item, key)), item, key));
               }}});
}

void read_verify(const YAML::Node& node, RelayConfig& config) {
    read_map(node, "verify_clients",
             {{"control_url", parsed_into(config.verify_url,
                                          [](const std::string& text) -> Result<std::string> {
                                              auto url = Url::parse(text);
                                              if (!url) return url.error();
                                              return text;
                                          })},
              {"key_file", text_into(config.verify_key_file)},
              {"fail_open", parsed_into(config.verify_fail_open, parse_bool)}});
}

void read_rate(const YAML::Node& node, RelayConfig& config) {
    constexpr double kMost = 1e12;
    auto bytes = [](const std::string& text) -> Result<double> {
        auto number = parse_between<std::int64_t>(text, 1, static_cast<std::int64_t>(kMost));
        if (!number) return number.error();
        return static_cast<double>(*number);
    };
    read_map(node, "rate_limit",
             {{"bytes_per_second", parsed_into(config.rate_bytes_per_second, bytes)},
              {"burst_bytes", parsed_into(config.rate_burst_bytes, bytes)}});
}

void read_all(const YAML::Node& root, RelayConfig& config) {
    auto between = [](int least, int most) {
        return [least, most](const std::string& text) { return parse_between(text, least, most); };
    };
    read_map(root, "the file",
             {{"listen", parsed_into(config.listen, parse_listen)},
              {"listen_http", parsed_into(config.listen_http, parse_listen)},
              {"metrics_listen", parsed_into(config.metrics_listen, parse_listen)},
              {"stun_port", parsed_into(config.stun_port, between(-1, 65535))},
              {"hostname", text_into(config.hostname)},
              {"cert_mode", parsed_into(config.cert_mode, parse_cert_mode)},
              {"tls_certificate", text_into(config.tls_certificate)},
              {"tls_key", text_into(config.tls_key)},
              {"state_dir", text_into(config.state_dir)},
              {"verify_clients", [&](const YAML::Node& n, const std::string&) { read_verify(n, config); }},
              {"mesh", [&](const YAML::Node& n, const std::string&) { read_mesh(n, config); }},
              {"rate_limit", [&](const YAML::Node& n, const std::string&) { read_rate(n, config); }},
              {"write_timeout", parsed_into(config.write_timeout, parse_duration)},
              {"drain", parsed_into(config.drain, parse_duration)},
              {"cores", parsed_into(config.cores, between(0, 256))},
              {"log", [&](const YAML::Node& log_node, const std::string&) {
                   read_map(log_node, "log",
                            {{"level", parsed_into(config.log_level, log::parse_level)},
                             {"format", parsed_into(config.log_format, log::parse_format)}});
               }}});
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

Result<RelayConfig> parse_config(std::string_view yaml, const std::string& name) {
    RelayConfig config = default_config();
    try {
        read_all(YAML::Load(std::string{yaml}), config);
    } catch (const BadConfig& bad) {
        return Error::make("{}:{}: {}", name, bad.line + 1, bad.what);
    } catch (const YAML::Exception& bad) {
        return Error::make("{}:{}: {}", name, bad.mark.line + 1, bad.msg);
    } catch (const std::exception& bad) {
        return Error::make("{}: {}", name, bad.what());
    }
    return config;
}

Result<RelayConfig> load_config(const std::string& path) {
    auto text = read_file(path, 1 << 20);
    if (!text) return text.error();
    return parse_config(*text, path);
}

} // namespace tailrace::relay
