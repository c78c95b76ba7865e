#include "agent/path/relay_servers.hpp"

#include "policy/rule_address.hpp"

#include <algorithm>

namespace tailrace {
namespace {

constexpr int kFirstRelayCapVersion = 121; // knows relay messages
const std::string kRelayTarget = "tailscale.com/cap/relay-target";

bool grants_use(const wire::CapGrant& grant) {
    return grant.cap_map.contains(kRelayTarget) || std::ranges::find(grant.caps, kRelayTarget) != grant.caps.end();
}

} // namespace

RelayServers find_relay_servers(const Netmap& netmap) {
    RelayServers out;
    if (!netmap.has_self()) return out;
    const wire::Node& self = netmap.self();
    out.enabled = !self.has_cap("disable-relay-client") && !self.has_cap("only-tcp-443");
    if (!out.enabled) return out;
    std::vector<std::vector<std::string>> sources; // of what lets us use them
    for (wire::FilterRule& rule : netmap.filter_rules()) {
        bool for_us = std::ranges::any_of(rule.cap_grant, [&](const wire::CapGrant& grant) {
            return grants_use(grant) && std::ranges::any_of(grant.dsts, [&](const std::string& target) {
                       return std::ranges::any_of(
                           self.addresses, [&](const IpPrefix& own) { return names_address(target, own.address()); });
                   });
        });
        if (for_us) sources.push_back(std::move(rule.src_ips));
    }
    for (const auto& [id, node] : netmap.peers()) {
        if (node.cap < kFirstRelayCapVersion || node.disco_key.is_zero() || node.is_wireguard_only || node.expired)
            continue;
        out.capable.insert(node.key);
        if (node.unsigned_peer_api_only || node.home_region() == 0) continue;
        bool lets_us = std::ranges::any_of(sources, [&, &node = node](const std::vector<std::string>& named) {
            return std::ranges::any_of(named, [&](const std::string& source) {
                return std::ranges::any_of(
                    node.addresses, [&](const IpPrefix& address) { return names_address(source, address.address()); });
            });
        });
        if (lets_us) out.servers.push_back(node.key);
    }
    return out;
}

} // namespace tailrace
