// agent/path/raw_listener.hpp - what arrives for the agent on WireGuard's port, without the steering program.
#pragma once
#include "base/io/socket.hpp"

#include <functional>
#include <memory>
#include <optional>

namespace tailrace {

/// Raw sockets with a classic filter that lets disco, STUN and what relay servers send (Geneve) through: the way of old
/// kernels and of those that refuse us the steering program (derp-disco-paths.md 6.1, A). Peers see no difference. The
/// kernel copies each datagram of the host for the filter to look at, WireGuard's too: a gateway pays for that.
class RawListener {
public:
    using Received = std::function<void(const Datagram&)>;
    /// One address family may be missing.
    static Result<std::unique_ptr<RawListener>> open(Reactor& reactor, std::uint16_t port, Received received);
    ~RawListener();

private:
    RawListener(std::uint16_t port, Received received) : port_(port), received_(std::move(received)) {}
    static Task<void> receive(std::shared_ptr<bool> alive, RawListener* self, Descriptor* socket, bool v6);

    std::uint16_t port_;
    Received received_;
    std::unique_ptr<Descriptor> v4_, v6_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

/// The datagram in what a raw socket gives: IPv4 with its IP header, IPv6 without. `from` gets its port. Empty when it
/// is cut short or for another port.
std::optional<Datagram> parse_raw_udp(BytesView packet, bool v6, const IpAddress& from, std::uint16_t port);

} // namespace tailrace
