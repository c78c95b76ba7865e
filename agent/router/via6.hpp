// agent/router/via6.hpp - 4via6: the same IPv4 network at several sites, told apart by a number. Pure.
#pragma once
#include "base/net.hpp"
#include "base/result.hpp"

#include <cstdint>
#include <map>
#include <vector>

namespace tailrace {

/// fd7a:115c:a1e0:b1a::/64, then the site as 32 bits, then the IPv4 address. Source: tailscale net/tsaddr/tsaddr.go.
IpPrefix via_range();

struct ViaRoute {
    std::uint32_t site = 0; ///< 0 to 65535
    IpPrefix prefix;        ///< IPv4
};
/// An error for a site that cannot be, and for a prefix that is not of IPv4.
Result<IpPrefix> to_via(const ViaRoute& route);
/// An error when it is no via route, or of a site that cannot be.
Result<ViaRoute> from_via(const IpPrefix& prefix);
/// Whether an advertised route inside the via range makes sense; others are none of its business.
Result<void> check_via(const IpPrefix& prefix);

/// What a 4via6 router translates, and under which addresses.
struct ViaTable {
    std::vector<IpPrefix> nets;           ///< its via routes; none: nothing is translated
    std::map<IpAddress, IpAddress> peers; ///< a peer's own IPv6 address -> its own IPv4 address
    IpAddress own4, own6;

    friend bool operator==(const ViaTable&, const ViaTable&) = default;
};

} // namespace tailrace
