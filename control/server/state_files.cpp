#include "control/server/state_files.hpp"

#include "base/file.hpp"
#include "base/io/http.hpp"
#include "base/json/json.hpp"
#include "base/text.hpp"
#include "proto/control/derp_map.hpp"

namespace tailrace {

Result<MachinePrivateKey> load_noise_key(const std::string& state_dir) {
    std::string path = state_dir + "/noise_private.key";
    auto text = read_file(path, 4096);
    if (!text && text.error().code() == ENOENT) {
        auto key = MachinePrivateKey::generate();
        if (auto written = write_file_atomically(path, key.text_for_storing() + "\n", 0600); !written)
            return written.error().with("make the server's key");
        return key;
    }
    if (!text) return text.error().with("read the server's key");
    auto key = MachinePrivateKey::parse(trim(*text));
    if (!key || key->is_zero())
        return Error::make("the server's key {} is damaged and was left as it is: restore it from a backup; with "
                           "another key every client must be restarted",
                           path);
    return key;
}

Result<TlsIdentity> load_tls_identity(const ControlConfig& config) {
    TlsIdentity identity;
    bool configured = !config.tls_certificate.empty();
    std::string certificate = configured ? config.tls_certificate : config.state_dir + "/tls_certificate.pem";
    std::string key = configured ? config.tls_key : config.state_dir + "/tls_key.pem";
    auto certificate_text = read_file(certificate, 1 << 20);
    auto key_text = read_file(key, 1 << 20);
    if (certificate_text && key_text) return TlsIdentity{std::move(*certificate_text), std::move(*key_text)};
    if (configured) return (certificate_text ? key_text.error() : certificate_text.error()).with("TLS certificate");
    auto made = make_self_signed({config.server_host()});
    if (!made) return made.error().with("make a TLS certificate");
    if (auto done = write_file_atomically(key, made->key, 0600); !done) return done.error();
    if (auto done = write_file_atomically(certificate, made->certificate, 0644); !done) return done.error();
    return made;
}

namespace {

constexpr int kEmbeddedRegion = 900; // 900 to 999 are for self-hosted relays

/// Clients reach the embedded relay where they reach us by TLS.
Result<wire::DerpRegion> embedded_region(const ControlConfig& config) {
    wire::DerpNode node;
    node.name = "900a";
    node.region_id = kEmbeddedRegion;
    node.host_name = config.server_host();
    node.stun_port = config.relay_stun_port;
    node.can_port_80 = config.listen.enabled && config.listen.endpoint.port == 80;
    bool https = config.server_url.starts_with("https://"); // else they are not told of our TLS port in any other way
    auto port = https ? Url::parse(config.server_url)->port : config.listen_tls.endpoint.port;
    node.derp_port = port == 443 ? 0 : port;
    if (config.tls_certificate.empty() && config.listen_tls.enabled) {
        auto identity = load_tls_identity(config);
        if (!identity) return identity.error();
        auto pin = certificate_pin(identity->certificate);
        if (!pin) return pin.error();
        node.cert_name = *pin;
    }
    wire::DerpRegion region;
    region.region_id = kEmbeddedRegion;
    region.region_code = "embedded";
    region.region_name = "Embedded relay of the control server";
    region.nodes = {node};
    return region;
}

/// Clients start only when some region is named, whether it works or not (control-protocol.md 8.3).
wire::DerpMap placeholder_derp_map(const std::string& host) {
    wire::DerpNode node;
    node.name = "900a";
    node.region_id = kEmbeddedRegion;
    node.host_name = host;
    wire::DerpRegion region;
    region.region_id = kEmbeddedRegion;
    region.region_code = "none";
    region.region_name = "No relay configured";
    region.nodes = {node};
    wire::DerpMap map;
    map.regions.emplace()[kEmbeddedRegion] = region;
    map.omit_default_regions = true;
    return map;
}

Result<wire::DerpMap> load_derp_map_file(const ControlConfig& config) {
    if (config.derp_map_file.empty() && config.embedded_relay) {
        wire::DerpMap map;
        map.regions.emplace();
        map.omit_default_regions = true;
        return map;
    }
    if (config.derp_map_file.empty()) {
        log::warn("neither derp_map_file nor \"relay: embedded\": nodes without a direct path can't reach each other");
        return placeholder_derp_map(config.server_host());
    }
    auto text = read_file(config.derp_map_file, 4 << 20);
    if (!text)
        return Error::make("derp_map_file: {}: name a file that can be read, or take the setting away",
                           text.error().message());
    auto map = wire::parse_derp_map(*text);
    if (!map)
        return Error::make("derp_map_file: {}: {}: correct the file", config.derp_map_file, map.error().message());
    if (!map->regions || map->regions->empty())
        return Error::make("DERP map {}: it names no region under \"Regions\", and clients need at least one",
                           config.derp_map_file);
    for (auto& [id, region] : *map->regions) {
        if (!region || id < 1 || id > 65535 || region->region_id != id)
            return Error::make(
                "DERP map {}: region {}: its key and \"RegionID\" must be the same number from 1 to 65535",
                config.derp_map_file, id);
        for (const wire::DerpNode& node : region->nodes)
            if (node.region_id != id || node.name.empty() || node.host_name.empty())
                return Error::make("DERP map {}: region {}: each node needs Name, HostName and RegionID {}",
                                   config.derp_map_file, id, id);
    }
    return map;
}

Result<wire::DerpMap> load_derp_map(const ControlConfig& config) {
    auto map = load_derp_map_file(config);
    if (!map || !config.embedded_relay) return map;
    auto region = embedded_region(config);
    if (!region) return region.error();
    if (!map->regions->emplace(kEmbeddedRegion, *region).second)
        return Error::make("DERP map {}: region {} is the embedded relay's: give yours another number",
                           config.derp_map_file, kEmbeddedRegion);
    return map;
}

} // namespace

Result<MapComposer::Fixed> load_fixed_parts(const ControlConfig& config) {
    auto derp = load_derp_map(config);
    if (!derp) return derp.error();
    MapComposer::Fixed fixed;
    fixed.derp_map = std::move(*derp);
    fixed.dns = dns_config(config.base_domain, config.dns);
    fixed.domain = config.base_domain.empty() ? config.server_host() : config.base_domain;
    return fixed;
}

} // namespace tailrace
