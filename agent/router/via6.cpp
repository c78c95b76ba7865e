#include "agent/router/via6.hpp"
#include "base/bytes.hpp"

namespace tailrace {
namespace {

constexpr std::uint32_t kLastSite = 0xffff;
constexpr int kIpv4Begins = 96; // bits

} // namespace

IpPrefix via_range() {
    static const IpPrefix range = *IpPrefix::parse("fd7a:115c:a1e0:b1a::/64");
    return range;
}

Result<IpPrefix> to_via(const ViaRoute& route) {
    if (!route.prefix.address().is_v4()) return Error::make("want IPv4 CIDR with a site ID");
    if (route.site > kLastSite) return Error::make("site-id values over {} are currently reserved", kLastSite);
    Bytes bytes = to_bytes(via_range().address().bytes());
    for (std::size_t i = 0; i < 4; ++i) bytes[8 + i] = static_cast<std::byte>(route.site >> (24 - 8 * i));
    const BytesView inner = route.prefix.address().bytes();
    std::copy(inner.begin(), inner.end(), bytes.begin() + 12);
    return IpPrefix{IpAddress::from_bytes(bytes), kIpv4Begins + route.prefix.bits()};
}

Result<void> check_via(const IpPrefix& prefix) {
    if (!prefix.address().is_v6() || !via_range().contains(prefix.address())) return {};
    if (prefix.bits() < kIpv4Begins)
        return Error::make("4-in-6 prefix {} must be at least a /{}", prefix.text(), kIpv4Begins);
    Reader in{prefix.address().bytes().subspan(8)};
    if (const std::uint32_t site = in.be32(); site > kLastSite)
        return Error::make("route {} contains invalid site ID {:08x}; must be 0xffff or less", prefix.text(), site);
    return {};
}

Result<ViaRoute> from_via(const IpPrefix& prefix) {
    if (!prefix.address().is_v6() || !via_range().contains(prefix.address()) || prefix.bits() < kIpv4Begins)
        return Error::make("not a via route");
    if (auto good = check_via(prefix); !good) return good.error();
    Reader in{prefix.address().bytes().subspan(8)};
    ViaRoute route;
    route.site = in.be32();
    route.prefix = IpPrefix{IpAddress::from_bytes(prefix.address().bytes().subspan(12)), prefix.bits() - kIpv4Begins};
    return route;
}

} // namespace tailrace
