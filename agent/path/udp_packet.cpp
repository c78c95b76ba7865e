#include "agent/path/udp_packet.hpp"

#include <netinet/in.h>

namespace tailrace {

std::uint32_t checksum_add(std::uint32_t sum, BytesView data) {
    std::uint64_t total = sum;
    std::size_t i = 0;
    for (; i + 1 < data.size(); i += 2)
        total += static_cast<std::uint32_t>(static_cast<unsigned>(data[i]) << 8 | static_cast<unsigned>(data[i + 1]));
    if (i < data.size()) total += static_cast<unsigned>(data[i]) << 8;
    while (total >> 32) total = (total & 0xffffffff) + (total >> 32);
    return static_cast<std::uint32_t>(total);
}

std::uint16_t checksum_finish(std::uint32_t sum) {
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>(~sum);
}

Bytes build_ipv4_packet(const IpAddress& from, const IpAddress& to, std::uint8_t protocol, BytesView payload,
                        Fragments fragments) {
    constexpr std::uint16_t kDontFragment = 0x4000;
    Writer out;
    out.u8(0x45);
    out.u8(0);
    out.be16(static_cast<std::uint16_t>(20 + payload.size()));
    out.be16(0); // identification: the kernel's
    out.be16(fragments == Fragments::Never ? kDontFragment : 0);
    out.u8(64);
    out.u8(protocol);
    out.be16(0); // header checksum: the kernel's
    out.bytes(from.bytes());
    out.bytes(to.bytes());
    out.bytes(payload);
    return out.take();
}

Bytes build_udp_packet(const Endpoint& from, const Endpoint& to, BytesView payload, Fragments fragments) {
    auto length = static_cast<std::uint16_t>(8 + payload.size());
    Writer pseudo;
    pseudo.bytes(from.address.bytes());
    pseudo.bytes(to.address.bytes());
    pseudo.be32(IPPROTO_UDP);
    pseudo.be32(length);
    Writer head;
    head.be16(from.port);
    head.be16(to.port);
    head.be16(length);
    std::uint32_t sum = checksum_add(checksum_add(checksum_add(0, pseudo.view()), head.view()), payload);
    std::uint16_t checksum = checksum_finish(sum);
    head.be16(checksum == 0 ? 0xffff : checksum); // 0 would mean "none"
    head.bytes(payload);
    if (from.address.is_v4()) return build_ipv4_packet(from.address, to.address, IPPROTO_UDP, head.view(), fragments);
    Writer out;
    out.be32(0x60000000);
    out.be16(length);
    out.u8(IPPROTO_UDP);
    out.u8(64);
    out.bytes(from.address.bytes());
    out.bytes(to.address.bytes());
    out.bytes(head.view());
    return out.take();
}

} // namespace tailrace
