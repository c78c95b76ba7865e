// proto/control/derp_map.hpp - which relays there are (control-protocol.md 6.7). Source: tailscale tailcfg/derpmap.go.
#pragma once
#include "base/json/fields.hpp"
#include "base/result.hpp"

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace tailrace::wire {

struct DerpNode {
    std::string name; ///< unique across regions; not a host name
    int region_id = 0;
    std::string host_name;
    std::string cert_name;  ///< expected in the certificate; "sha256-raw:<hex>" pins it
    std::string ipv4, ipv6; ///< a literal, or "none" to switch the family off; empty: ask DNS
    int stun_port = 0;      ///< 0: 3478, -1: no STUN
    bool stun_only = false;
    int derp_port = 0; ///< 0: 443
    bool insecure_for_tests = false;
    std::string stun_test_ip;
    bool can_port_80 = false;
    bool operator==(const DerpNode&) const = default;
};

struct DerpRegion {
    int region_id = 0; ///< fits 16 bits; 900 to 999 are for self-hosted relays
    std::string region_code, region_name;
    double latitude = 0, longitude = 0;
    bool avoid = false, no_measure_no_home = false;
    std::vector<DerpNode> nodes;
    bool operator==(const DerpRegion&) const = default;
};

struct DerpHomeParams {
    std::optional<std::map<int, double>> region_score; ///< absent: keep the scores; empty: reset them
    bool operator==(const DerpHomeParams&) const = default;
};

/// In an update, absent `regions` keep the regions that were there; a null region is dropped.
struct DerpMap {
    std::optional<DerpHomeParams> home_params;
    std::optional<std::map<int, std::optional<DerpRegion>>> regions;
    bool omit_default_regions = false;
    bool operator==(const DerpMap&) const = default;
};

Result<DerpMap> parse_derp_map(std::string_view text);
std::string write_derp_map(const DerpMap& map);

} // namespace tailrace::wire

namespace tailrace {

template <>
struct JsonFields<wire::DerpNode> {
    using S = wire::DerpNode;
    static constexpr auto fields = field_table(
        field("Name", &S::name), field("RegionID", &S::region_id), field("HostName", &S::host_name),
        field("CertName", &S::cert_name, Omit::Empty), field("IPv4", &S::ipv4, Omit::Empty),
        field("IPv6", &S::ipv6, Omit::Empty), field("STUNPort", &S::stun_port, Omit::Empty),
        field("STUNOnly", &S::stun_only, Omit::Empty), field("DERPPort", &S::derp_port, Omit::Empty),
        field("InsecureForTests", &S::insecure_for_tests, Omit::Empty),
        field("STUNTestIP", &S::stun_test_ip, Omit::Empty), field("CanPort80", &S::can_port_80, Omit::Empty));
};

template <>
struct JsonFields<wire::DerpRegion> {
    using S = wire::DerpRegion;
    static constexpr auto fields =
        field_table(field("RegionID", &S::region_id), field("RegionCode", &S::region_code),
                    field("RegionName", &S::region_name), field("Latitude", &S::latitude, Omit::Empty),
                    field("Longitude", &S::longitude, Omit::Empty), field("Avoid", &S::avoid, Omit::Empty),
                    field("NoMeasureNoHome", &S::no_measure_no_home, Omit::Empty), field("Nodes", &S::nodes));
};

template <>
struct JsonFields<wire::DerpHomeParams> {
    static constexpr auto fields = field_table(field("RegionScore", &wire::DerpHomeParams::region_score, Omit::Zero));
};

template <>
struct JsonFields<wire::DerpMap> {
    using S = wire::DerpMap;
    static constexpr auto fields =
        field_table(field("HomeParams", &S::home_params, Omit::Empty), field("Regions", &S::regions),
                    field("omitDefaultRegions", &S::omit_default_regions, Omit::Empty));
};

} // namespace tailrace
