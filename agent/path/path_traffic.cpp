#include "agent/path/path_traffic.hpp"

namespace tailrace {

void PathTraffic::take(const WireGuardState& device, const std::function<bool(const Endpoint&)>& is_relayed,
                       const std::function<std::optional<Endpoint>(const WireGuardKey&)>& carrier_of) {
    std::map<WireGuardKey, Bytes> now;
    for (const WireGuardPeerState& peer : device.peers) {
        Bytes count{peer.rx_bytes, peer.tx_bytes};
        now[peer.public_key] = count;
        if (!begun_ || !peer.endpoint) continue;
        Bytes before = known_[peer.public_key]; // a peer that is new begins at zero
        if (count.received < before.received || count.sent < before.sent) before = {}; // and so does one made anew
        Kind kind = peer.endpoint->address.is_v4() ? DirectV4 : DirectV6;
        if (is_relayed(*peer.endpoint)) {
            auto carrier = carrier_of(peer.public_key);
            kind = !carrier ? Relay : carrier->address.is_v4() ? PeerRelayV4 : PeerRelayV6;
        }
        sums_[kind].received += count.received - before.received;
        sums_[kind].sent += count.sent - before.sent;
    }
    known_ = std::move(now);
    begun_ = true;
}

} // namespace tailrace
