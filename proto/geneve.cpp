#include "proto/geneve.hpp"

namespace tailrace {
namespace {
constexpr std::uint8_t kGeneveControl = 0x80;
constexpr std::uint8_t kGeneveReserved = 0x3f;
} // namespace

std::optional<GenevePacket> parse_geneve(BytesView datagram) {
    Reader in{datagram};
    GenevePacket packet;
    std::uint8_t version_and_options = in.u8(), flags = in.u8();
    std::uint16_t protocol = in.be16();
    std::uint32_t vni = in.be32();
    if (!in.ok() || version_and_options != 0 || (flags & kGeneveReserved) != 0 || (vni & 0xff) != 0)
        return std::nullopt;
    packet.protocol = static_cast<GenevePacket::Protocol>(protocol);
    if (packet.protocol != GenevePacket::Protocol::Disco && packet.protocol != GenevePacket::Protocol::WireGuard)
        return std::nullopt;
    packet.control = (flags & kGeneveControl) != 0;
    packet.vni = vni >> 8;
    packet.payload = in.rest();
    return packet;
}

Bytes write_geneve(const GenevePacket& packet) {
    Writer out;
    out.u8(0);
    out.u8(packet.control ? kGeneveControl : 0);
    out.be16(static_cast<std::uint16_t>(packet.protocol));
    out.be32(packet.vni << 8);
    out.bytes(packet.payload);
    return out.take();
}

} // namespace tailrace
