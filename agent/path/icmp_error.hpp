// agent/path/icmp_error.hpp - "that datagram of yours cannot be delivered" (RFC 792, destination unreachable). Pure.
#pragma once
#include "base/bytes.hpp"
#include "base/net.hpp"

#include <cstdint>
#include <optional>

namespace tailrace {

struct IcmpError {
    std::uint8_t code = 0;
    Endpoint from, to; ///< of the UDP datagram of ours that it speaks of
    bool operator==(const IcmpError&) const = default;
};

/// An IPv4 packet as a raw ICMP socket gives it. Empty unless it is an error about an UDP datagram that says stop: one
/// that was too big is not.
std::optional<IcmpError> parse_icmp_error(BytesView packet);

} // namespace tailrace
