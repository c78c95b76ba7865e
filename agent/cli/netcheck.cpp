// `tailrace netcheck`: what our network lets through, and how far the relays are.
#include "agent/cli/commands.hpp"
#include "agent/local/pretty_json.hpp"
#include "base/json/json.hpp"
#include "base/text.hpp"
#include "proto/control/derp_map.hpp"

#include <algorithm>
#include <cstdio>

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

Result<std::string> netcheck_text(std::string_view report_json, std::string_view derp_map_json, NetcheckDetail detail) {
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
    auto perhaps = [&](const char* name) -> std::string { // true, false, or not known
        const auto* member = report.if_contains(name);
        if (member == nullptr || !member->is_bool()) return "";
        return member->get_bool() ? "true" : "false";
    };
    constexpr const char* kNoAddress = "(no addr found)";
    std::string v4 = text("GlobalV4"), v6 = text("GlobalV6");
    v4 = v4.empty() ? kNoAddress : "yes, " + v4;
    if (!v6.empty())
        v6 = "yes, " + v6;
    else if (flag("IPv6"))
        v6 = kNoAddress;
    else
        v6 = flag("OSHasIPv6") ? "no, but OS has support" : "no, unavailable in OS";
    struct Region {
        int number;
        double milliseconds; ///< below 0: no answer
        std::string code, name;
    };
    std::vector<Region> regions;
    auto latency_of = [&](const char* kind, int number) -> double { // in milliseconds
        const auto* latencies = report.if_contains(kind);
        if (latencies == nullptr || !latencies->is_object()) return -1;
        const auto* measured = latencies->get_object().if_contains(std::to_string(number));
        return measured != nullptr && measured->is_number() ? measured->to_number<double>() / 1e6 : -1;
    };
    auto in_words = [](double milliseconds) {
        return milliseconds < 0 ? std::string{} : fmt::format("{:.1f}ms", milliseconds);
    };
    if (map->regions)
        for (const auto& [number, region] : *map->regions)
            if (region)
                regions.push_back(
                    {number, latency_of("RegionLatency", number), region->region_code, region->region_name});
    std::ranges::stable_sort(regions, [](const Region& a, const Region& b) {
        if ((a.milliseconds < 0) != (b.milliseconds < 0)) return b.milliseconds < 0;
        return a.milliseconds < b.milliseconds;
    });
    const auto* preferred = report.if_contains("PreferredDERP");
    std::string nearest = "unknown (no response to latency probes)";
    bool any = false;
    for (const Region& region : regions) any = any || region.milliseconds >= 0;
    if (any) nearest = "[none]";
    for (const Region& region : regions)
        if (any && preferred != nullptr && preferred->is_int64() && preferred->get_int64() == region.number)
            nearest = region.name;
    std::string out = "\nReport:\n";
    if (std::string when = text("Now"); !when.empty()) {
        std::ranges::replace(when, 'T', ' ');
        out += fmt::format("\t* Time: {}\n", when);
    }
    out += fmt::format("\t* UDP: {}\n", flag("UDP"));
    out += fmt::format("\t* IPv4: {}\n", v4);
    out += fmt::format("\t* IPv6: {}\n", v6);
    out += fmt::format("\t* MappingVariesByDestIP: {}\n", perhaps("MappingVariesByDestIP"));
    out += fmt::format("\t* PortMapping: {}\n", port_mapping(perhaps("UPnP"), perhaps("PMP"), perhaps("PCP")));
    if (std::string captive = perhaps("CaptivePortal"); !captive.empty())
        out += fmt::format("\t* CaptivePortal: {}\n", captive);
    out += fmt::format("\t* Nearest DERP: {}\n", nearest);
    if (!any) return out;
    out += "\t* DERP latency:\n";
    for (const Region& region : regions) {
        out += fmt::format("\t\t- {:>3}: {:<7} ({})", region.code, in_words(region.milliseconds), region.name);
        if (detail == NetcheckDetail::Families)
            for (const auto& [family, measured] :
                 {std::pair{"IPv4", "RegionV4Latency"}, std::pair{"IPv6", "RegionV6Latency"}})
                if (double milliseconds = latency_of(measured, region.number); milliseconds >= 0)
                    out += fmt::format(" {} {}", family, in_words(milliseconds));
        out += '\n';
    }
    return out;
}

namespace {

Task<int> netcheck_once(LocalClient& client, const NetcheckCommand& command) {
    auto report = co_await client.request("POST", "/localapi/v0/netcheck", "");
    if (!report) co_return fail(report.error().message());
    if (!command.format.empty()) {
        fmt::print("{}\n", command.format == "json" ? pretty_json(*report, "\t") : *report);
        co_return 0;
    }
    auto map = co_await client.request("GET", "/localapi/v0/derpmap", "");
    if (!map) co_return fail(map.error().message());
    auto text = netcheck_text(*report, *map, command.verbose ? NetcheckDetail::Families : NetcheckDetail::Usual);
    if (!text) co_return fail(text.error().message());
    fmt::print("{}", *text);
    co_return 0;
}

} // namespace

Task<int> netcheck(LocalClient& client, NetcheckCommand command) {
    for (;;) {
        int status = co_await netcheck_once(client, command);
        std::fflush(stdout);
        if (status != 0 || command.every == Duration{}) co_return status;
        co_await client.reactor().sleep(command.every);
    }
}

} // namespace tailrace::cli
