// agent/path/udp_packet.hpp - whole UDP packets, checksums included, for raw sockets. Pure.
#pragma once
#include "base/bytes.hpp"
#include "base/net.hpp"

#include <cstdint>

namespace tailrace {

/// Whether routers may cut a packet into pieces. Those of IPv6 never do.
enum class Fragments : std::uint8_t { IfNeedBe, Never };

/// IPv4 (identification and header checksum are left to the kernel) or IPv6 header, UDP header, payload. Both ends are
/// of one family. The UDP checksum is always there.
Bytes build_udp_packet(const Endpoint& from, const Endpoint& to, BytesView payload,
                       Fragments fragments = Fragments::IfNeedBe);
/// An IPv4 packet of any protocol without options.
Bytes build_ipv4_packet(const IpAddress& from, const IpAddress& to, std::uint8_t protocol, BytesView payload,
                        Fragments fragments = Fragments::IfNeedBe);

/// The internet checksum (RFC 1071) of `data`, starting from `sum`, not yet complemented.
std::uint32_t checksum_add(std::uint32_t sum, BytesView data);
std::uint16_t checksum_finish(std::uint32_t sum);

} // namespace tailrace
