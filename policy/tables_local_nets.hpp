// policy/tables_local_nets.hpp - which destinations are ours to answer for or to forward to.
#pragma once
#include "base/net.hpp"

#include <vector>

namespace tailrace {

struct LocalNetsInput {
    std::vector<IpAddress> own_addresses;     ///< in the tailnet
    std::vector<IpAddress> service_addresses; ///< of services that this node hosts
    std::vector<IpPrefix> routes;             ///< advertised (or approved); a default route makes an exit node
    std::vector<IpPrefix> interfaces;         ///< address/length of every interface of the host
    bool app_connector = false;
};

/// The union of all that, as disjoint prefixes in order. A default route is shrunk: not the networks that the host is
/// attached to (its own addresses on them stay), nothing private, link-local, multicast or of the tailnet.
std::vector<IpPrefix> local_nets(const LocalNetsInput& input);

} // namespace tailrace
