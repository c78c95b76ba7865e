// tests/bpf/two_families.hpp - one message as a packet of either family, written down slowly: what a translator between
// the two has to make of the other, to the byte.
#pragma once
#include "base/bytes.hpp"
#include "base/net.hpp"

#include <gtest/gtest.h>

#include <cstdint>

namespace tailrace::test {

enum class Carries { Tcp, Udp, UdpWithoutChecksum, Echo, EchoReply };

struct Message {
    IpAddress src, dst; ///< of the family that it is written for
    Carries what = Carries::Udp;
    std::uint16_t src_port = 0, dst_port = 0; ///< an echo: identifier and sequence number
    std::uint8_t tos = 0, ttl = 64;
    std::uint8_t tcp_flags = 0x18;
    std::uint32_t tcp_seq = 0x01020304, tcp_ack = 0x05060708;
    std::uint16_t tcp_window = 0xfff0;
    Bytes body;

    Message between(const IpAddress& from, const IpAddress& to) const {
        Message out = *this;
        out.src = from;
        out.dst = to;
        return out;
    }
};

/// The packet, with every checksum summed up anew. IPv4: identification 0.
Bytes packet_of(const Message& message);

/// An ICMP error (either family's numbers, by the addresses) with a whole packet to be about; `rest` is what the type
/// has after its checksum. It cites the packet's IP header and eight bytes more.
Bytes error_packet(const IpAddress& src, const IpAddress& dst, std::uint8_t type, std::uint8_t code, std::uint32_t rest,
                   const Bytes& about);

/// A piece of a packet: so many bytes of what is behind its IP header, from `offset` (a multiple of eight).
Bytes fragment_of(const Bytes& packet, std::size_t offset, std::size_t bytes, bool more, std::uint32_t id);

/// Identification and header checksum are not the same in each run: without them, for comparison. The checksum has to
/// be right, and only a packet that may be fragmented has an identification.
::testing::AssertionResult is_ip4_like(const Bytes& packet, const Bytes& expected);

} // namespace tailrace::test
