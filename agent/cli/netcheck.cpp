// `tailrace netcheck`: what our network lets through, and how far the relays are.
#include "agent/cli/commands.hpp"
#include "base/json/json.hpp"
#include "base/text.hpp"
#include "proto/control/derp_map.hpp"

#include <algorithm>

namespace tailrace::cli {
namespace {

/// What the gateway speaks; each is "true", "false", or "" when nobody asked.
std::string port_mapping(const std::string& upnp, const std::string& pmp, const std::string& pcp) {
    if (upnp.empty() && pmp.empty() && pcp.empty()) return "not checked";
    std::vector<std::string> spoken;
    if (upnp == "true") spoken.emplace_back("UPnP");
    if (pmp == "true") spoken.emplace_back("NAT-PMP");
    if (pcp == "true") spoken.emplace_back("PCP");
    return join(spoken, ", ");
}

} // namespace

Result<std::string> netcheck_text(std::string_view report_json, std::string_view derp_map_json) {
    auto value = json::parse_value(report_json);
    if (!value) return value.error();
    auto map = wire::parse_derp_map(derp_map_json);
    if (!map) return map.error();
    if (!value->is_object()) return Error::make("netcheck: the agent's answer is not an object");
    const auto& report = value->get_object();
    auto flag = [&](const char* name) {
        const auto* member = report.if_contains(name);
        return member != nullptr && member->is_bool() && member->get_bool();
    };
    auto text = [&](const char* name) {
        const auto* member = report.if_contains(name);
        return member != nullptr && member->is_string() ? std::string{member->get_string().c_str()} : std::string{};
    };
    auto family = [&](const char* works, const char* global) {
        if (std::string seen = text(global); !seen.empty()) return "yes, " + seen;
        return std::string{flag(works) ? "yes" : "no"};
    };
    struct Region {
        int number;
        double milliseconds; ///< below 0: no answer
        std::string code, name;
    };
    std::vector<Region> regions;
    const auto* latencies = report.if_contains("RegionLatency");
    if (map->regions)
        for (const auto& [number, region] : *map->regions) {
            if (!region) continue;
            double milliseconds = -1;
            if (latencies != nullptr && latencies->is_object())
                if (const auto* measured = latencies->get_object().if_contains(std::to_string(number));
                    measured != nullptr && measured->is_number())
                    milliseconds = measured->to_number<double>() / 1e6;
            regions.push_back({number, milliseconds, region->region_code, region->region_name});
        }
    std::ranges::stable_sort(regions, [](const Region& a, const Region& b) {
        if ((a.milliseconds < 0) != (b.milliseconds < 0)) return b.milliseconds < 0;
        return a.milliseconds < b.milliseconds;
    });
    const auto* preferred = report.if_contains("PreferredDERP");
    std::string nearest = "unknown (no response to latency probes)";
    for (const Region& region : regions)
        if (region.milliseconds >= 0 && preferred != nullptr && preferred->is_int64() &&
            preferred->get_int64() == region.number)
            nearest = region.name;
    std::string out = "\nReport:\n";
    out += fmt::format("\t* UDP: {}\n", flag("UDP"));
    out += fmt::format("\t* IPv4: {}\n", family("IPv4", "GlobalV4"));
    out += fmt::format("\t* IPv6: {}\n", family("IPv6", "GlobalV6"));
    out += fmt::format("\t* MappingVariesByDestIP: {}\n", text("MappingVariesByDestIP"));
    out += fmt::format("\t* PortMapping: {}\n", port_mapping(text("UPnP"), text("PMP"), text("PCP")));
    out += fmt::format("\t* Nearest DERP: {}\n", nearest);
    out += "\t* DERP latency:\n";
    for (const Region& region : regions)
        out += fmt::format("\t\t- {:>3}: {:<7} ({})\n", region.code,
                           region.milliseconds < 0 ? "" : fmt::format("{:.1f}ms", region.milliseconds), region.name);
    return out;
}

Task<int> netcheck(LocalClient& client, bool json_wanted) {
    auto report = co_await client.request("POST", "/localapi/v0/netcheck", "");
    if (!report) co_return fail(report.error().message());
    if (json_wanted) {
        fmt::print("{}\n", *report);
        co_return 0;
    }
    auto map = co_await client.request("GET", "/localapi/v0/derpmap", "");
    if (!map) co_return fail(map.error().message());
    auto text = netcheck_text(*report, *map);
    if (!text) co_return fail(text.error().message());
    fmt::print("{}", *text);
    co_return 0;
}

} // namespace tailrace::cli
