#include "proto/stun.hpp"

#include <algorithm>

namespace tailrace::stun {
namespace {

constexpr std::size_t kHeaderSize = 20;
constexpr std::uint16_t kBindingRequest = 0x0001, kBindingResponse = 0x0101;
constexpr std::uint32_t kCookie = 0x2112a442;
constexpr std::uint32_t kFingerprintXor = 0x5354554e; // "STUN"
constexpr std::uint16_t kMappedAddress = 0x0001, kXorMappedAddress = 0x0020, kXorMappedAddressOld = 0x8020;
constexpr std::uint16_t kSoftware = 0x8022, kFingerprint = 0x8028;
constexpr std::string_view kSoftwareName = "tailnode";
constexpr std::size_t kFingerprintSize = 8; // type, length, CRC

constexpr std::array<std::uint32_t, 256> make_crc_table() {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t i = 0; i < 256; ++i) {
        std::uint32_t value = i;
        for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0xedb88320u : 0u);
        table[i] = value;
    }
    return table;
}
constexpr auto kCrcTable = make_crc_table();

// CRC-32 as in Ethernet and zlib.
std::uint32_t crc32(BytesView data) {
    std::uint32_t value = 0xffffffffu;
    for (std::byte b : data) value = (value >> 8) ^ kCrcTable[(value ^ std::to_integer<std::uint32_t>(b)) & 0xff];
    return ~value;
}

/// Calls on_attribute(type, value) for each; false when one does not fit.
template <typename OnAttribute>
bool for_each_attribute(BytesView attributes, OnAttribute on_attribute) {
    Reader in{attributes};
    while (in.left() > 0) {
        std::uint16_t type = in.be16();
        std::uint16_t length = in.be16();
        BytesView value = in.bytes(length);
        if (!in.ok()) return false;
        on_attribute(type, value);
        (void)in.bytes(std::min<std::size_t>((4 - length % 4) % 4, in.left())); // padding
    }
    return true;
}

Endpoint read_address(BytesView value, const TxId* mask_id) {
    Reader in{value};
    (void)in.u8();
    std::uint8_t family = in.u8();
    std::uint16_t port = in.be16();
    BytesView raw = family == 1 ? in.bytes(4) : family == 2 ? in.bytes(16) : BytesView{};
    if (!in.ok() || raw.empty()) return {};
    std::array<std::byte, 16> address{};
    std::copy(raw.begin(), raw.end(), address.begin());
    if (mask_id != nullptr) {
        port ^= kCookie >> 16;
        Writer mask;
        mask.be32(kCookie);
        mask.bytes(*mask_id);
        for (std::size_t i = 0; i < raw.size(); ++i) address[i] ^= mask.view()[i];
    }
    return {IpAddress::from_bytes(BytesView{address}.first(raw.size())).unmapped(), port};
}

} // namespace

bool looks_like_stun(BytesView datagram) {
    if (datagram.size() < kHeaderSize || (datagram[0] & std::byte{0xc0}) != std::byte{0}) return false;
    return Reader{datagram.subspan(4)}.be32() == kCookie;
}

std::array<std::byte, kRequestSize> write_request(const TxId& id) {
    Writer out;
    out.be16(kBindingRequest);
    out.be16(kRequestSize - kHeaderSize);
    out.be32(kCookie);
    out.bytes(id);
    out.be16(kSoftware);
    out.be16(static_cast<std::uint16_t>(kSoftwareName.size()));
    out.text(kSoftwareName);
    std::uint32_t fingerprint = crc32(out.view()) ^ kFingerprintXor;
    out.be16(kFingerprint);
    out.be16(4);
    out.be32(fingerprint);
    return Reader{out.view()}.array<kRequestSize>();
}

Result<TxId> parse_request(BytesView datagram) {
    if (!looks_like_stun(datagram)) return Error::make("not STUN");
    Reader in{datagram};
    if (in.be16() != kBindingRequest) return Error::make("STUN: not a binding request");
    (void)in.be16(); // the length; attributes run to the end of the datagram whatever it says, as with the reference
    (void)in.be32();
    TxId id = in.array<12>();
    if (in.left() < kFingerprintSize) return in.error("STUN request");
    BytesView attributes = in.bytes(in.left() - kFingerprintSize);
    BytesView signed_part = datagram.first(datagram.size() - kFingerprintSize);
    if (in.be16() != kFingerprint || in.be16() != 4 || in.be32() != (crc32(signed_part) ^ kFingerprintXor))
        return Error::make("STUN request: it does not end with a right fingerprint");
    bool from_client = false;
    bool whole = for_each_attribute(attributes, [&](std::uint16_t type, BytesView value) {
        if (type == kSoftware && as_chars(value) == kSoftwareName) from_client = true;
    });
    if (!whole || !from_client) return Error::make("STUN request: not from a client of ours");
    return id;
}

std::size_t write_response(std::span<std::byte, kMaxResponseSize> into, const TxId& id, const Endpoint& seen_from) {
    bool v4 = seen_from.address.is_v4();
    Writer out;
    out.be16(kBindingResponse);
    out.be16(v4 ? 12 : 24);
    out.be32(kCookie);
    out.bytes(id);
    out.be16(kXorMappedAddress);
    out.be16(v4 ? 8 : 20);
    out.u8(0);
    out.u8(v4 ? 1 : 2);
    out.be16(static_cast<std::uint16_t>(seen_from.port ^ (kCookie >> 16)));
    Writer mask;
    mask.be32(kCookie);
    mask.bytes(id);
    BytesView address = seen_from.address.bytes();
    for (std::size_t i = 0; i < address.size(); ++i) out.u8(std::to_integer<std::uint8_t>(address[i] ^ mask.view()[i]));
    std::copy(out.view().begin(), out.view().end(), into.begin());
    return out.view().size();
}

Result<Response> parse_response(BytesView datagram) {
    if (!looks_like_stun(datagram)) return Error::make("not STUN");
    Reader in{datagram};
    if (in.be16() != kBindingResponse) return Error::make("STUN: not a binding response");
    std::uint16_t length = in.be16();
    (void)in.be32();
    Response response;
    response.id = in.array<12>();
    BytesView attributes = in.bytes(length); // what follows them is ignored
    if (!in.ok()) return in.error("STUN response");
    Endpoint plain;
    (void)for_each_attribute(attributes, [&](std::uint16_t type, BytesView value) {
        bool is_xor = type == kXorMappedAddress || type == kXorMappedAddressOld;
        if (is_xor && !response.seen_from.valid()) response.seen_from = read_address(value, &response.id);
        if (type == kMappedAddress) plain = read_address(value, nullptr);
    });
    if (!response.seen_from.valid()) response.seen_from = plain;
    if (!response.seen_from.valid()) return Error::make("STUN response: it names no address");
    return response;
}

} // namespace tailrace::stun
