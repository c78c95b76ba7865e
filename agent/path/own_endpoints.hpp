// agent/path/own_endpoints.hpp - where others may reach us. Pure.
#pragma once
#include "agent/path/net_report.hpp"
#include "base/net.hpp"
#include "base/time.hpp"
#include "netlink/link.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tailrace {

/// The addresses of our interfaces with WireGuard's port, in the order in which control is told (derp-disco-paths.md
/// 4.2, number 8). `device` is our own tunnel.
std::vector<Endpoint> own_endpoints(const std::vector<Link>& links, const std::string& device, std::uint16_t port);

/// An address that others may try, and how we know it (control-protocol.md 6, EndpointType: 1 local, 2 STUN, 3 a port
/// that the gateway forwards, 4 a STUN address with our own port, 5 told by the administrator).
struct OwnEndpoint {
    Endpoint endpoint;
    int type = 1;
    bool operator==(const OwnEndpoint&) const = default;
};

/// How the world sees us, the surest first: what the gateway forwards, what STUN saw, and, where each destination sees
/// another port, the bet that somebody forwards our own (derp-disco-paths.md 4.2, numbers 1 to 3).
std::vector<OwnEndpoint> outside_endpoints(const std::optional<Endpoint>& forwarded, const NetReport& report,
                                           std::uint16_t port);

/// What a cloud says of this instance (number 5): its addresses with our own port.
std::vector<OwnEndpoint> cloud_endpoints(const std::vector<IpAddress>& addresses, std::uint16_t port);

/// What others saw of us lately: a NAT whose answers alternate does not change the list each time. Pure. Source:
/// tailscale wgengine/magicsock/endpoint_tracker.go (derp-disco-paths.md 4.2, number 6).
class EndpointMemory {
public:
    static constexpr auto kLifetime = std::chrono::seconds{310};
    static constexpr std::size_t kMostPerAddress = 6; ///< the latest

    void note(TimePoint now, const OwnEndpoint& endpoint);
    /// The latest first.
    std::vector<OwnEndpoint> recent(TimePoint now) const;
    void clear() { seen_.clear(); }

private:
    struct Seen {
        OwnEndpoint endpoint;
        TimePoint at;
    };
    std::vector<Seen> seen_; ///< the latest first
};

} // namespace tailrace
