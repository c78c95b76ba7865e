// relay/config/config.hpp - what the operator may set, in a file or on the command line, and what holds otherwise.
#pragma once
#include "base/log.hpp"
#include "base/net.hpp"
#include "base/result.hpp"
#include "base/time.hpp"

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace::relay {

enum class CertMode { SelfSigned, Files, Plain };
Result<CertMode> parse_cert_mode(std::string_view text); ///< "self-signed", "files", "plain"

/// "HOST:PORT", ":PORT" (both families), or "" for nowhere.
Result<std::optional<Endpoint>> parse_listen(std::string_view text);

/// Another relay of the region.
struct MeshPeer {
    std::string host; ///< name or literal address
    std::uint16_t port = 443;
    bool tls = true;
    std::string cert_name; ///< "sha256-raw:<hex>", or empty
    bool operator==(const MeshPeer&) const = default;
};
/// "https://HOST[:PORT]" or "http://HOST[:PORT]", and "#sha256-raw:HEX" behind it for a pinned certificate.
Result<MeshPeer> parse_mesh_peer(std::string_view text);

struct RelayConfig {
    std::optional<Endpoint> listen;         ///< DERP
    std::optional<Endpoint> listen_http;    ///< captive portal checks and a pointer to https
    std::optional<Endpoint> metrics_listen; ///< /metrics and /health
    int stun_port = 3478;                   ///< -1: no STUN
    std::string hostname;
    CertMode cert_mode = CertMode::SelfSigned;
    std::string tls_certificate, tls_key;
    std::string state_dir;
    std::string verify_url, verify_key_file; ///< admission; empty: everybody
    bool verify_fail_open = true;
    std::optional<std::array<std::byte, 32>> verify_pin; ///< of the control server's certificate
    std::string mesh_key_file;
    std::vector<MeshPeer> mesh_with;
    double rate_bytes_per_second = 0, rate_burst_bytes = 0; ///< per client; 0: no limit
    Duration write_timeout{}, drain{};
    int cores = 0; ///< 0: one for each CPU
    log::Level log_level = log::Level::Info;
    log::Format log_format = log::Format::Text;
};

/// A rate below one packet a burst would never let that packet through. Source: tailscale cmd/derper.
constexpr double kLeastBurstBytes = 65568;

RelayConfig default_config();
/// `name` is for messages: "relay.yaml:3: unknown key \"lsiten\"".
Result<RelayConfig> parse_config(std::string_view text, const std::string& name);
Result<RelayConfig> load_config(const std::string& path);
/// What no single value is wrong with, but all together.
Result<void> check_config(const RelayConfig& config);

/// Takes back in `fresh` what is fixed from start to end, and returns the names of what differed: it needs a restart.
std::vector<std::string> keep_what_is_fixed(const RelayConfig& in_force, RelayConfig& fresh);

/// "--verify-clients": a URL, or a file with keys.
void set_verify(RelayConfig& config, const std::string& url_or_file);

} // namespace tailrace::relay
