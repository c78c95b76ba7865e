// base/net.hpp - IP addresses, prefixes, ranges and endpoints as plain values.
#pragma once
#include "base/bytes.hpp"
#include "base/result.hpp"

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

struct sockaddr;
struct sockaddr_storage;

namespace tailrace {

/// An IPv4 or IPv6 address, or none (the zero value, text ""). IPv4 sorts before IPv6.
class IpAddress {
public:
    IpAddress() = default;
    /// `value` in host order: 0x64400001 is 100.64.0.1.
    static IpAddress v4(std::uint32_t value);
    static IpAddress v6(const std::array<std::byte, 16>& bytes);
    /// Dotted IPv4 or RFC 4291 IPv6 text without zone. An empty text is the zero value (Go's netip.Addr).
    static Result<IpAddress> parse(std::string_view text);
    static IpAddress from_bytes(BytesView four_or_sixteen); // any other length: the zero value

    bool valid() const { return bits_ != 0; }
    bool is_v4() const { return bits_ == 32; }
    bool is_v6() const { return bits_ == 128; }
    int bits() const { return bits_; } ///< 32, 128, or 0 for none
    std::uint32_t v4_value() const;    ///< host order; only for IPv4
    BytesView bytes() const { return BytesView{bytes_}.first(static_cast<std::size_t>(bits_ / 8)); } ///< network order
    /// RFC 5952.
    std::string text() const;

    bool is_loopback() const;
    bool is_multicast() const;
    bool is_link_local() const; ///< 169.254/16, fe80::/10
    bool is_unspecified() const;
    /// ::ffff:a.b.c.d becomes a.b.c.d, everything else stays.
    IpAddress unmapped() const;
    /// The address after this one; the zero value after the last.
    IpAddress next() const;

    auto operator<=>(const IpAddress&) const = default;

private:
    friend class IpPrefix;
    std::uint8_t bits_ = 0;
    std::array<std::byte, 16> bytes_{};
};

/// An address and how many of its leading bits count. Host bits may be set; masked() clears them.
class IpPrefix {
public:
    IpPrefix() = default;
    IpPrefix(IpAddress address, int bits) : address_(address), bits_(static_cast<std::uint8_t>(bits)) {}
    static IpPrefix single(IpAddress address) { return {address, address.bits()}; }
    /// "10.0.0.0/8", "fd7a::/48". The length is needed; "" is the zero value.
    static Result<IpPrefix> parse(std::string_view text);

    bool valid() const { return address_.valid(); }
    const IpAddress& address() const { return address_; }
    int bits() const { return bits_; }
    bool is_single() const { return valid() && bits_ == address_.bits(); }
    bool is_default() const { return valid() && bits_ == 0; } ///< 0.0.0.0/0 or ::/0
    IpPrefix masked() const;
    bool is_masked() const { return masked() == *this; }
    bool contains(const IpAddress& address) const;
    bool contains(const IpPrefix& inner) const;
    bool overlaps(const IpPrefix& other) const;
    IpAddress first() const { return masked().address_; }
    IpAddress last() const;
    std::string text() const;

    auto operator<=>(const IpPrefix&) const = default;

private:
    IpAddress address_;
    std::uint8_t bits_ = 0;
};

/// An inclusive range of addresses of one family.
struct IpRange {
    IpAddress first, last;

    static IpRange of(const IpPrefix& prefix) { return {prefix.first(), prefix.last()}; }
    bool contains(const IpAddress& address) const {
        return address.bits() == first.bits() && first <= address && address <= last;
    }
    bool overlaps(const IpRange& other) const {
        return first.bits() == other.first.bits() && first <= other.last && other.first <= last;
    }
    /// The fewest prefixes that cover exactly this range, in order.
    std::vector<IpPrefix> prefixes() const;
    std::string text() const { return first.text() + "-" + last.text(); }
    auto operator<=>(const IpRange&) const = default;
};

/// An address and a UDP or TCP port.
struct Endpoint {
    IpAddress address;
    std::uint16_t port = 0; // host order

    /// "1.2.3.4:41641", "[2001:db8::1]:41641"; "" is the zero value. An IPv6 zone ("%eth0") is dropped: it means
    /// nothing to others, and one in a list from a peer must not spoil the list.
    static Result<Endpoint> parse(std::string_view text);
    static Endpoint
    from_sockaddr(const sockaddr* address); ///< the zero value for other families; mapped IPv4 is unmapped
    /// Returns the length used.
    unsigned to_sockaddr(sockaddr_storage& out) const;
    bool valid() const { return address.valid(); }
    std::string text() const;
    auto operator<=>(const Endpoint&) const = default;
};

/// 100.64.0.0/10 without the ChromeOS hole 100.115.92.0/23, or fd7a:115c:a1e0::/48. Source: linux-router.md 1.
bool is_tailscale_address(const IpAddress& address);
IpPrefix cgnat_prefix();
IpPrefix tailscale_ula_prefix();

} // namespace tailrace

template <>
struct std::hash<tailrace::IpAddress> {
    std::size_t operator()(const tailrace::IpAddress& address) const {
        return std::hash<std::string_view>{}(tailrace::as_chars(address.bytes()));
    }
};
template <>
struct std::hash<tailrace::IpPrefix> {
    std::size_t operator()(const tailrace::IpPrefix& prefix) const {
        return std::hash<tailrace::IpAddress>{}(prefix.address()) * 131 + static_cast<std::size_t>(prefix.bits());
    }
};
template <>
struct std::hash<tailrace::Endpoint> {
    std::size_t operator()(const tailrace::Endpoint& endpoint) const {
        return std::hash<tailrace::IpAddress>{}(endpoint.address) * 65599 + endpoint.port;
    }
};
