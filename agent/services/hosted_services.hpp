// agent/services/hosted_services.hpp - services of the tailnet ("svc:web") that programs of this host answer for: what
// control is told of them, and by which addresses they are asked for. Pure. Source: ssh-serve-peerapi.md 2.4; tailscale
// ipn/ipnlocal/serve.go, types/netmap/netmap.go.
#pragma once
#include "agent/store/prefs.hpp"
#include "proto/control/node.hpp"
#include "proto/control/vip_services.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// A capability of our own: {"svc:web":["100.64.0.9","fd7a:115c:a1e0::9"]} for each service that we are a host of.
inline constexpr const char* kServiceHostCap = "service-host";

/// With every port, as the reference client offers those that it leaves to the operating system: which ones answer is a
/// matter of who listens.
wire::VipServices offered_services(const Prefs& prefs);

struct HostedServices {
    std::vector<IpAddress> addresses; ///< sorted; of the tailnet's ranges, and none of this node's own
    std::vector<std::string> notes;   ///< for health: what is offered and not hosted, and why
};
/// Those that we offer and that control has made us a host of.
HostedServices hosted_services(const wire::Node& self, const Prefs& prefs);

} // namespace tailrace
