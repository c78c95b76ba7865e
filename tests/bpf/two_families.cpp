#include "tests/bpf/two_families.hpp"

#include <algorithm>

namespace tailrace::test {
namespace {

void u8(Bytes& out, std::size_t value) {
    out.push_back(static_cast<std::byte>(value));
}
void be16(Bytes& out, std::size_t value) {
    u8(out, value >> 8);
    u8(out, value);
}
void be32(Bytes& out, std::size_t value) {
    be16(out, value >> 16);
    be16(out, value);
}
void append(Bytes& out, BytesView more) {
    out.insert(out.end(), more.begin(), more.end());
}
void put16(Bytes& out, std::size_t at, std::uint16_t value) {
    out[at] = static_cast<std::byte>(value >> 8);
    out[at + 1] = static_cast<std::byte>(value);
}

/// RFC 1071.
std::uint16_t checksum(const Bytes& of) {
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < of.size(); ++i) sum += std::to_integer<std::uint32_t>(of[i]) << (i % 2 ? 0 : 8);
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>(~sum);
}

Bytes pseudo_header(const IpAddress& src, const IpAddress& dst, std::size_t proto, std::size_t bytes) {
    Bytes out;
    append(out, src.bytes());
    append(out, dst.bytes());
    if (src.is_v4()) {
        be16(out, proto);
        be16(out, bytes);
    } else {
        be32(out, bytes);
        be32(out, proto);
    }
    return out;
}

Bytes ip_packet(const IpAddress& src, const IpAddress& dst, std::size_t proto, std::size_t tos, std::size_t ttl,
                const Bytes& behind) {
    Bytes out;
    if (src.is_v4()) {
        be16(out, 0x4500 | tos);
        be16(out, 20 + behind.size());
        be32(out, 0);
        u8(out, ttl);
        u8(out, proto);
        be16(out, 0);
        append(out, src.bytes());
        append(out, dst.bytes());
        put16(out, 10, checksum(out));
    } else {
        be32(out, std::size_t{0x60000000} | tos << 20);
        be16(out, behind.size());
        u8(out, proto);
        u8(out, ttl);
        append(out, src.bytes());
        append(out, dst.bytes());
    }
    append(out, behind);
    return out;
}

bool is_v4(const Bytes& packet) {
    return std::to_integer<int>(packet[0]) >> 4 == 4;
}
std::size_t header_bytes(const Bytes& packet) {
    return is_v4(packet) ? 20 : 40;
}

} // namespace

Bytes packet_of(const Message& message) {
    const bool v4 = message.src.is_v4();
    Bytes out;
    std::size_t proto = 17, check_at = 6;
    bool sums_addresses = true;
    switch (message.what) {
    case Carries::Tcp:
        proto = 6;
        check_at = 16;
        be16(out, message.src_port);
        be16(out, message.dst_port);
        be32(out, message.tcp_seq);
        be32(out, message.tcp_ack);
        be16(out, std::size_t{0x5000} | message.tcp_flags);
        be16(out, message.tcp_window);
        be32(out, 0);
        break;
    case Carries::Udp:
    case Carries::UdpWithoutChecksum:
        be16(out, message.src_port);
        be16(out, message.dst_port);
        be16(out, 8 + message.body.size());
        be16(out, 0);
        break;
    case Carries::Echo:
    case Carries::EchoReply:
        proto = v4 ? 1 : 58;
        check_at = 2;
        sums_addresses = !v4;
        u8(out, message.what == Carries::Echo ? (v4 ? 8 : 128) : (v4 ? 0 : 129));
        u8(out, 0);
        be16(out, 0);
        be16(out, message.src_port);
        be16(out, message.dst_port);
        break;
    }
    append(out, message.body);
    if (message.what != Carries::UdpWithoutChecksum) {
        Bytes summed = sums_addresses ? pseudo_header(message.src, message.dst, proto, out.size()) : Bytes{};
        append(summed, out);
        std::uint16_t sum = checksum(summed);
        put16(out, check_at, proto == 17 && sum == 0 ? 0xffff : sum);
    }
    return ip_packet(message.src, message.dst, proto, message.tos, message.ttl, out);
}

Bytes error_packet(const IpAddress& src, const IpAddress& dst, std::uint8_t type, std::uint8_t code, std::uint32_t rest,
                   const Bytes& about) {
    Bytes out;
    u8(out, type);
    u8(out, code);
    be16(out, 0);
    be32(out, rest);
    append(out, BytesView{about}.first(header_bytes(about) + 8));
    Bytes summed = src.is_v4() ? Bytes{} : pseudo_header(src, dst, 58, out.size());
    append(summed, out);
    put16(out, 2, checksum(summed));
    return ip_packet(src, dst, src.is_v4() ? 1 : 58, 0, 64, out);
}

Bytes fragment_of(const Bytes& packet, std::size_t offset, std::size_t bytes, bool more, std::uint32_t id) {
    const std::size_t header = header_bytes(packet);
    Bytes out(packet.begin(), packet.begin() + static_cast<long>(header));
    BytesView piece = BytesView{packet}.subspan(header + offset, bytes);
    if (is_v4(packet)) {
        put16(out, 2, static_cast<std::uint16_t>(20 + bytes));
        put16(out, 4, static_cast<std::uint16_t>(id));
        put16(out, 6, static_cast<std::uint16_t>((more ? 0x2000 : 0) | offset / 8));
        put16(out, 10, 0);
        put16(out, 10, checksum(out));
    } else {
        put16(out, 4, static_cast<std::uint16_t>(8 + bytes));
        u8(out, std::to_integer<std::size_t>(out[6]));
        out[6] = std::byte{44};
        u8(out, 0);
        be16(out, offset | (more ? 1 : 0));
        be32(out, id);
    }
    append(out, piece);
    return out;
}

::testing::AssertionResult is_ip4_like(const Bytes& packet, const Bytes& expected) {
    if (packet.size() != expected.size())
        return ::testing::AssertionFailure() << packet.size() << " bytes instead of " << expected.size();
    Bytes header(packet.begin(), packet.begin() + 20), same = packet;
    if (checksum(header) != 0) return ::testing::AssertionFailure() << "the header's checksum is wrong";
    for (std::size_t at : {4u, 5u, 10u, 11u}) same[at] = expected[at];
    auto [is, shall] = std::mismatch(same.begin(), same.end(), expected.begin());
    if (is == same.end()) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << "byte " << is - same.begin() << " is " << std::to_integer<int>(*is)
                                         << " instead of " << std::to_integer<int>(*shall);
}

} // namespace tailrace::test
