// agent/engine/wanted.hpp - from the netmap and the preferences to what the machine shall be. Pure.
#pragma once
#include "agent/router/accepted_routes.hpp"
#include "agent/router/via6.hpp"
#include "agent/store/prefs.hpp"
#include "base/net.hpp"
#include "base/time.hpp"
#include "netlink/forwarding.hpp"
#include "netlink/router.hpp"
#include "policy/filter_rule.hpp"
#include "proto/control/node.hpp"

#include <string>
#include <vector>

namespace tailrace {

struct WantedPeer {
    NodeKey key;
    DiscoKey disco;
    std::vector<IpPrefix> allowed_ips; ///< never empty: who has none does not exist in the device
    std::vector<Endpoint> endpoints;
    std::vector<IpAddress> addresses; ///< its own
    int home_region = 0;              ///< of its relay; 0: not known
    bool jailed = false;
    bool wireguard_only = false; ///< not of the tailnet's kind: no disco, no relay
    bool follows = true; ///< its WireGuard takes the source of what arrives for our address, as the kernel's does
};

struct Wanted {
    std::vector<IpPrefix> addresses; ///< ours, /32 and /128
    std::vector<WantedPeer> peers;
    RouterConfig router;
    ForwardingConfig forwarding;
    ViaTable via;
    std::vector<IpPrefix> local_nets; ///< destinations that packets from peers may have at all
    std::vector<std::string> notes;   ///< for health: what could not be done
};

/// 100.100.100.100 and fd7a:115c:a1e0::53: where this host asks MagicDNS. They are nobody's else.
const std::vector<IpAddress>& service_addresses();

Wanted compute_wanted(const wire::Node& self, const std::vector<const wire::Node*>& peers, const Prefs& prefs,
                      const std::vector<HostNetwork>& host_networks, const WallTime& now);

/// Whether an exit node is chosen, known or not.
bool uses_exit_node(const Prefs& prefs);

/// With an exit node the network that this host is attached to goes by it too, unless that is allowed; without one
/// accepted routes leave it alone, unless they shall not.
AttachedBy attached_by(const Prefs& prefs);
/// See accepted_route_warnings().
std::vector<std::string> route_warnings(const std::vector<AcceptedRoute>& routes, const Prefs& prefs,
                                        const std::vector<HostNetwork>& host_networks);
/// What is kept out of the tunnel while an exit node is chosen: loopback, and our networks where the preferences say
/// so.
std::vector<IpPrefix> kept_out_of_tunnel(const Prefs& prefs, const std::vector<HostNetwork>& host_networks);
/// Routes of peers that would be in force with --accept-routes.
std::vector<AcceptedRoute> acceptable_routes(const std::vector<const wire::Node*>& peers, Prefs prefs,
                                             const WallTime& now);
/// The allowed IPs of a peer that we may use (linux-router.md 4).
std::vector<IpPrefix> eligible_routes(const wire::Node& peer, const Prefs& prefs, const WallTime& now);
/// What remains of a default route for a packet filter: the internet, not our LAN (linux-router.md 8).
std::vector<IpPrefix> shrink_default_route(bool v6, const std::vector<HostNetwork>& host_networks);
/// Destinations that the filter lets anybody ask for (policy.md 6.5), never loopback. As the fewest prefixes. `own`:
/// addresses of this node, and of the services that it hosts.
std::vector<IpPrefix> local_nets(const std::vector<IpPrefix>& own, const Prefs& prefs,
                                 const std::vector<HostNetwork>& host_networks);
/// `from` without `without`, as the fewest prefixes.
std::vector<IpPrefix> subtract(const std::vector<IpRange>& from, const std::vector<IpRange>& without);

FilterRule to_policy(const wire::FilterRule& rule);

} // namespace tailrace
