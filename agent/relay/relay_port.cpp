#include "agent/relay/relay_port.hpp"

#include <cerrno>

namespace tailrace {

RelayPort::RelayPort(UdpSocket socket, std::uint16_t wireguard_port, FromKernel from_kernel)
    : socket_(std::move(socket)), port_(socket_.local().port), wireguard_port_(wireguard_port),
      from_kernel_(std::move(from_kernel)) {}

RelayPort::~RelayPort() {
    *alive_ = false;
    socket_.close();
}

Result<std::unique_ptr<RelayPort>> RelayPort::open(Reactor& reactor, std::uint16_t wireguard_port, std::uint16_t wished,
                                                   FromKernel from_kernel) {
    UdpSocket::Options options;
    options.device = "lo";
    options.original_destination = true;
    options.avoid = wireguard_port;
    auto socket = UdpSocket::bind(reactor, {IpAddress::v4(0), wished}, options);
    if (!socket && wished != 0) socket = UdpSocket::bind(reactor, {IpAddress::v4(0), 0}, options);
    if (!socket) return socket.error().with("the port for relayed peers");
    std::unique_ptr<RelayPort> port{new RelayPort(std::move(*socket), wireguard_port, std::move(from_kernel))};
    spawn(reactor, "relay port", receive(port->alive_, port.get()));
    return port;
}

Task<void> RelayPort::receive(std::shared_ptr<bool> alive, RelayPort* port) {
    while (*alive) {
        auto datagram = co_await port->socket_.receive();
        if (!*alive) co_return;
        if (!datagram) {
            if (datagram.error().code() == ECANCELED) co_return;
            continue; // an ICMP error of an earlier packet
        }
        // Any program of this host can send here: what is not WireGuard's is nobody's.
        if (datagram->from.port != port->wireguard_port_ || !datagram->from.address.is_loopback()) continue;
        if (auto peer = port->addresses_.peer_at(datagram->to.address))
            port->from_kernel_(*peer, std::move(datagram->data));
    }
}

Result<void> RelayPort::inject(const NodeKey& from, BytesView datagram) {
    return socket_.send_from(addresses_.of(from), {IpAddress::v4(0x7f000001), wireguard_port_}, datagram);
}

} // namespace tailrace
