#include "proto/portmap/nat_pmp.hpp"

namespace tailrace::nat_pmp {
namespace {
constexpr std::uint8_t kAddress = 0, kMapUdp = 1, kReply = 0x80;
}

std::array<std::byte, 2> write_address_request() {
    return {std::byte{kVersion}, std::byte{kAddress}};
}

std::array<std::byte, 12> write_map_request(const MapRequest& request) {
    Writer out;
    out.u8(kVersion);
    out.u8(kMapUdp);
    out.be16(0);
    out.be16(request.internal_port);
    out.be16(request.wished_port);
    out.be32(static_cast<std::uint32_t>(request.lifetime.count()));
    return Reader{out.view()}.array<12>();
}

std::array<std::byte, 12> write_delete_request(std::uint16_t internal_port) {
    return write_map_request({internal_port, 0, std::chrono::seconds{0}}); // RFC 6886 3.4: the wished port must be 0
}

Result<Response> parse_response(BytesView datagram) {
    Reader in{datagram};
    std::uint8_t version = in.u8();
    std::uint8_t opcode = in.u8();
    std::uint16_t result = in.be16();
    std::uint32_t epoch = in.be32();
    if (!in.ok()) return in.error("NAT-PMP response");
    if (version != kVersion) return Error::make("NAT-PMP response: version {}", version);
    if (opcode == (kReply | kAddress)) {
        AddressResponse response{result, epoch, {}};
        if (result != kOk) return Response{response};
        IpAddress address = IpAddress::v4(in.be32());
        if (!in.ok() || in.left() != 0)
            return Error::make("NAT-PMP address response: {} bytes, not 12", datagram.size());
        if (!address.is_unspecified()) response.address = address;
        return Response{response};
    }
    if (opcode == (kReply | kMapUdp)) {
        MapResponse response{result, epoch, 0, 0, {}};
        if (result != kOk) return Response{response};
        response.internal_port = in.be16();
        response.external_port = in.be16();
        response.lifetime = std::chrono::seconds{in.be32()};
        if (!in.ok() || in.left() != 0) return Error::make("NAT-PMP map response: {} bytes, not 16", datagram.size());
        return Response{response};
    }
    return Error::make("NAT-PMP response: opcode {:#04x}", opcode);
}

std::string_view result_text(std::uint16_t result) {
    switch (result) {
    case kOk:
        return "ok";
    case 1:
        return "unsupported version";
    case 2:
        return "not authorised";
    case 3:
        return "network failure";
    case 4:
        return "out of resources";
    case 5:
        return "unsupported opcode";
    default:
        return "unknown result";
    }
}

} // namespace tailrace::nat_pmp
