// Decides what has to change. Pure.
#include "netlink/wireguard.hpp"

#include <sodium.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

namespace tailrace {
namespace {

/// As X25519 uses it, and as every implementation gives it back.
Secret<32> clamped(const Secret<32>& key) {
    Secret<32> result = key;
    auto bytes = result.mutable_view();
    bytes[0] &= std::byte{248};
    bytes[31] = (bytes[31] & std::byte{127}) | std::byte{64};
    return result;
}

WireGuardKey public_key_of(const Secret<32>& key) {
    WireGuardKey result{};
    (void)crypto_scalarmult_curve25519_base(reinterpret_cast<unsigned char*>(result.data()), key.data()); // never fails
    return result;
}

struct WantedPeer {
    const WireGuardPeer* peer;
    std::vector<IpPrefix> allowed_ips;
};

/// Each peer once, without ourselves, each allowed IP with the first that names it.
std::vector<WantedPeer> canonical(const WireGuardConfig& wanted) {
    std::set<WireGuardKey> seen;
    if (!wanted.private_key.is_zero()) seen.insert(public_key_of(wanted.private_key));
    std::set<IpPrefix> taken;
    std::vector<WantedPeer> peers;
    peers.reserve(wanted.peers.size());
    for (const auto& peer : wanted.peers) {
        if (!seen.insert(peer.public_key).second) continue;
        WantedPeer canonical{&peer, {}};
        for (const auto& prefix : peer.allowed_ips)
            if (taken.insert(prefix.masked()).second) canonical.allowed_ips.push_back(prefix.masked());
        std::sort(canonical.allowed_ips.begin(), canonical.allowed_ips.end());
        peers.push_back(std::move(canonical));
    }
    return peers;
}

std::vector<IpPrefix> sorted(std::vector<IpPrefix> prefixes) {
    for (auto& prefix : prefixes) prefix = prefix.masked();
    std::sort(prefixes.begin(), prefixes.end());
    return prefixes;
}

/// What is in `all` and not in `without`; both sorted.
std::vector<IpPrefix> difference(const std::vector<IpPrefix>& all, const std::vector<IpPrefix>& without) {
    std::vector<IpPrefix> left;
    std::set_difference(all.begin(), all.end(), without.begin(), without.end(), std::back_inserter(left));
    return left;
}

} // namespace

bool WireGuardChanges::empty() const {
    return !private_key && !listen_port && !fwmark && peers.empty() && orphaned_allowed_ips.empty();
}

WireGuardChanges diff(const WireGuardState& current, const WireGuardConfig& wanted) {
    WireGuardChanges changes;
    if (!wanted.private_key.is_zero() && !(clamped(wanted.private_key) == clamped(current.private_key)))
        changes.private_key = clamped(wanted.private_key);
    if (wanted.listen_port != 0 && wanted.listen_port != current.listen_port) changes.listen_port = wanted.listen_port;
    if (wanted.fwmark != current.fwmark) changes.fwmark = wanted.fwmark;

    std::map<WireGuardKey, const WireGuardPeerState*> there;
    for (const auto& peer : current.peers) there.emplace(peer.public_key, &peer);

    std::set<IpPrefix> moved;        // a peer that takes an allowed IP takes it away from whoever had it
    std::vector<IpPrefix> taken_off; // no longer wanted where they are, though the peer stays
    for (const auto& [peer, allowed_ips] : canonical(wanted)) {
        WireGuardPeerChange change;
        change.public_key = peer->public_key;
        auto found = there.find(peer->public_key);
        if (found == there.end()) {
            change.kind = WireGuardPeerChange::Kind::Add;
            change.endpoint = peer->endpoint;
            change.keepalive_seconds = peer->keepalive_seconds;
            change.add_allowed_ips = allowed_ips;
            moved.insert(allowed_ips.begin(), allowed_ips.end());
            changes.peers.push_back(std::move(change));
            continue;
        }
        const WireGuardPeerState& now = *found->second;
        there.erase(found);
        const auto has = sorted(now.allowed_ips);
        if (peer->endpoint && peer->endpoint != now.endpoint) change.endpoint = peer->endpoint;
        if (peer->keepalive_seconds != now.keepalive_seconds) change.keepalive_seconds = peer->keepalive_seconds;
        change.clear_preshared_key = now.has_preshared_key;
        change.add_allowed_ips = difference(allowed_ips, has);
        moved.insert(change.add_allowed_ips.begin(), change.add_allowed_ips.end());
        auto extra = difference(has, allowed_ips);
        taken_off.insert(taken_off.end(), extra.begin(), extra.end());
        if (change.endpoint || change.keepalive_seconds || change.clear_preshared_key ||
            !change.add_allowed_ips.empty())
            changes.peers.push_back(std::move(change));
    }
    // Last, so that what they had has moved to its new peer before: there is no moment without an owner.
    for (const auto& [key, peer] : there)
        changes.peers.push_back({.kind = WireGuardPeerChange::Kind::Remove, .public_key = key});

    for (const auto& prefix : taken_off)
        if (!moved.contains(prefix)) changes.orphaned_allowed_ips.push_back(prefix);
    return changes;
}

} // namespace tailrace
