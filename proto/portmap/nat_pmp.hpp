// proto/portmap/nat_pmp.hpp - NAT-PMP: "which is your address outside?" and "send what comes to a port of yours to me".
// Source: RFC 6886; derp-disco-paths.md 5.2. Only UDP mappings.
#pragma once
#include "base/bytes.hpp"
#include "base/net.hpp"

#include <chrono>
#include <variant>

namespace tailrace::nat_pmp {

constexpr std::uint16_t kPort = 5351; ///< of the gateway; PCP's too
constexpr std::uint8_t kVersion = 0;
constexpr std::uint16_t kOk = 0;

std::array<std::byte, 2> write_address_request();

struct MapRequest {
    std::uint16_t internal_port = 0;
    std::uint16_t wished_port = 0; ///< outside; 0: any
    std::chrono::seconds lifetime{};
};
std::array<std::byte, 12> write_map_request(const MapRequest& request);
/// Takes our mapping of this port back.
std::array<std::byte, 12> write_delete_request(std::uint16_t internal_port);

/// A result other than kOk leaves everything behind `epoch` zero.
struct AddressResponse {
    std::uint16_t result = 0;
    std::uint32_t epoch = 0; ///< seconds since the gateway lost its mappings
    IpAddress address;       ///< the zero value when the gateway has none
};
struct MapResponse {
    std::uint16_t result = 0;
    std::uint32_t epoch = 0;
    std::uint16_t internal_port = 0, external_port = 0;
    std::chrono::seconds lifetime{};
};
using Response = std::variant<AddressResponse, MapResponse>;
Result<Response> parse_response(BytesView datagram);

/// "not authorised" and the like, for people.
std::string_view result_text(std::uint16_t result);

} // namespace tailrace::nat_pmp
