// agent/relay/relay_addresses.hpp - which loopback address stands for which peer while it is reached over a relay.
#pragma once
#include "base/net.hpp"
#include "proto/keys.hpp"

#include <optional>
#include <set>
#include <unordered_map>

namespace tailrace {

/// 127.64.0.0/10 has four million addresses, all of them local without any set-up. A peer's address follows from its
/// key, so an agent that starts over gives the same ones; where two keys want one address, the kernel's peers are asked
/// first (adopt()), then the next free one is taken. Pure.
class RelayAddresses {
public:
    static IpPrefix range();

    /// What an earlier agent gave this peer. False when the address is not of the range or somebody else's.
    bool adopt(const NodeKey& peer, const IpAddress& address);
    const IpAddress& of(const NodeKey& peer);
    std::optional<NodeKey> peer_at(const IpAddress& address) const;
    void keep_only(const std::set<NodeKey>& peers);

private:
    std::unordered_map<NodeKey, IpAddress> addresses_;
    std::unordered_map<IpAddress, NodeKey> peers_;
};

} // namespace tailrace
