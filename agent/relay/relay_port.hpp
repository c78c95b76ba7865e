// agent/relay/relay_port.hpp - the loopback socket at which the kernel's WireGuard meets peers that are relayed
// (derp-disco-paths.md 6.3).
#pragma once
#include "agent/relay/relay_addresses.hpp"
#include "base/io/socket.hpp"

#include <functional>
#include <memory>

namespace tailrace {

/// A relayed peer's endpoint is 127.64.x.y:port. What WireGuard sends there comes to this socket, and the address says
/// for whom it is; what a relay brings is sent to WireGuard from that address.
class RelayPort {
public:
    using FromKernel = std::function<void(const NodeKey& to, Bytes datagram)>;

    /// `wished` is the port of an earlier agent, 0 for none; another one is taken when it is in use.
    static Result<std::unique_ptr<RelayPort>> open(Reactor& reactor, std::uint16_t wireguard_port, std::uint16_t wished,
                                                   FromKernel from_kernel);
    ~RelayPort();

    RelayAddresses& addresses() { return addresses_; }
    Endpoint endpoint_of(const NodeKey& peer) { return {addresses_.of(peer), port_}; }
    bool is_ours(const Endpoint& endpoint) const {
        return endpoint.port == port_ && RelayAddresses::range().contains(endpoint.address);
    }
    /// As if it came from the peer's relayed endpoint.
    Result<void> inject(const NodeKey& from, BytesView datagram);

private:
    RelayPort(UdpSocket socket, std::uint16_t wireguard_port, FromKernel from_kernel);
    static Task<void> receive(std::shared_ptr<bool> alive, RelayPort* port);

    UdpSocket socket_;
    std::uint16_t port_, wireguard_port_;
    FromKernel from_kernel_;
    RelayAddresses addresses_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

} // namespace tailrace
