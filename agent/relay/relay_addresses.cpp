#include "agent/relay/relay_addresses.hpp"

namespace tailrace {
namespace {

constexpr std::uint32_t kFirst = 0x7f400000, kMask = 0x003fffff; // 127.64.0.0/10

IpAddress wish_of(const NodeKey& peer) {
    std::uint32_t mixed = 0;
    for (std::byte part : peer.raw()) mixed = mixed * 16777619u ^ static_cast<std::uint32_t>(part);
    return IpAddress::v4(kFirst | ((mixed ^ mixed >> 10) & kMask));
}

} // namespace

IpPrefix RelayAddresses::range() {
    return {IpAddress::v4(kFirst), 10};
}

bool RelayAddresses::adopt(const NodeKey& peer, const IpAddress& address) {
    if (!range().contains(address) || peers_.contains(address) || addresses_.contains(peer)) return false;
    addresses_[peer] = address;
    peers_[address] = peer;
    return true;
}

const IpAddress& RelayAddresses::of(const NodeKey& peer) {
    if (auto known = addresses_.find(peer); known != addresses_.end()) return known->second;
    IpAddress address = wish_of(peer);
    while (peers_.contains(address)) address = IpAddress::v4(kFirst | ((address.v4_value() + 1) & kMask));
    peers_[address] = peer;
    return addresses_[peer] = address;
}

std::optional<NodeKey> RelayAddresses::peer_at(const IpAddress& address) const {
    auto found = peers_.find(address);
    if (found == peers_.end()) return std::nullopt;
    return found->second;
}

void RelayAddresses::keep_only(const std::set<NodeKey>& peers) {
    std::erase_if(addresses_, [&](const auto& entry) { return !peers.contains(entry.first); });
    std::erase_if(peers_, [&](const auto& entry) { return !peers.contains(entry.second); });
}

} // namespace tailrace
