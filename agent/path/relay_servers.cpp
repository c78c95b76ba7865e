#include "agent/path/relay_servers.hpp"

#include "policy/rule_address.hpp"

#include <algorithm>

namespace tailrace {
namespace {

constexpr int kFirstRelayCapVersion = 121;                         // knows relay messages
const std::string kRelayTarget = "tailscale.com/cap/relay-target"; // of a server, for its clients
const std::string kRelay = "tailscale.com/cap/relay";              // of a client, for the server

/// Whom the policy gives a capability at this node.
class Holders {
public:
    Holders(const Netmap& netmap, const std::string& capability) {
        for (wire::FilterRule& rule : netmap.filter_rules()) {
            bool here = std::ranges::any_of(rule.cap_grant, [&](const wire::CapGrant& grant) {
                return gives(grant, capability) && std::ranges::any_of(grant.dsts, [&](const std::string& target) {
                           return std::ranges::any_of(netmap.self().addresses, [&](const IpPrefix& own) {
                               return names_address(target, own.address());
                           });
                       });
            });
            if (here) sources_.push_back(std::move(rule.src_ips));
        }
    }
    bool contains(const wire::Node& node) const {
        if (node.unsigned_peer_api_only) return false;
        return std::ranges::any_of(sources_, [&](const std::vector<std::string>& named) {
            return std::ranges::any_of(named, [&](const std::string& source) {
                return std::ranges::any_of(
                    node.addresses, [&](const IpPrefix& address) { return names_address(source, address.address()); });
            });
        });
    }

private:
    static bool gives(const wire::CapGrant& grant, const std::string& capability) {
        return grant.cap_map.contains(capability) || std::ranges::find(grant.caps, capability) != grant.caps.end();
    }
    std::vector<std::vector<std::string>> sources_;
};

bool knows_relays(const wire::Node& node) {
    return node.cap >= kFirstRelayCapVersion && !node.disco_key.is_zero() && !node.is_wireguard_only && !node.expired;
}

} // namespace

RelayServers find_relay_servers(const Netmap& netmap) {
    RelayServers out;
    if (!netmap.has_self()) return out;
    out.enabled = !netmap.self().has_cap("disable-relay-client") && !netmap.self().has_cap("only-tcp-443");
    if (!out.enabled) return out;
    Holders servers{netmap, kRelayTarget};
    for (const auto& [id, node] : netmap.peers()) {
        if (!knows_relays(node)) continue;
        out.capable.insert(node.key);
        if (node.home_region() != 0 && servers.contains(node)) out.servers.push_back(node.key);
    }
    return out;
}

std::set<NodeKey> find_relay_clients(const Netmap& netmap) {
    std::set<NodeKey> out;
    if (!netmap.has_self() || netmap.self().has_cap("disable-relay-server") || netmap.self().has_cap("only-tcp-443"))
        return out;
    Holders clients{netmap, kRelay};
    for (const auto& [id, node] : netmap.peers())
        if (knows_relays(node) && clients.contains(node)) out.insert(node.key);
    return out;
}

} // namespace tailrace
