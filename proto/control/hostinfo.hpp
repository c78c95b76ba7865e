// proto/control/hostinfo.hpp - what a machine says about itself. Source: tailscale tailcfg/tailcfg.go
// (control-protocol.md 6.2 to 6.4).
//
// The structs of the control protocol live in namespace tailrace::wire: they are exactly what is on the wire, every
// string as it came, and programs have types of their own with the same plain names (Node, User, FilterRule).
#pragma once
#include "base/boxed.hpp"
#include "base/json/fields.hpp"
#include "base/net.hpp"
#include "base/result.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace tailrace::wire {

/// A listening port, or a pseudo service: "peerapi4" and "peerapi6" say where the peer API listens.
struct Service {
    std::string proto; ///< tcp, udp, peerapi4, peerapi6, peerapi-dns-proxy, egg
    std::uint16_t port = 0;
    std::string description;
    bool operator==(const Service&) const = default;
};

struct NetInfo {
    std::optional<bool> mapping_varies_by_dest_ip, working_ipv6, os_has_ipv6, working_udp, working_icmpv4;
    bool have_port_map = false;
    std::optional<bool> upnp, pmp, pcp;
    int preferred_derp = 0;                     ///< 0: unknown, which must not erase a known home
    std::string link_type;                      ///< wired, wifi, mobile
    std::map<std::string, double> derp_latency; ///< "<region>-v4" or "<region>-v6" to seconds
    std::string firewall_mode;
    bool operator==(const NetInfo&) const = default;
};

struct Location {
    std::string country, country_code, city, city_code;
    double latitude = 0, longitude = 0;
    int priority = 0;
    bool operator==(const Location&) const = default;
};

struct TpmInfo {
    std::string manufacturer, vendor;
    int model = 0;
    std::uint64_t firmware_version = 0;
    int spec_revision = 0;
    std::string family_indicator;
    bool operator==(const TpmInfo&) const = default;
};

struct Hostinfo {
    std::string ipn_version, frontend_log_id, backend_log_id;
    std::string os, os_version;
    std::optional<bool> container;
    std::string env, distro, distro_version, distro_code_name, app;
    std::optional<bool> desktop;
    std::string package, device_model, push_device_token;
    std::string hostname;
    bool shields_up = false, sharee_node = false, no_logs_no_support = false;
    bool wire_ingress = false, ingress_enabled = false, allows_update = false;
    std::string machine, go_arch, go_arch_var, go_version;
    std::vector<IpPrefix> routable_ips; ///< advertised routes
    std::vector<std::string> request_tags;
    std::vector<std::string> wol_macs;
    std::vector<Service> services;
    Boxed<NetInfo> net_info; ///< absent: the server keeps what it had
    std::vector<std::string> ssh_host_keys;
    std::string cloud;
    std::optional<bool> userspace, userspace_router, app_connector;
    std::string services_hash;
    bool peer_relay = false;
    std::string exit_node_id;
    Boxed<Location> location;
    Boxed<TpmInfo> tpm;
    std::optional<bool> state_encrypted;
    bool remote_config = false;
    bool operator==(const Hostinfo&) const = default;
};

Result<Hostinfo> parse_hostinfo(std::string_view text);
std::string write_hostinfo(const Hostinfo& hostinfo);

} // namespace tailrace::wire

namespace tailrace {

template <>
struct JsonFields<wire::Service> {
    using S = wire::Service;
    static constexpr auto fields = field_table(field("Proto", &S::proto), field("Port", &S::port),
                                               field("Description", &S::description, Omit::Empty));
};

template <>
struct JsonFields<wire::NetInfo> {
    using S = wire::NetInfo;
    static constexpr auto fields = field_table(
        field("MappingVariesByDestIP", &S::mapping_varies_by_dest_ip, Omit::Zero),
        field("WorkingIPv6", &S::working_ipv6, Omit::Zero), field("OSHasIPv6", &S::os_has_ipv6, Omit::Zero),
        field("WorkingUDP", &S::working_udp, Omit::Zero), field("WorkingICMPv4", &S::working_icmpv4, Omit::Zero),
        field("HavePortMap", &S::have_port_map, Omit::Zero), field("UPnP", &S::upnp, Omit::Zero),
        field("PMP", &S::pmp, Omit::Zero), field("PCP", &S::pcp, Omit::Zero),
        field("PreferredDERP", &S::preferred_derp, Omit::Zero), field("LinkType", &S::link_type, Omit::Zero),
        field("DERPLatency", &S::derp_latency, Omit::Zero), field("FirewallMode", &S::firewall_mode, Omit::Zero));
};

template <>
struct JsonFields<wire::Location> {
    using S = wire::Location;
    static constexpr auto fields =
        field_table(field("Country", &S::country, Omit::Empty), field("CountryCode", &S::country_code, Omit::Empty),
                    field("City", &S::city, Omit::Empty), field("CityCode", &S::city_code, Omit::Empty),
                    field("Latitude", &S::latitude, Omit::Empty), field("Longitude", &S::longitude, Omit::Empty),
                    field("Priority", &S::priority, Omit::Empty));
};

template <>
struct JsonFields<wire::TpmInfo> {
    using S = wire::TpmInfo;
    static constexpr auto fields =
        field_table(field("Manufacturer", &S::manufacturer, Omit::Empty), field("Vendor", &S::vendor, Omit::Empty),
                    field("Model", &S::model, Omit::Empty), field("FirmwareVersion", &S::firmware_version, Omit::Empty),
                    field("SpecRevision", &S::spec_revision, Omit::Empty),
                    field("FamilyIndicator", &S::family_indicator, Omit::Empty));
};

template <>
struct JsonFields<wire::Hostinfo> {
    using S = wire::Hostinfo;
    static constexpr auto fields = field_table(
        field("IPNVersion", &S::ipn_version, Omit::Zero), field("FrontendLogID", &S::frontend_log_id, Omit::Zero),
        field("BackendLogID", &S::backend_log_id, Omit::Zero), field("OS", &S::os, Omit::Zero),
        field("OSVersion", &S::os_version, Omit::Zero), field("Container", &S::container, Omit::Zero),
        field("Env", &S::env, Omit::Zero), field("Distro", &S::distro, Omit::Zero),
        field("DistroVersion", &S::distro_version, Omit::Zero),
        field("DistroCodeName", &S::distro_code_name, Omit::Zero), field("App", &S::app, Omit::Zero),
        field("Desktop", &S::desktop, Omit::Zero), field("Package", &S::package, Omit::Zero),
        field("DeviceModel", &S::device_model, Omit::Zero), field("PushDeviceToken", &S::push_device_token, Omit::Zero),
        field("Hostname", &S::hostname, Omit::Zero), field("ShieldsUp", &S::shields_up, Omit::Zero),
        field("ShareeNode", &S::sharee_node, Omit::Zero), field("NoLogsNoSupport", &S::no_logs_no_support, Omit::Zero),
        field("WireIngress", &S::wire_ingress, Omit::Zero), field("IngressEnabled", &S::ingress_enabled, Omit::Zero),
        field("AllowsUpdate", &S::allows_update, Omit::Zero), field("Machine", &S::machine, Omit::Zero),
        field("GoArch", &S::go_arch, Omit::Zero), field("GoArchVar", &S::go_arch_var, Omit::Zero),
        field("GoVersion", &S::go_version, Omit::Zero), field("RoutableIPs", &S::routable_ips, Omit::Empty),
        field("RequestTags", &S::request_tags, Omit::Empty), field("WoLMACs", &S::wol_macs, Omit::Empty),
        field("Services", &S::services, Omit::Empty), field("NetInfo", &S::net_info, Omit::Zero),
        field("sshHostKeys", &S::ssh_host_keys, Omit::Empty), field("Cloud", &S::cloud, Omit::Zero),
        field("Userspace", &S::userspace, Omit::Zero), field("UserspaceRouter", &S::userspace_router, Omit::Zero),
        field("AppConnector", &S::app_connector, Omit::Zero), field("ServicesHash", &S::services_hash, Omit::Zero),
        field("PeerRelay", &S::peer_relay, Omit::Zero), field("ExitNodeID", &S::exit_node_id, Omit::Zero),
        field("Location", &S::location, Omit::Zero), field("TPM", &S::tpm, Omit::Zero),
        field("StateEncrypted", &S::state_encrypted, Omit::Zero), field("RemoteConfig", &S::remote_config, Omit::Zero));
};

} // namespace tailrace
