// tests/fakes/udp_nat.hpp - a NAT for UDP over IPv4 that hairpins, which the kernel's does not. Pure.
#pragma once
#include "base/bytes.hpp"
#include "base/net.hpp"
#include "base/time.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace tailrace::fakes {

/// Where a datagram comes from and where it goes.
struct Flow {
    Endpoint from, to;
    auto operator<=>(const Flow&) const = default;
};

/// The flow of a whole (unfragmented) UDP datagram over IPv4; none for anything else.
std::optional<Flow> flow_of(BytesView packet);
/// Gives a packet that flow_of() understands other ends, and corrects its checksums. RFC 1624
void readdress(std::span<std::byte> packet, const Flow& flow);

/// Keeps one outside port for each inside socket, whoever it talks to (RFC 4787 REQ-1); lets in what comes from an
/// address and port that the socket has written to; and what goes from inside to one of its own outside ports comes
/// back inside with an outside source (REQ-9).
class UdpNat {
public:
    static constexpr std::size_t kMappings = 256;
    static constexpr std::size_t kRemotes = 2048; ///< the latest of a mapping that are surely let in
    /// RFC 4787 REQ-5: not less than two minutes.
    static constexpr auto kLifetime = std::chrono::minutes{2};

    /// The inside networks do not reach each other by their own addresses.
    UdpNat(IpAddress outside, std::vector<IpPrefix> inside) : outside_(outside), inside_(std::move(inside)) {}
    /// What becomes of a datagram that arrives at the box; none when it is dropped.
    std::optional<Flow> translate(TimePoint now, const Flow& flow);

private:
    /// Whom the socket has written to lately. Two sets, the older one dropped when the newer is old or full.
    struct Mapping {
        Endpoint inside;
        TimePoint used; // by the inside socket. REQ-6
        TimePoint turned;
        std::unordered_set<Endpoint> newer, older;
    };
    Mapping* mapping_of(TimePoint now, const Endpoint& inside);
    Mapping* mapping_at(TimePoint now, std::uint16_t port);
    std::optional<Flow> enter(TimePoint now, const Flow& flow);
    std::optional<std::uint16_t> free_port(TimePoint now, std::uint16_t wanted);
    bool is_inside(const IpAddress& address) const;

    IpAddress outside_;
    std::vector<IpPrefix> inside_;
    std::unordered_map<Endpoint, std::uint16_t> ports_; // by inside socket
    std::unordered_map<std::uint16_t, Mapping> mappings_;
    std::uint16_t next_port_ = kFirstPort;
    static constexpr std::uint16_t kFirstPort = 20000;
};

} // namespace tailrace::fakes
