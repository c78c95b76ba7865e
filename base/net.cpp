#include "base/net.hpp"

#include "base/text.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>

namespace tailrace {
namespace {

bool same_bits(BytesView a, BytesView b, int bits) {
    auto whole = static_cast<std::size_t>(bits / 8);
    if (!std::equal(a.begin(), a.begin() + static_cast<long>(whole), b.begin())) return false;
    int rest = bits % 8;
    if (rest == 0) return true;
    auto mask = static_cast<std::byte>(0xff << (8 - rest));
    return (a[whole] & mask) == (b[whole] & mask);
}

} // namespace

IpAddress IpAddress::v4(std::uint32_t value) {
    IpAddress out;
    out.bits_ = 32;
    for (unsigned i = 0; i < 4; ++i) out.bytes_[i] = static_cast<std::byte>(value >> (24 - 8 * i));
    return out;
}

IpAddress IpAddress::v6(const std::array<std::byte, 16>& bytes) {
    IpAddress out;
    out.bits_ = 128;
    out.bytes_ = bytes;
    return out;
}

IpAddress IpAddress::from_bytes(BytesView data) {
    IpAddress out;
    if (data.size() != 4 && data.size() != 16) return out;
    out.bits_ = static_cast<std::uint8_t>(data.size() * 8);
    std::copy(data.begin(), data.end(), out.bytes_.begin());
    return out;
}

Result<IpAddress> IpAddress::parse(std::string_view text) {
    if (text.empty()) return IpAddress{};
    std::string copy{text};
    IpAddress out;
    if (::inet_pton(AF_INET, copy.c_str(), out.bytes_.data()) == 1 && copy.size() == text.size()) {
        out.bits_ = 32;
        return out;
    }
    if (copy.find('\0') == std::string::npos && ::inet_pton(AF_INET6, copy.c_str(), out.bytes_.data()) == 1) {
        out.bits_ = 128;
        return out;
    }
    return Error::make("\"{}\" is not an IP address", text);
}

std::uint32_t IpAddress::v4_value() const {
    std::uint32_t value = 0;
    for (unsigned i = 0; i < 4; ++i) value = value << 8 | std::to_integer<std::uint32_t>(bytes_[i]);
    return value;
}

std::string IpAddress::text() const {
    char buffer[INET6_ADDRSTRLEN] = "";
    if (valid()) ::inet_ntop(is_v4() ? AF_INET : AF_INET6, bytes_.data(), buffer, sizeof buffer);
    return buffer;
}

bool IpAddress::is_loopback() const {
    if (is_v4()) return bytes_[0] == std::byte{127};
    return is_v6() && std::all_of(bytes_.begin(), bytes_.end() - 1, [](auto b) { return b == std::byte{0}; }) &&
           bytes_[15] == std::byte{1};
}

bool IpAddress::is_multicast() const {
    if (is_v4()) return (bytes_[0] & std::byte{0xf0}) == std::byte{0xe0};
    return is_v6() && bytes_[0] == std::byte{0xff};
}

bool IpAddress::is_link_local() const {
    if (is_v4()) return bytes_[0] == std::byte{169} && bytes_[1] == std::byte{254};
    return is_v6() && bytes_[0] == std::byte{0xfe} && (bytes_[1] & std::byte{0xc0}) == std::byte{0x80};
}

bool IpAddress::is_unspecified() const {
    return valid() && std::all_of(bytes_.begin(), bytes_.end(), [](auto b) { return b == std::byte{0}; });
}

IpAddress IpAddress::unmapped() const {
    if (!is_v6()) return *this;
    for (unsigned i = 0; i < 10; ++i)
        if (bytes_[i] != std::byte{0}) return *this;
    if (bytes_[10] != std::byte{0xff} || bytes_[11] != std::byte{0xff}) return *this;
    return from_bytes(BytesView{bytes_}.subspan(12, 4));
}

IpAddress IpAddress::next() const {
    IpAddress out = *this;
    for (int i = bits_ / 8 - 1; i >= 0; --i) {
        auto& byte = out.bytes_[static_cast<std::size_t>(i)];
        byte = static_cast<std::byte>(std::to_integer<unsigned>(byte) + 1);
        if (byte != std::byte{0}) return out;
    }
    return {};
}

Result<IpPrefix> IpPrefix::parse(std::string_view text) {
    if (text.empty()) return IpPrefix{};
    auto slash = text.rfind('/');
    if (slash == std::string_view::npos)
        return Error::make("\"{}\" is not a prefix: \"/\" and a length are missing", text);
    auto address = IpAddress::parse(text.substr(0, slash));
    if (!address || !address->valid()) return Error::make("\"{}\" is not a prefix: the address is wrong", text);
    std::string_view length = text.substr(slash + 1);
    auto bits = parse_number<int>(length);
    bool plain = length.size() == 1 || (!length.empty() && length[0] >= '1'); // neither 08 nor -0, as Go's netip
    if (!bits || !plain || *bits < 0 || *bits > address->bits())
        return Error::make("\"{}\" is not a prefix: the length must be 0 to {}", text, address->bits());
    return IpPrefix{*address, *bits};
}

IpPrefix IpPrefix::masked() const {
    IpPrefix out = *this;
    for (int bit = bits_; bit < address_.bits(); ++bit) {
        if (bit % 8 == 0) {
            out.address_.bytes_[static_cast<std::size_t>(bit / 8)] = std::byte{0};
            bit += 7;
        } else {
            out.address_.bytes_[static_cast<std::size_t>(bit / 8)] &= static_cast<std::byte>(~(0x80 >> (bit % 8)));
        }
    }
    return out;
}

IpAddress IpPrefix::last() const {
    IpAddress out = address_;
    for (int bit = bits_; bit < address_.bits(); ++bit)
        out.bytes_[static_cast<std::size_t>(bit / 8)] |= static_cast<std::byte>(0x80 >> (bit % 8));
    return out;
}

bool IpPrefix::contains(const IpAddress& address) const {
    return valid() && address.bits() == address_.bits() && same_bits(address.bytes(), address_.bytes(), bits_);
}

bool IpPrefix::contains(const IpPrefix& inner) const {
    return inner.bits_ >= bits_ && contains(inner.address_);
}

bool IpPrefix::overlaps(const IpPrefix& other) const {
    return contains(other) || other.contains(*this);
}

std::string IpPrefix::text() const {
    return valid() ? fmt::format("{}/{}", address_.text(), bits_) : std::string{};
}

std::vector<IpPrefix> IpRange::prefixes() const {
    std::vector<IpPrefix> out;
    IpAddress at = first;
    while (at.valid() && at <= last) {
        int bits = at.bits();
        while (bits > 0) {
            IpPrefix wider{at, bits - 1};
            if (wider.first() != at || wider.last() > last) break;
            --bits;
        }
        IpPrefix found{at, bits};
        out.push_back(found);
        at = found.last().next();
    }
    return out;
}

Result<Endpoint> Endpoint::parse(std::string_view text) {
    if (text.empty()) return Endpoint{};
    auto colon = text.rfind(':');
    if (colon == std::string_view::npos) return Error::make("\"{}\" is not an endpoint: the port is missing", text);
    std::string_view host = text.substr(0, colon);
    bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
    if (bracketed) host = host.substr(1, host.size() - 2);
    if (bracketed) host = host.substr(0, host.find('%'));
    auto address = IpAddress::parse(host);
    auto port = parse_number<std::uint16_t>(text.substr(colon + 1));
    if (!address || !address->valid() || address->is_v6() != bracketed || !port)
        return Error::make("\"{}\" is not an endpoint (address:port)", text);
    return Endpoint{*address, *port};
}

Endpoint Endpoint::from_sockaddr(const sockaddr* address) {
    if (address->sa_family == AF_INET) {
        sockaddr_in in{};
        std::memcpy(&in, address, sizeof in);
        return {IpAddress::v4(ntohl(in.sin_addr.s_addr)), ntohs(in.sin_port)};
    }
    if (address->sa_family == AF_INET6) {
        sockaddr_in6 in{};
        std::memcpy(&in, address, sizeof in);
        return {IpAddress::from_bytes(std::as_bytes(std::span{in.sin6_addr.s6_addr})).unmapped(), ntohs(in.sin6_port)};
    }
    return {};
}

unsigned Endpoint::to_sockaddr(sockaddr_storage& out) const {
    out = {};
    if (address.is_v4()) {
        sockaddr_in in{};
        in.sin_family = AF_INET;
        in.sin_port = htons(port);
        in.sin_addr.s_addr = htonl(address.v4_value());
        std::memcpy(&out, &in, sizeof in);
        return sizeof in;
    }
    sockaddr_in6 in{};
    in.sin6_family = AF_INET6;
    in.sin6_port = htons(port);
    if (address.is_v6()) std::memcpy(&in.sin6_addr, address.bytes().data(), 16);
    std::memcpy(&out, &in, sizeof in);
    return sizeof in;
}

std::string Endpoint::text() const {
    if (!valid()) return {};
    return address.is_v6() ? fmt::format("[{}]:{}", address.text(), port) : fmt::format("{}:{}", address.text(), port);
}

IpPrefix cgnat_prefix() {
    return {IpAddress::v4(0x64400000), 10};
}

IpPrefix tailscale_ula_prefix() {
    std::array<std::byte, 16> bytes{std::byte{0xfd}, std::byte{0x7a}, std::byte{0x11},
                                    std::byte{0x5c}, std::byte{0xa1}, std::byte{0xe0}};
    return {IpAddress::v6(bytes), 48};
}

bool is_tailscale_address(const IpAddress& mapped) {
    IpAddress address = mapped.unmapped();
    static const IpPrefix kChromeOs{IpAddress::v4(0x64735c00), 23};
    return (cgnat_prefix().contains(address) && !kChromeOs.contains(address)) ||
           tailscale_ula_prefix().contains(address);
}

} // namespace tailrace
