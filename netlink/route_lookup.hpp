// "Which way, and from which address, would the kernel send this?"
#pragma once
#include <cstdint>
#include <optional>

#include "base/net.hpp"
#include "base/result.hpp"
#include "netlink/socket.hpp"

namespace tailrace {

struct RouteAnswer {
    bool local = false; ///< the destination is this host
    int device_index = 0;
    std::optional<IpAddress> source; ///< what the kernel would take; raw sends need it for their checksum
    std::optional<IpAddress> gateway;
    std::uint32_t table = 0;
};

class RouteLookup {
public:
    static Result<RouteLookup> open();
    /// Asks as a packet with this mark would. No route is an error with ENETUNREACH (or EHOSTUNREACH, EACCES: as sendto
    /// would).
    Result<RouteAnswer> find(const IpAddress& destination, std::uint32_t mark, std::optional<IpAddress> source = {});

private:
    explicit RouteLookup(NetlinkSocket socket) : socket_(std::move(socket)) {}
    NetlinkSocket socket_;
};

} // namespace tailrace
