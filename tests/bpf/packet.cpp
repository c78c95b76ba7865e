#include "tests/bpf/packet.hpp"

#include <stdexcept>

namespace tailrace::test {
namespace {

IpAddress address(const std::string& text) {
    auto parsed = IpAddress::parse(text);
    if (!parsed || !parsed->valid()) throw std::invalid_argument(text);
    return *parsed;
}

void be16(Bytes& out, std::size_t value) {
    out.push_back(static_cast<std::byte>(value >> 8));
    out.push_back(static_cast<std::byte>(value));
}

void be32(Bytes& out, std::size_t value) {
    be16(out, value >> 16);
    be16(out, value & 0xffff);
}

void u8(Bytes& out, std::size_t value) {
    out.push_back(static_cast<std::byte>(value));
}

void append(Bytes& out, BytesView more) {
    out.insert(out.end(), more.begin(), more.end());
}

/// RFC 1071 over all parts, each of even length but the last.
std::uint16_t checksum(std::initializer_list<BytesView> parts) {
    std::uint32_t sum = 0;
    for (BytesView part : parts)
        for (std::size_t i = 0; i < part.size(); ++i) sum += std::to_integer<std::uint32_t>(part[i]) << (i % 2 ? 0 : 8);
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>(~sum);
}

void put16(Bytes& out, std::size_t at, std::uint16_t value) {
    out[at] = static_cast<std::byte>(value >> 8);
    out[at + 1] = static_cast<std::byte>(value);
}

} // namespace

Packet::Packet(const std::string& src, const std::string& dst) : src_(address(src)), dst_(address(dst)) {}

Packet Packet::tcp(std::uint16_t dst_port, std::uint8_t flags, std::uint16_t src_port) const {
    Packet out = *this;
    out.proto_ = 6;
    out.transport_.clear();
    be16(out.transport_, src_port);
    be16(out.transport_, dst_port);
    be32(out.transport_, 1);
    be32(out.transport_, 2);
    u8(out.transport_, 0x50);
    u8(out.transport_, flags);
    be16(out.transport_, 65535);
    be32(out.transport_, 0);
    return out;
}

Packet Packet::udp(std::uint16_t dst_port, std::uint16_t src_port) const {
    Packet out = *this;
    out.proto_ = 17;
    out.transport_.clear();
    be16(out.transport_, src_port);
    be16(out.transport_, dst_port);
    be16(out.transport_, 12);
    be16(out.transport_, 0);
    be32(out.transport_, 0x70696e67);
    return out;
}

Packet Packet::udp(std::uint16_t dst_port, std::uint16_t src_port, BytesView payload) const {
    Packet out = *this;
    out.proto_ = 17;
    out.transport_.clear();
    be16(out.transport_, src_port);
    be16(out.transport_, dst_port);
    be16(out.transport_, 8 + payload.size());
    be16(out.transport_, 0);
    append(out.transport_, payload);
    Bytes pseudo;
    be16(pseudo, 17);
    be16(pseudo, out.transport_.size());
    std::uint16_t sum = checksum({src_.bytes(), dst_.bytes(), pseudo, out.transport_});
    put16(out.transport_, 6, sum ? sum : 0xffff);
    return out;
}

Packet Packet::sctp(std::uint16_t dst_port, std::uint16_t src_port) const {
    Packet out = *this;
    out.proto_ = 132;
    out.transport_.clear();
    be16(out.transport_, src_port);
    be16(out.transport_, dst_port);
    be32(out.transport_, 1);
    be32(out.transport_, 0);
    return out;
}

Packet Packet::icmp(std::uint8_t type, std::uint8_t code) const {
    Packet out = *this;
    out.proto_ = src_.is_v4() ? 1 : 58;
    out.transport_.clear();
    u8(out.transport_, type);
    u8(out.transport_, code);
    be16(out.transport_, 0);
    be32(out.transport_, 0x00010001);
    return out;
}

Packet Packet::proto(std::uint8_t number, std::size_t body_bytes) const {
    Packet out = *this;
    out.proto_ = number;
    out.transport_.assign(body_bytes, std::byte{0x2a});
    return out;
}

Packet Packet::cut_transport(std::size_t bytes) const {
    Packet out = *this;
    out.transport_.resize(bytes);
    return out;
}

Packet Packet::fragment(std::uint16_t blocks, bool more, std::uint32_t id) const {
    Packet out = *this;
    out.is_fragment_ = true;
    out.blocks_ = blocks;
    out.more_ = more;
    out.id_ = id;
    return out;
}

Packet Packet::options(std::size_t bytes) const {
    Packet out = *this;
    out.options_.assign(bytes, std::byte{1}); // no operation
    return out;
}

Packet Packet::extension(std::uint8_t number) const {
    Packet out = *this;
    Bytes header;
    u8(header, proto_);
    u8(header, 0);
    header.resize(8);
    append(header, transport_);
    out.transport_ = header;
    out.proto_ = number;
    return out;
}

Bytes Packet::bytes() const {
    Bytes out;
    if (src_.is_v4()) {
        u8(out, 0x40 | (5 + options_.size() / 4));
        u8(out, 0);
        be16(out, 20 + options_.size() + transport_.size());
        be16(out, id_);
        be16(out, (is_fragment_ && more_ ? 0x2000 : 0) | (is_fragment_ ? blocks_ : 0));
        u8(out, 64);
        u8(out, proto_);
        be16(out, 0);
        append(out, src_.bytes());
        append(out, dst_.bytes());
        append(out, options_);
        put16(out, 10, checksum({out}));
    } else {
        be32(out, 0x60000000);
        be16(out, transport_.size() + (is_fragment_ ? 8 : 0));
        u8(out, is_fragment_ ? 44 : proto_);
        u8(out, 64);
        append(out, src_.bytes());
        append(out, dst_.bytes());
        if (is_fragment_) {
            u8(out, proto_);
            u8(out, 0);
            be16(out, static_cast<std::size_t>(blocks_ << 3 | (more_ ? 1 : 0)));
            be32(out, id_);
        }
    }
    append(out, transport_);
    return out;
}

} // namespace tailrace::test
