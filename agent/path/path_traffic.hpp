// agent/path/path_traffic.hpp - how many bytes went by which kind of path.
#pragma once
#include "base/net.hpp"
#include "netlink/wireguard.hpp"

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>

namespace tailrace {

/// Pure. WireGuard counts bytes by peer; what a peer moved between two looks is put down to the path that it has at the
/// second one. Of packets by path nobody knows: the kernel does not count them.
class PathTraffic {
public:
    enum Kind : std::uint8_t { DirectV4, DirectV6, Relay, PeerRelayV4, PeerRelayV6, Kinds };
    struct Bytes {
        std::uint64_t received = 0, sent = 0;
    };

    /// What an adopted device moved before the first look counts for nothing.
    /// `carrier_of` says what carries for a peer that is relayed: a server of its tailnet (PeerRelays); none where DERP
    /// does.
    void take(const WireGuardState& device, const std::function<bool(const Endpoint&)>& is_relayed,
              const std::function<std::optional<Endpoint>(const WireGuardKey&)>& carrier_of);
    const Bytes& of(Kind kind) const { return sums_[kind]; }

private:
    std::array<Bytes, Kinds> sums_{};
    std::map<WireGuardKey, Bytes> known_;
    bool begun_ = false;
};

} // namespace tailrace
