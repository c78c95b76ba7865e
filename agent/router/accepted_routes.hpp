// agent/router/accepted_routes.hpp - what routes of other nodes do to this host, told before they cut anybody off.
// Pure.
#pragma once
#include "base/net.hpp"

#include <string>
#include <vector>

namespace tailrace {

/// An interface prefix of this host, host bits kept: 192.168.1.5/24.
struct HostNetwork {
    IpPrefix prefix;
    bool loopback = false;
    std::string interface = {};
};

struct AcceptedRoute {
    IpPrefix prefix;
    std::string router; ///< name of the node that has it
};

/// A route of ours wins over the host's own: where it covers a network that the host is attached to, or a part of one,
/// the host reaches that one through the tunnel from then on. And routes that together are (nearly) the internet are an
/// exit node that nobody chose: 0.0.0.0/1 and 128.0.0.0/1 are taken like any other two, as the reference client does,
/// but not in silence. Sentences for people, none when all is well.
std::vector<std::string> accepted_route_warnings(const std::vector<AcceptedRoute>& routes,
                                                 const std::vector<HostNetwork>& networks);

} // namespace tailrace
