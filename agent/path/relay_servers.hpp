// agent/path/relay_servers.hpp - which nodes of the tailnet relay for us, which peers know how to use them, and for
// whom we may relay.
#pragma once
#include "proto/netmap.hpp"

#include <set>
#include <vector>

namespace tailrace {

struct RelayServers {
    bool enabled = false;         ///< control does not forbid it
    std::set<NodeKey> capable;    ///< peers that can be met at a relay server
    std::vector<NodeKey> servers; ///< peers that the policy lets us ask
};

/// Pure. Source: tailscale wgengine/magicsock/magicsock.go, updateRelayServersSet (derp-disco-paths.md 4.14).
RelayServers find_relay_servers(const Netmap& netmap);
/// The peers that the policy lets ask us for a relay; none where control forbids it.
std::set<NodeKey> find_relay_clients(const Netmap& netmap);

} // namespace tailrace
