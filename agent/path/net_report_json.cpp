#include "agent/path/net_report.hpp"
#include "base/json/json.hpp"

namespace tailrace {
namespace {

/// The members of Go's netcheck.Report, latencies in nanoseconds.
struct Written {
    WallTime now;
    bool udp = false, ipv6 = false, ipv4 = false, ipv6_can_send = false, ipv4_can_send = false, os_has_ipv6 = false,
         icmp_v4 = false;
    std::optional<bool> varies, upnp, pmp, pcp;
    int preferred = 0;
    std::map<int, std::int64_t> latency, v4_latency, v6_latency;
    std::map<std::string, int> v4_counters, v6_counters;
    std::string v4, v6;
    std::optional<bool> captive_portal;
};

std::map<int, std::int64_t> nanoseconds(const std::map<int, Duration>& times) {
    std::map<int, std::int64_t> out;
    for (const auto& [region, time] : times)
        out[region] = std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
    return out;
}

std::map<std::string, int> counters(const std::map<Endpoint, int>& seen) {
    std::map<std::string, int> out;
    for (const auto& [endpoint, times] : seen) out[endpoint.text()] = times;
    return out;
}

} // namespace

template <>
struct JsonFields<Written> {
    using S = Written;
    static constexpr auto fields =
        field_table(field("Now", &S::now), field("UDP", &S::udp), field("IPv6", &S::ipv6), field("IPv4", &S::ipv4),
                    field("IPv6CanSend", &S::ipv6_can_send), field("IPv4CanSend", &S::ipv4_can_send),
                    field("OSHasIPv6", &S::os_has_ipv6), field("ICMPv4", &S::icmp_v4),
                    field("MappingVariesByDestIP", &S::varies), field("UPnP", &S::upnp), field("PMP", &S::pmp),
                    field("PCP", &S::pcp), field("PreferredDERP", &S::preferred), field("RegionLatency", &S::latency),
                    field("RegionV4Latency", &S::v4_latency), field("RegionV6Latency", &S::v6_latency),
                    field("GlobalV4Counters", &S::v4_counters), field("GlobalV6Counters", &S::v6_counters),
                    field("GlobalV4", &S::v4), field("GlobalV6", &S::v6), field("CaptivePortal", &S::captive_portal));
};

std::string write_net_report(const NetReport& report, const WallTime& now) {
    Written out;
    out.now = now;
    out.udp = report.udp;
    out.ipv4 = report.ipv4;
    out.ipv6 = report.ipv6;
    out.ipv4_can_send = report.ipv4_can_send;
    out.ipv6_can_send = report.ipv6_can_send;
    out.os_has_ipv6 = report.os_has_ipv6;
    out.icmp_v4 = report.icmp_v4;
    out.varies = report.mapping_varies_by_destination;
    out.upnp = report.mapping.upnp;
    out.pmp = report.mapping.pmp;
    out.pcp = report.mapping.pcp;
    out.preferred = report.preferred_derp;
    out.latency = nanoseconds(report.region_latency);
    out.v4_latency = nanoseconds(report.region_v4_latency);
    out.v6_latency = nanoseconds(report.region_v6_latency);
    out.v4_counters = counters(report.seen_v4);
    out.v6_counters = counters(report.seen_v6);
    if (report.global_v4) out.v4 = report.global_v4->text();
    if (report.global_v6) out.v6 = report.global_v6->text();
    out.captive_portal = report.captive_portal;
    return json::write(out);
}

} // namespace tailrace
