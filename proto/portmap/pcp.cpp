#include "proto/portmap/pcp.hpp"

namespace tailrace::pcp {
namespace {

constexpr std::uint8_t kAnnounce = 0, kMap = 1, kReply = 0x80, kUdp = 17;

/// Every address is 16 bytes; "any IPv4 address" is ::ffff:0.0.0.0.
void put_address(Writer& out, const IpAddress& address) {
    if (address.is_v6()) {
        out.bytes(address.bytes());
        return;
    }
    for (int i = 0; i < 10; ++i) out.u8(0);
    out.be16(0xffff);
    out.be32(address.is_v4() ? address.v4_value() : 0);
}

void put_head(Writer& out, std::uint8_t opcode, std::chrono::seconds lifetime, const IpAddress& client) {
    out.u8(kVersion);
    out.u8(opcode);
    out.be16(0);
    out.be32(static_cast<std::uint32_t>(lifetime.count()));
    put_address(out, client);
}

} // namespace

std::array<std::byte, 24> write_announce_request(const IpAddress& client) {
    Writer out;
    put_head(out, kAnnounce, std::chrono::seconds{0}, client);
    return Reader{out.view()}.array<24>();
}

std::array<std::byte, 60> write_map_request(const MapRequest& request) {
    Writer out;
    put_head(out, kMap, request.lifetime, request.client);
    out.bytes(request.nonce);
    out.u8(kUdp);
    for (int i = 0; i < 3; ++i) out.u8(0);
    out.be16(request.internal_port);
    out.be16(request.wished_port);
    put_address(out, request.wished_address);
    return Reader{out.view()}.array<60>();
}

Result<Response> parse_response(BytesView datagram) {
    if (datagram.size() > kMaxSize || datagram.size() % 4 != 0)
        return Error::make("PCP response: {} bytes is no length of one", datagram.size());
    Reader in{datagram};
    std::uint8_t version = in.u8();
    std::uint8_t opcode = in.u8();
    (void)in.u8();
    Response response;
    response.result = in.u8();
    response.lifetime = std::chrono::seconds{in.be32()};
    response.epoch = in.be32();
    (void)in.bytes(12);
    if (!in.ok()) return in.error("PCP response");
    if (version != kVersion) return Error::make("PCP response: version {}", version);
    if (opcode == (kReply | kAnnounce)) return response;
    if (opcode != (kReply | kMap)) return Error::make("PCP response: opcode {:#04x}", opcode);
    response.kind = Response::Kind::Map;
    Mapping mapping;
    mapping.nonce = in.array<12>();
    mapping.protocol = in.u8();
    (void)in.bytes(3);
    mapping.internal_port = in.be16();
    mapping.external_port = in.be16();
    mapping.external_address = IpAddress::from_bytes(in.bytes(16)).unmapped();
    if (!in.ok()) return in.error("PCP map response"); // options behind it are ignored: we asked for none
    response.mapping = mapping;
    return response;
}

std::string_view result_text(std::uint8_t result) {
    constexpr std::array<std::string_view, 14> kTexts{"ok",
                                                      "unsupported version",
                                                      "not authorised",
                                                      "malformed request",
                                                      "unsupported opcode",
                                                      "unsupported option",
                                                      "malformed option",
                                                      "network failure",
                                                      "no resources",
                                                      "unsupported protocol",
                                                      "over quota",
                                                      "that outside port cannot be had",
                                                      "address mismatch: there is another NAT before the gateway",
                                                      "too many remote peers"};
    return result < kTexts.size() ? kTexts[result] : "unknown result";
}

} // namespace tailrace::pcp
