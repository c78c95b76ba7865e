#include "netlink/decode.hpp"

#include "netlink/attributes.hpp"

#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>

namespace tailrace {
namespace {

bool is_ip(int family) {
    return family == AF_INET || family == AF_INET6;
}

IpAddress any_address(int family) {
    return family == AF_INET ? IpAddress::v4(0) : IpAddress::v6({});
}

} // namespace

std::optional<Link> decode_link(const nlmsghdr& message) {
    auto header = header_of<ifinfomsg>(message);
    if (header.ifi_family != AF_UNSPEC) return std::nullopt; // a bridge speaks of its ports in the same messages
    auto attributes = Attributes::of_message(message, sizeof header);
    Link link;
    link.index = header.ifi_index;
    link.name = attributes.text(IFLA_IFNAME);
    link.kind = Attributes::of_nest(attributes.get(IFLA_LINKINFO)).text(IFLA_INFO_KIND);
    link.mtu = attributes.u32(IFLA_MTU);
    link.up = header.ifi_flags & IFF_UP;
    link.running = header.ifi_flags & IFF_RUNNING;
    link.loopback = header.ifi_flags & IFF_LOOPBACK;
    link.point_to_point = header.ifi_flags & IFF_POINTOPOINT;
    return link;
}

std::optional<AddressMessage> decode_address(const nlmsghdr& message) {
    auto header = header_of<ifaddrmsg>(message);
    if (!is_ip(header.ifa_family)) return std::nullopt;
    auto attributes = Attributes::of_message(message, sizeof header);
    // On point-to-point links IFA_ADDRESS is the other end; IFA_LOCAL is ours where there is one.
    auto address = attributes.address(attributes.has(IFA_LOCAL) ? IFA_LOCAL : IFA_ADDRESS);
    if (!address.valid()) return std::nullopt;
    const std::uint32_t flags = attributes.u32(IFA_FLAGS, header.ifa_flags);
    AddressMessage decoded;
    decoded.link_index = static_cast<int>(header.ifa_index);
    decoded.address.prefix = IpPrefix{address, header.ifa_prefixlen};
    decoded.address.deprecated = flags & IFA_F_DEPRECATED;
    decoded.address.tentative = (flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)) && !(flags & IFA_F_OPTIMISTIC);
    return decoded;
}

std::optional<RouteMessage> decode_route(const nlmsghdr& message) {
    auto header = header_of<rtmsg>(message);
    if (!is_ip(header.rtm_family) || (header.rtm_flags & RTM_F_CLONED)) return std::nullopt;
    auto attributes = Attributes::of_message(message, sizeof header);
    RouteMessage decoded;
    decoded.table = attributes.u32(RTA_TABLE, header.rtm_table);
    decoded.has_gateway = attributes.has(RTA_GATEWAY) || attributes.has(RTA_VIA);
    switch (header.rtm_type) {
    case RTN_UNICAST:
        decoded.route.type = RouteType::Unicast;
        break;
    case RTN_LOCAL:
        decoded.local = true;
        break;
    case RTN_THROW:
        decoded.route.type = RouteType::Throw;
        break;
    case RTN_UNREACHABLE:
        decoded.route.type = RouteType::Unreachable;
        break;
    case RTN_BLACKHOLE:
        decoded.route.type = RouteType::Blackhole;
        break;
    case RTN_PROHIBIT:
        decoded.route.type = RouteType::Prohibit;
        break;
    default:
        return std::nullopt;
    }
    // IPv6 shows refusing routes as going out by lo: that is no property of theirs.
    if (decoded.route.type == RouteType::Unicast)
        decoded.route.device_index = static_cast<int>(attributes.u32(RTA_OIF));
    decoded.route.metric = attributes.u32(RTA_PRIORITY);
    if (header.rtm_family == AF_INET6 && decoded.route.metric == kIpv6Metric) decoded.route.metric = 0;
    auto address = attributes.address(RTA_DST);
    decoded.route.destination =
        IpPrefix{address.valid() ? address : any_address(header.rtm_family), header.rtm_dst_len};
    return decoded;
}

std::optional<PolicyRule> decode_rule(const nlmsghdr& message) {
    auto header = header_of<fib_rule_hdr>(message);
    if (!is_ip(header.family)) return std::nullopt;
    auto attributes = Attributes::of_message(message, sizeof header);
    PolicyRule rule;
    rule.v6 = header.family == AF_INET6;
    rule.priority = attributes.u32(FRA_PRIORITY);
    rule.mark = attributes.u32(FRA_FWMARK);
    rule.mask = attributes.u32(FRA_FWMASK, rule.mark != 0 ? 0xffffffff : 0);
    rule.unreachable = header.action == FR_ACT_UNREACHABLE;
    rule.table = header.action == FR_ACT_TO_TBL ? attributes.u32(FRA_TABLE, header.table) : 0;
    rule.plain = (header.action == FR_ACT_TO_TBL || rule.unreachable) && header.src_len == 0 && header.dst_len == 0 &&
                 header.tos == 0 && !(header.flags & FIB_RULE_INVERT) && !attributes.has(FRA_IIFNAME) &&
                 !attributes.has(FRA_OIFNAME) && !attributes.has(FRA_UID_RANGE) && !attributes.has(FRA_IP_PROTO) &&
                 !attributes.has(FRA_SPORT_RANGE) && !attributes.has(FRA_DPORT_RANGE) && !attributes.has(FRA_L3MDEV) &&
                 attributes.u32(FRA_SUPPRESS_PREFIXLEN, 0xffffffff) == 0xffffffff;
    return rule;
}

} // namespace tailrace
