// agent/dataplane/steering.hpp - brings disco, STUN and relay datagrams on the WireGuard port to the agent's sockets.
#pragma once
#include "agent/dataplane/attachment.hpp"
#include "agent/dataplane/bpffs.hpp"
#include "base/net.hpp"
#include "base/result.hpp"
#include "bpf/shared/steer_map.h"

#include <cstdint>
#include <string>
#include <vector>

namespace tailrace {

struct SteeringOptions {
    std::string bpffs = "/sys/fs/bpf";
    AttachMethod attach = AttachMethod::Automatic;
    unsigned schema = TR_SCHEMA_VERSION; ///< another one only in tests of upgrades
};

struct SteeringPorts {
    std::uint16_t wireguard = 0;
    /// The agent's UDP sockets, one a family, bound to the wildcard address without SO_REUSEPORT (IPv6: IPV6_V6ONLY).
    /// 0: that family is absent.
    std::uint16_t agent4 = 0;
    std::uint16_t agent6 = 0;
};

struct SteeringCounts {
    std::uint64_t disco = 0, stun = 0, geneve = 0;
    std::uint64_t no_socket = 0; ///< for the agent, but nobody listened
};

/// What WireGuard sends to `remote` leaves from our UDP port `port` instead of WireGuard's, and what comes from there
/// to that port is WireGuard's. IPv4 only. Whoever makes one holds the port with a socket of his own.
struct PortMove {
    Endpoint remote;
    std::uint16_t port = 0;
    bool operator==(const PortMove&) const = default;
};

/// One program and its maps for all interfaces. Steers nothing until it has been told ports, addresses and interfaces.
/// Programs stay attached when the object goes: without a listening agent they let everything pass.
class Steering {
public:
    /// `device`: the WireGuard device whose pins these are kept beside.
    static Result<Steering> open(const std::string& device, const SteeringOptions& options = {});
    static Result<void> remove(const std::string& device, const SteeringOptions& options = {});

    Result<void> set_ports(const SteeringPorts& ports);
    /// All addresses of this host. Datagrams to any other may be forwarded and are never touched.
    Result<void> set_local_addresses(const std::vector<IpAddress>& addresses);
    /// Attaches to these (underlay interfaces and lo) and detaches from all others. An interface that is gone already
    /// is no error. Takes the place of programs of other schemas.
    Result<void> set_interfaces(const std::vector<std::string>& names);
    /// To all interfaces of set_interfaces() that there still are.
    bool is_in_place() const;
    Result<SteeringCounts> counts() const;
    /// The whole list: others end. Costs nothing while there is none.
    Result<void> set_moves(const std::vector<PortMove>& moves);
    /// Those in force, also an earlier agent's.
    Result<std::vector<PortMove>> moves() const;

private:
    explicit Steering(PinDirectory pins) : pins_(std::move(pins)) {}

    Result<void> keep_movers();

    PinDirectory pins_;
    std::vector<PinDirectory> others_; ///< of other schemas, until ours have taken their place
    AttachMethod method_ = AttachMethod::Automatic;
    std::vector<unsigned> attached_; ///< interface indexes
    Fd program_, config_, local_, steered_;
    Fd mover_, moves_;
    bool movers_are_gone_ = false; ///< seen to be attached nowhere
};

} // namespace tailrace
