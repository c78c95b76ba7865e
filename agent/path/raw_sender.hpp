// agent/path/raw_sender.hpp - sends datagrams from WireGuard's own port (derp-disco-paths.md 6.2).
#pragma once
#include "agent/path/udp_packet.hpp"
#include "base/fd.hpp"
#include "base/net.hpp"
#include "base/result.hpp"
#include "netlink/route_lookup.hpp"

#include <map>
#include <optional>

namespace tailrace {

/// The kernel module holds the port, so UDP headers and checksums are made here; the source address is the kernel's
/// choice for a packet with our mark, remembered until forget_routes(). Either address family may be missing.
class RawSender {
public:
    static Result<RawSender> open(std::uint16_t port, std::uint32_t mark);

    Result<void> send(const Endpoint& to, BytesView payload, Fragments fragments = Fragments::IfNeedBe);
    /// To our own port, with a foreign source: over loopback to the address that we use towards `from`.
    Result<void> inject(const Endpoint& from, BytesView payload);
    /// A route or an address changed.
    void forget_routes() { sources_.clear(); }
    void set_port(std::uint16_t port) { port_ = port; }

private:
    RawSender(std::uint16_t port, std::uint32_t mark, RouteLookup lookup)
        : port_(port), mark_(mark), lookup_(std::move(lookup)) {}
    Result<IpAddress> source_towards(const IpAddress& to);
    Result<void> write(const Endpoint& from, const Endpoint& to, BytesView payload, Fragments fragments);

    std::uint16_t port_;
    std::uint32_t mark_;
    Fd v4_, v6_;
    RouteLookup lookup_;
    std::map<IpAddress, IpAddress> sources_;
};

} // namespace tailrace
