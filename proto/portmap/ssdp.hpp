// proto/portmap/ssdp.hpp - who on this LAN is an Internet gateway with UPnP? One datagram, answered by HTTP header
// lines. Source: UPnP Device Architecture 1.1, 1.3; derp-disco-paths.md 5.1. NOTIFY is not used.
#pragma once
#include "base/bytes.hpp"
#include "base/result.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace::ssdp {

constexpr std::uint16_t kPort = 1900;
constexpr std::string_view kGroup = "239.255.255.250";
constexpr std::string_view kEverything = "ssdp:all";
/// Some devices answer "ssdp:all" with one line that is not their gateway's.
constexpr std::string_view kGateway = "urn:schemas-upnp-org:device:InternetGatewayDevice:1";
constexpr std::size_t kMaxSize = 2048; ///< of an answer that we read
constexpr std::size_t kMaxField = 512; ///< of a header that we keep

std::string write_search(std::string_view target);

struct Answer {
    std::string location; ///< URL of the device description
    std::string server, usn;
    std::optional<std::uint32_t> boot_id; ///< another one: the device started over
    bool operator==(const Answer&) const = default;
};
/// Only of Internet gateways; anything else is an error.
Result<Answer> parse_answer(BytesView datagram);
/// Newer kinds of gateway first, one entry a location and server.
void sort_answers(std::vector<Answer>& answers);

} // namespace tailrace::ssdp
