#include "netlink/monitor.hpp"

#include "netlink/attributes.hpp"
#include "netlink/decode.hpp"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <cerrno>

namespace tailrace {
namespace {

// Room for the events of some thousand routes that come at once, for example when a full routing table is loaded.
constexpr int kReceiveBufferBytes = 1 << 20;

void decode_event(const nlmsghdr& message, std::vector<NetworkEvent>& events) {
    switch (message.nlmsg_type) {
    case RTM_NEWLINK:
    case RTM_DELLINK:
        if (auto link = decode_link(message))
            events.push_back(
                LinkEvent{message.nlmsg_type == RTM_NEWLINK ? Change::Added : Change::Removed, std::move(*link)});
        else if (auto view = header_of<ifinfomsg>(message); view.ifi_family == AF_INET6)
            events.push_back(Ipv6LinkEvent{view.ifi_index});
        break;
    case RTM_NEWADDR:
    case RTM_DELADDR:
        if (auto address = decode_address(message))
            events.push_back(AddressEvent{message.nlmsg_type == RTM_NEWADDR ? Change::Added : Change::Removed,
                                          address->link_index, address->address});
        break;
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
        if (auto route = decode_route(message); route && !route->local)
            events.push_back(RouteEvent{message.nlmsg_type == RTM_NEWROUTE ? Change::Added : Change::Removed,
                                        route->table, route->route, route->has_gateway});
        break;
    case RTM_NEWRULE:
    case RTM_DELRULE:
        if (auto rule = decode_rule(message))
            events.push_back(
                RuleEvent{message.nlmsg_type == RTM_NEWRULE ? Change::Added : Change::Removed, std::move(*rule)});
        break;
    case RTM_NEWNEXTHOP:
    case RTM_DELNEXTHOP:
        events.push_back(NexthopEvent{message.nlmsg_type == RTM_NEWNEXTHOP ? Change::Added : Change::Removed});
        break;
    default:
        break;
    }
}

} // namespace

Result<NetworkMonitor> NetworkMonitor::open() {
    Fd fd{::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE)};
    if (!fd) return Error::from_errno(errno, "open network monitor");
    // Without the privilege to go past the limit the usual size has to do: a loss is noticed and said.
    if (::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBufferBytes, sizeof kReceiveBufferBytes) != 0)
        (void)::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &kReceiveBufferBytes, sizeof kReceiveBufferBytes);
    sockaddr_nl address{};
    address.nl_family = AF_NETLINK;
    if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
        return Error::from_errno(errno, "bind network monitor");
    for (int group : {RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE,
                      RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE, RTNLGRP_NEXTHOP, RTNLGRP_IPV6_IFINFO})
        if (::setsockopt(fd.get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) != 0)
            return Error::from_errno(errno, "join network event group {}", group);
    return NetworkMonitor{std::move(fd)};
}

Result<std::vector<NetworkEvent>> NetworkMonitor::read_events() {
    std::vector<NetworkEvent> events;
    std::vector<std::byte> buffer(32768);
    for (;;) {
        sockaddr_nl from{};
        socklen_t size = sizeof from;
        const ssize_t got =
            ::recvfrom(fd_.get(), buffer.data(), buffer.size(), 0, reinterpret_cast<sockaddr*>(&from), &size);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return events;
        if (got < 0 && errno == ENOBUFS) {
            events.push_back(EventsLost{});
            continue;
        }
        if (got < 0) return Error::from_errno(errno, "read network events");
        if (from.nl_pid != 0) continue; // only the kernel's word counts
        int left = static_cast<int>(got);
        const auto* message = reinterpret_cast<const nlmsghdr*>(buffer.data());
        while (mnl_nlmsg_ok(message, left)) {
            decode_event(*message, events);
            message = mnl_nlmsg_next(message, &left);
        }
    }
}

} // namespace tailrace
