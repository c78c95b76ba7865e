#include "netlink/route_lookup.hpp"

#include "netlink/attributes.hpp"

#include <linux/rtnetlink.h>

#include <cerrno>

namespace tailrace {

Result<RouteLookup> RouteLookup::open() {
    auto socket = NetlinkSocket::open(NETLINK_ROUTE);
    if (!socket) return socket.error().with("route look-up");
    return RouteLookup{std::move(*socket)};
}

Result<RouteAnswer> RouteLookup::find(const IpAddress& destination, std::uint32_t mark,
                                      std::optional<IpAddress> source) {
    NetlinkMessage ask{RTM_GETROUTE, 0};
    rtmsg header{};
    header.rtm_family = destination.is_v4() ? AF_INET : AF_INET6;
    header.rtm_dst_len = static_cast<unsigned char>(destination.bits());
    if (source) header.rtm_src_len = static_cast<unsigned char>(source->bits());
    if (destination.is_v4()) header.rtm_flags = RTM_F_LOOKUP_TABLE; // IPv6 always says the table
    ask.header(header);
    ask.put_address(RTA_DST, destination);
    if (source) ask.put_address(RTA_SRC, *source);
    if (mark != 0) ask.put_u32(RTA_MARK, mark);

    std::optional<RouteAnswer> answer;
    std::optional<Error> refused;
    auto asked = socket_.query(ask, [&](const nlmsghdr& message) -> Result<void> {
        auto route = header_of<rtmsg>(message);
        auto attributes = Attributes::of_message(message, sizeof route);
        // IPv6 answers "unreachable" with a route of that type, IPv4 with an error: the same to the caller.
        if (auto code = attributes.value<rta_cacheinfo>(RTA_CACHEINFO); code && code->rta_error != 0)
            refused =
                Error::from_errno(static_cast<int>(code->rta_error > 0x7fffffff ? -code->rta_error : code->rta_error),
                                  "route to {}", destination.text());
        RouteAnswer found;
        found.local = route.rtm_type == RTN_LOCAL;
        found.device_index = static_cast<int>(attributes.u32(RTA_OIF));
        found.table = attributes.u32(RTA_TABLE, route.rtm_table);
        if (auto address = attributes.address(RTA_PREFSRC); address.valid()) found.source = address;
        if (auto address = attributes.address(RTA_GATEWAY); address.valid()) found.gateway = address;
        answer = found;
        return {};
    });
    if (!asked) return asked.error().with("route to {}", destination.text());
    if (refused) return *refused;
    if (!answer) return Error::from_errno(ENETUNREACH, "route to {}", destination.text());
    return *answer;
}

} // namespace tailrace
