// agent/router/accepted_routes.hpp - what routes of other nodes do to this host, told before they cut anybody off.
// Pure.
#pragma once
#include "base/net.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// An interface prefix of this host, host bits kept: 192.168.1.5/24.
struct HostNetwork {
    IpPrefix prefix;
    bool loopback = false;
    std::string interface = {};
    bool in_use = true; ///< the interface is up and has a carrier

    bool operator==(const HostNetwork&) const = default;
};

struct AcceptedRoute {
    IpPrefix prefix;
    std::string router; ///< name of the node that has it
};

/// How networks are reached that this host is attached to, where accepted routes claim them too.
enum class AttachedBy { Host, Tunnel };

/// Left to the kernel a route of ours wins over the host's own, for the rule that asks table 52 comes first: one that
/// covers the network of the default gateway cuts off who works on this host from there, and its resolver. So what the
/// host is attached to it goes on reaching by itself, unless somebody asked for the other.
struct AttachedFirst {
    std::vector<IpPrefix> kept_out; ///< networks that an accepted route covers: never into the device
    std::vector<IpPrefix> left_out; ///< accepted routes that lie within such a network: without effect
};
AttachedFirst keep_attached(const std::vector<AcceptedRoute>& routes, const std::vector<HostNetwork>& networks);

/// What accepted routes do to the networks of this host, or would do. And routes that together are (nearly) the
/// internet are an exit node that nobody chose: 0.0.0.0/1 and 128.0.0.0/1 are taken like any other two, as the
/// reference client does, but not in silence. Sentences for people, none when all is well. `cure`: the setting that
/// keeps networks from the tunnel.
std::vector<std::string> accepted_route_warnings(const std::vector<AcceptedRoute>& routes,
                                                 const std::vector<HostNetwork>& networks, AttachedBy by,
                                                 std::string_view cure = "--routes-over-lan=false");

} // namespace tailrace
