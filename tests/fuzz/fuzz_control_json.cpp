// What a client sends to our server and what a server sends to our client: control messages, and frames of a map
// stream.
#include "agent/engine/known_rule.hpp"
#include "control/routes/region_choice.hpp"
#include "proto/control/map.hpp"
#include "proto/control/register.hpp"
#include "proto/control/requests.hpp"
#include "proto/control/vip_services.hpp"
#include "proto/map_frame.hpp"
#include "proto/netmap.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>

using namespace tailrace;

namespace {

// What was understood once is understood again, and written the same.
template <typename Value, typename Parse, typename Write>
void round_trip(std::string_view text, Parse parse, Write write) {
    Result<Value> value = parse(text);
    if (!value) return;
    std::string once = write(*value);
    Result<Value> again = parse(once);
    if (!again || write(*again) != once) std::abort();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::string_view text{reinterpret_cast<const char*>(data), size};
    round_trip<wire::RegisterRequest>(text, wire::parse_register_request, wire::write_register_request);
    round_trip<wire::RegisterResponse>(text, wire::parse_register_response, wire::write_register_response);
    round_trip<wire::VipServices>(text, wire::parse_vip_services, wire::write_vip_services);
    round_trip<wire::MapRequest>(text, wire::parse_map_request, wire::write_map_request);
    round_trip<wire::MapResponse>(text, wire::parse_map_response,
                                  [](const wire::MapResponse& response) { return wire::write_map_response(response); });
    if (auto request = wire::parse_map_request(text); request && request->hostinfo.value.net_info)
        for (const auto& [region, way] : relay_latencies(*request->hostinfo.value.net_info))
            if (region <= 0 || way < Duration::zero() || way > std::chrono::minutes{1}) std::abort();
    (void)wire::parse_public_key_response(text);
    (void)wire::parse_set_dns_request(text);
    (void)wire::parse_set_device_attributes_request(text);
    (void)wire::parse_audit_log_request(text);
    (void)wire::parse_ping_response(text);
    (void)wire::parse_derp_admit_request(text);

    WallTime now = WallTime::from_unix(1780000000);
    Netmap netmap;
    if (auto first = wire::parse_map_response(text)) {
        for (int frame = 0; frame < 2; ++frame) (void)netmap.apply(*first, now);
        for (const auto& [id, node] : netmap.peers())
            if (netmap.find(id) != &node || node.id != id) std::abort();
        (void)netmap.next_expiry(now);
        const auto rules = netmap.filter_rules();
        const auto& lines = netmap.policy_lines();
        if (!lines.empty() && lines.size() != rules.size()) std::abort();
        for (const wire::RuleLines& spans : lines) {
            const auto all = policy_lines({{}, spans});
            for (std::size_t destination : {0, 1, 70000})
                for (std::uint32_t line : policy_lines({{}, spans}, {destination}))
                    if (line == 0 || std::find(all.begin(), all.end(), line) == all.end()) std::abort();
        }
    }
    for (auto compression : {MapCompression::None, MapCompression::Zstd}) {
        MapFrameReader frames{compression, 65536};
        frames.feed(as_bytes(text));
        for (auto frame = frames.next(); frame && *frame; frame = frames.next())
            (void)wire::parse_map_response(**frame);
    }
    return 0;
}
