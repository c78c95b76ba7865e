// tests/bpf/packet.hpp - packets made by hand.
#pragma once
#include "base/bytes.hpp"
#include "base/net.hpp"

#include <cstdint>
#include <string>

namespace tailrace::test {

enum : std::uint8_t { kFin = 1, kSyn = 2, kRst = 4, kPsh = 8, kAck = 16, kUrg = 32, kEce = 64, kCwr = 128 };

/// An IP packet of either family, by its addresses. The functions return *this changed, so that a packet reads as one
/// line: Packet{kA, kR}.tcp(22, kSyn).
class Packet {
public:
    Packet(const std::string& src, const std::string& dst);
    Packet(const IpAddress& src, const IpAddress& dst) : src_(src), dst_(dst) {}

    Packet tcp(std::uint16_t dst_port, std::uint8_t flags, std::uint16_t src_port = 40000) const;
    Packet udp(std::uint16_t dst_port, std::uint16_t src_port = 40000) const;
    /// With this payload and a right checksum.
    Packet udp(std::uint16_t dst_port, std::uint16_t src_port, BytesView payload) const;
    Packet sctp(std::uint16_t dst_port, std::uint16_t src_port = 40000) const;
    /// Eight bytes of header and nothing more. The protocol of the packet's own family.
    Packet icmp(std::uint8_t type, std::uint8_t code = 0) const;
    /// Any protocol, with that many bytes of body (all 0x2a).
    Packet proto(std::uint8_t number, std::size_t body_bytes) const;

    /// The transport cut to so many bytes; lengths in the headers follow.
    Packet cut_transport(std::size_t bytes) const;
    /// As a fragment that starts at `blocks` * 8. IPv6: with a fragment header.
    Packet fragment(std::uint16_t blocks, bool more, std::uint32_t id = 7) const;
    /// IPv4: so many bytes of options (a multiple of four).
    Packet options(std::size_t bytes) const;
    /// IPv6: an extension header of eight bytes in front of what there is.
    Packet extension(std::uint8_t number) const;

    /// The finished packet. IPv4 headers have a right checksum.
    Bytes bytes() const;

private:
    IpAddress src_, dst_;
    std::uint8_t proto_ = 59;
    Bytes transport_, options_;
    bool is_fragment_ = false, more_ = false;
    std::uint16_t blocks_ = 0;
    std::uint32_t id_ = 7;
};

} // namespace tailrace::test
