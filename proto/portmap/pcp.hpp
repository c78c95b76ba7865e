// proto/portmap/pcp.hpp - PCP, the successor of NAT-PMP on the same port: ANNOUNCE and MAP. Source: RFC 6887 (7,
// 11, 14.1); derp-disco-paths.md 5.3. Only UDP mappings for IPv4.
#pragma once
#include "base/bytes.hpp"
#include "base/net.hpp"

#include <chrono>
#include <optional>

namespace tailrace::pcp {

constexpr std::uint8_t kVersion = 2;
constexpr std::size_t kMaxSize = 1100; ///< of any PCP message
constexpr std::uint8_t kOk = 0, kNotAuthorised = 2, kAddressMismatch = 12;

/// Proves to the gateway that a mapping is ours: the same for renewing and deleting it.
using Nonce = std::array<std::byte, 12>;

std::array<std::byte, 24> write_announce_request(const IpAddress& client);

struct MapRequest {
    IpAddress client; ///< our address as the gateway shall see it
    Nonce nonce{};
    std::uint16_t internal_port = 0;
    std::uint16_t wished_port = 0;   ///< outside; 0: any
    IpAddress wished_address;        ///< outside; the zero value: any
    std::chrono::seconds lifetime{}; ///< 0 deletes
};
std::array<std::byte, 60> write_map_request(const MapRequest& request);

struct Mapping {
    Nonce nonce{};
    std::uint8_t protocol = 0; ///< IANA; 17 is UDP
    std::uint16_t internal_port = 0, external_port = 0;
    IpAddress external_address; ///< IPv4 mapped into IPv6 is unmapped
};
struct Response {
    enum class Kind { Announce, Map };
    Kind kind = Kind::Announce;
    std::uint8_t result = 0;
    std::chrono::seconds lifetime{}; ///< with an error: how long it will last
    std::uint32_t epoch = 0;         ///< seconds since the gateway lost its mappings
    std::optional<Mapping> mapping;  ///< of Map; also with an error
};
Result<Response> parse_response(BytesView datagram);

/// "not authorised" and the like, for people.
std::string_view result_text(std::uint8_t result);

} // namespace tailrace::pcp
