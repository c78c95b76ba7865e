// What route netlink messages say, as our structs. Shared by the look-ups and the monitor; only for .cpp files of this
// folder.
#pragma once
#include "netlink/link.hpp"
#include "netlink/router.hpp"

#include <optional>

struct nlmsghdr;

namespace tailrace {

/// What IPv6 routes get that were made without a metric. Source: Linux include/uapi/linux/ipv6_route.h,
/// IP6_RT_PRIO_USER.
inline constexpr std::uint32_t kIpv6Metric = 1024;

struct AddressMessage {
    int link_index = 0;
    InterfaceAddress address;
};
struct RouteMessage {
    std::uint32_t table = 0;
    Route route;
    bool local = false;
    bool has_gateway = false;
};

// Each is empty for a message that is of no interest to us (other families, cloned routes, types we don't know).
std::optional<Link> decode_link(const nlmsghdr& message);
std::optional<AddressMessage> decode_address(const nlmsghdr& message);
std::optional<RouteMessage> decode_route(const nlmsghdr& message);
std::optional<PolicyRule> decode_rule(const nlmsghdr& message);

} // namespace tailrace
