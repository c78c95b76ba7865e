#include "agent/engine/wanted.hpp"
#include "agent/services/hosted_services.hpp"

#include <algorithm>
#include <map>
#include <set>

namespace tailrace {
namespace {

constexpr std::size_t kMostSingleRoutes = 10000;   // more are joined to the whole range
constexpr std::size_t kMostAcceptedRoutes = 20000; // of all peers together; what a kernel takes in about a second

const IpPrefix kServiceV4 = *IpPrefix::parse("100.100.100.100/32");
const IpPrefix kServiceV6 = *IpPrefix::parse("fd7a:115c:a1e0::53/128");

bool is_service(const IpPrefix& prefix) {
    return prefix == kServiceV4 || prefix == kServiceV6;
}

bool is_self_address(const wire::Node& peer, const IpPrefix& prefix) {
    if (prefix.is_single() && is_tailscale_address(prefix.address())) return true;
    return std::ranges::find(peer.addresses, prefix) != peer.addresses.end();
}

bool is_exit_node(const wire::Node& peer, const Prefs& prefs) {
    if (!prefs.exit_node_id.empty()) return peer.stable_id == prefs.exit_node_id;
    if (prefs.exit_node_ip.empty()) return false;
    auto address = IpAddress::parse(prefs.exit_node_ip);
    return address && std::ranges::any_of(peer.addresses, [&](const IpPrefix& p) { return p.address() == *address; });
}

IpPrefix default_route(bool v6) {
    return v6 ? IpPrefix{IpAddress::v6({}), 0} : IpPrefix{IpAddress::v4(0), 0};
}

IpAddress before(const IpAddress& address) {
    Bytes bytes = to_bytes(address.bytes());
    for (std::size_t i = bytes.size(); i-- > 0;) {
        bytes[i] = static_cast<std::byte>(static_cast<unsigned>(bytes[i]) - 1);
        if (bytes[i] != std::byte{0xff}) break;
    }
    return IpAddress::from_bytes(bytes);
}

template <typename T>
void sort_unique(std::vector<T>& list) {
    std::ranges::sort(list);
    list.erase(std::unique(list.begin(), list.end()), list.end());
}

ForwardingConfig forwarding_of(const wire::Node& self, const Prefs& prefs, bool accepts_routes) {
    ForwardingConfig out;
    out.mode = static_cast<ForwardingMode>(std::clamp(prefs.netfilter_mode, 0, 2));
    out.routes = !prefs.routes().empty();
    out.masquerade = out.routes && !prefs.no_snat;
    out.stateful = prefs.no_stateful_filtering == false;
    out.keep_marks = out.mode == ForwardingMode::On && (uses_exit_node(prefs) || accepts_routes);
    out.answer_as_asked = out.keep_marks && !uses_exit_node(prefs) && attached_by(prefs) == AttachedBy::Host;
    out.drop_spoofed = !self.has_cap("disable-linux-cgnat-drop-rule");
    return out;
}

/// The via routes that we offer, for the peers that have both families. As with every other route, who may use them is
/// a matter of the filter: Headscale does not tell a router which of its routes are approved.
ViaTable via_of(const Prefs& prefs, const Wanted& wanted) {
    ViaTable out;
    for (const IpPrefix& route : prefs.routes())
        if (from_via(route)) out.nets.push_back(route);
    if (out.nets.empty()) return out;
    auto first_of = [](const auto& addresses, bool v6) {
        auto found = std::ranges::find_if(addresses, [v6](const IpAddress& one) { return one.is_v6() == v6; });
        return found == addresses.end() ? IpAddress{} : *found;
    };
    std::vector<IpAddress> own;
    for (const IpPrefix& address : wanted.addresses) own.push_back(address.address());
    out.own4 = first_of(own, false);
    out.own6 = first_of(own, true);
    for (const WantedPeer& peer : wanted.peers)
        if (IpAddress v4 = first_of(peer.addresses, false); v4.valid())
            for (const IpAddress& address : peer.addresses)
                if (address.is_v6()) out.peers.emplace(address, v4);
    return out;
}

} // namespace

const std::vector<IpAddress>& service_addresses() {
    static const std::vector<IpAddress> addresses = {kServiceV4.address(), kServiceV6.address()};
    return addresses;
}

bool uses_exit_node(const Prefs& prefs) {
    return !prefs.exit_node_id.empty() || !prefs.exit_node_ip.empty() || !prefs.auto_exit_node.empty();
}

AttachedBy attached_by(const Prefs& prefs) {
    const bool direct = uses_exit_node(prefs) ? prefs.exit_node_allow_lan_access : !prefs.routes_over_lan;
    return direct ? AttachedBy::Host : AttachedBy::Tunnel;
}

std::vector<std::string> route_warnings(const std::vector<AcceptedRoute>& routes, const Prefs& prefs,
                                        const std::vector<HostNetwork>& host_networks) {
    return accepted_route_warnings(routes, host_networks, attached_by(prefs),
                                   uses_exit_node(prefs) ? "--exit-node-allow-lan-access" : "--routes-over-lan=false");
}

std::vector<IpPrefix> kept_out_of_tunnel(const Prefs& prefs, const std::vector<HostNetwork>& host_networks) {
    std::set<IpPrefix> out;
    for (const HostNetwork& network : host_networks) {
        if (network.prefix.is_single() || is_tailscale_address(network.prefix.address())) continue;
        if (network.loopback || prefs.exit_node_allow_lan_access) out.insert(network.prefix.masked());
    }
    return {out.begin(), out.end()};
}

std::vector<AcceptedRoute> acceptable_routes(const std::vector<const wire::Node*>& peers, Prefs prefs,
                                             const WallTime& now) {
    std::vector<AcceptedRoute> out;
    prefs.route_all = true;
    for (const wire::Node* peer : peers)
        for (const IpPrefix& prefix : eligible_routes(*peer, prefs, now))
            if (!prefix.is_default() && !is_self_address(*peer, prefix))
                out.push_back({prefix, peer->name.substr(0, peer->name.find('.'))});
    return out;
}

std::vector<IpPrefix> subtract(const std::vector<IpRange>& from, const std::vector<IpRange>& without) {
    std::vector<IpRange> left = from;
    for (const IpRange& hole : without) {
        std::vector<IpRange> next;
        for (const IpRange& range : left) {
            if (!range.overlaps(hole)) {
                next.push_back(range);
                continue;
            }
            if (range.first < hole.first) next.push_back({range.first, before(hole.first)});
            if (hole.last < range.last) next.push_back({hole.last.next(), range.last});
        }
        left = std::move(next);
    }
    std::ranges::sort(left);
    std::vector<IpRange> joined;
    for (const IpRange& range : left) {
        if (!joined.empty() && joined.back().first.bits() == range.first.bits() &&
            (range.first <= joined.back().last || joined.back().last.next() == range.first))
            joined.back().last = std::max(joined.back().last, range.last);
        else
            joined.push_back(range);
    }
    std::vector<IpPrefix> out;
    for (const IpRange& range : joined)
        for (const IpPrefix& prefix : range.prefixes()) out.push_back(prefix);
    return out;
}

std::vector<IpPrefix> eligible_routes(const wire::Node& peer, const Prefs& prefs, const WallTime& now) {
    std::vector<IpPrefix> out;
    if (peer.expired || (!peer.key_expiry.is_zero() && peer.key_expiry <= now)) return out;
    if (peer.disco_key.is_zero() && peer.home_region() == 0 && !peer.is_wireguard_only) return out;
    for (IpPrefix prefix : peer.routes_to()) {
        if (prefix.address().unmapped() != prefix.address())
            prefix = IpPrefix{prefix.address().unmapped(), std::max(0, prefix.bits() - 96)};
        if (!prefix.valid() || !prefix.is_masked() || is_service(prefix)) continue;
        if (is_self_address(peer, prefix) || (prefix.is_default() ? is_exit_node(peer, prefs) : prefs.route_all))
            out.push_back(prefix);
    }
    sort_unique(out);
    return out;
}

std::vector<IpPrefix> shrink_default_route(bool v6, const std::vector<HostNetwork>& host_networks) {
    std::vector<IpRange> attached, own, ranges;
    for (const HostNetwork& network : host_networks) {
        const IpAddress& address = network.prefix.address();
        if (address.is_v6() != v6 || is_tailscale_address(address)) continue;
        if (network.prefix.is_single()) continue;
        attached.push_back(IpRange::of(network.prefix));
        own.push_back({address, address});
    }
    for (const IpPrefix& prefix : subtract({IpRange::of(default_route(v6))}, attached))
        ranges.push_back(IpRange::of(prefix));
    ranges.insert(ranges.end(), own.begin(), own.end());
    std::vector<IpRange> never;
    for (const char* text : {"192.168.0.0/16", "172.16.0.0/12", "10.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4",
                             "100.64.0.0/10", "fe80::/10", "ff00::/8", "fd7a:115c:a1e0::/48"})
        never.push_back(IpRange::of(*IpPrefix::parse(text)));
    return subtract(ranges, never);
}

std::vector<IpPrefix> local_nets(const std::vector<IpPrefix>& own, const Prefs& prefs,
                                 const std::vector<HostNetwork>& host_networks) {
    std::vector<IpRange> out;
    for (const IpPrefix& address : own) out.push_back(IpRange::of(address));
    for (const IpPrefix& route : prefs.routes()) {
        if (!route.is_default()) {
            out.push_back(IpRange::of(route));
            continue;
        }
        for (const IpPrefix& part : shrink_default_route(route.address().is_v6(), host_networks))
            out.push_back(IpRange::of(part));
    }
    // Stand for the internet where somebody asks whether a peer may reach it (dns.md 6). The last one is what is asked
    // for of IPv6, where the reference client has no answer but no.
    if (prefs.app_connector.advertise)
        for (const char* text : {"0.0.0.0/32", "::/128", "2000::/128"})
            out.push_back(IpRange::of(*IpPrefix::parse(text)));
    // The reference client leaves loopback to the kernel, which lets it in where route_localnet is set. What is asked
    // of the service addresses is asked from here only, also where a route that we offer covers them.
    static const std::vector<IpRange> never = {IpRange::of(*IpPrefix::parse("127.0.0.0/8")),
                                               IpRange::of(*IpPrefix::parse("::1/128")), IpRange::of(kServiceV4),
                                               IpRange::of(kServiceV6)};
    return subtract(out, never);
}

Wanted compute_wanted(const wire::Node& self, const std::vector<const wire::Node*>& peers, const Prefs& prefs,
                      const std::vector<HostNetwork>& host_networks, const WallTime& now) {
    Wanted out;
    bool has_v4 = false, has_v6 = false;
    for (const IpPrefix& prefix : self.addresses) {
        IpPrefix address = IpPrefix::single(prefix.address().unmapped());
        out.addresses.push_back(address);
        (address.address().is_v4() ? has_v4 : has_v6) = true;
    }

    // Several peers may offer the same prefix; the lowest ID has it.
    std::vector<const wire::Node*> ordered = peers;
    std::ranges::sort(ordered, {}, [](const wire::Node* node) { return node->id; });
    std::set<IpPrefix> taken;
    std::vector<IpPrefix> single_v4;
    bool single_v6 = false;
    std::set<IpPrefix> routes;
    std::size_t accepted = 0, left_out = 0;
    for (const wire::Node* peer : ordered) {
        WantedPeer wanted;
        for (const IpPrefix& prefix : eligible_routes(*peer, prefs, now)) {
            if (!taken.insert(prefix).second) continue;
            if (!prefix.is_default() && !is_self_address(*peer, prefix) && ++accepted > kMostAcceptedRoutes) {
                ++left_out;
                continue;
            }
            wanted.allowed_ips.push_back(prefix);
        }
        if (wanted.allowed_ips.empty() || peer->key.is_zero() || peer->key == self.key) continue;
        wanted.key = peer->key;
        if (!peer->is_wireguard_only) wanted.disco = peer->disco_key;
        wanted.home_region = peer->is_wireguard_only ? 0 : peer->home_region();
        wanted.endpoints = peer->endpoints;
        wanted.jailed = peer->is_jailed;
        wanted.wireguard_only = peer->is_wireguard_only;
        const std::string& version = peer->hostinfo.value.ipn_version; // not known: be careful
        wanted.follows = version.empty() || version.ends_with("-tailrace") || peer->is_wireguard_only;
        for (const IpPrefix& prefix : peer->addresses) wanted.addresses.push_back(prefix.address());
        for (const IpPrefix& prefix : wanted.allowed_ips) {
            if (prefix.is_single() && prefix.address().is_v4() && cgnat_prefix().contains(prefix.address()))
                single_v4.push_back(prefix);
            else if (prefix.is_single() && tailscale_ula_prefix().contains(prefix.address()))
                single_v6 = true;
            else
                routes.insert(prefix);
        }
        out.peers.push_back(std::move(wanted));
    }
    // On Linux only where control says so (linux-router.md 4); "one-cgnat?v=false" is what we do anyway.
    if (single_v4.size() > (self.has_cap("one-cgnat?v=true") ? std::size_t{1} : kMostSingleRoutes))
        routes.insert(cgnat_prefix());
    else
        routes.insert(single_v4.begin(), single_v4.end());
    if (single_v6) routes.insert(tailscale_ula_prefix());
    if (uses_exit_node(prefs)) { // also without anybody to carry it: rather nowhere than past the tunnel
        routes.insert(default_route(false));
        routes.insert(default_route(true));
        out.router.throw_routes = kept_out_of_tunnel(prefs, host_networks);
        out.router.closed = true;
        for (const HostNetwork& network : host_networks) {
            const IpAddress& address = network.prefix.address();
            if (network.prefix.is_single() || is_tailscale_address(address) || address.is_link_local()) continue;
            if (!network.loopback && !prefs.exit_node_allow_lan_access)
                routes.insert(network.prefix.masked()); // the LAN too goes into the tunnel, lest it leak
        }
    }
    if (has_v4) routes.insert(kServiceV4);
    if (has_v6) routes.insert(kServiceV6);
    if (has_v4) out.router.quiet_addresses.push_back(kServiceV4);
    if (has_v6) out.router.quiet_addresses.push_back(kServiceV6);
    HostedServices services = hosted_services(self, prefs);
    std::vector<IpPrefix> asked_here = out.addresses;
    for (const IpAddress& address : services.addresses) {
        if (address.is_v4() ? !has_v4 : !has_v6) continue;
        const IpPrefix prefix = IpPrefix::single(address);
        routes.insert(prefix);
        out.router.quiet_addresses.push_back(prefix);
        asked_here.push_back(prefix);
    }
    std::erase_if(routes, [&](const IpPrefix& route) { return route.address().is_v4() ? !has_v4 : !has_v6; });
    if (left_out > 0)
        out.notes.push_back(
            fmt::format("Of the routes that other nodes have for us only {} are in force, {} are too many.",
                        kMostAcceptedRoutes, left_out));
    if (prefs.route_all) {
        const std::vector<AcceptedRoute> all = acceptable_routes(peers, prefs, now);
        for (std::string& warning : route_warnings(all, prefs, host_networks)) out.notes.push_back(std::move(warning));
        if (attached_by(prefs) == AttachedBy::Host) {
            AttachedFirst attached = keep_attached(all, host_networks);
            for (const IpPrefix& route : attached.left_out) routes.erase(route);
            auto& kept_out = out.router.throw_routes;
            kept_out.insert(kept_out.end(), attached.kept_out.begin(), attached.kept_out.end());
            sort_unique(kept_out);
        }
    }
    out.forwarding = forwarding_of(self, prefs, accepted > 0);
    out.router.addresses = out.addresses;
    out.router.routes.assign(routes.begin(), routes.end());
    out.local_nets = local_nets(asked_here, prefs, host_networks);
    std::ranges::move(services.notes, std::back_inserter(out.notes));
    out.via = via_of(prefs, out);
    return out;
}

FilterRule to_policy(const wire::FilterRule& rule) {
    FilterRule out;
    out.src_ips = rule.src_ips;
    out.has_src_bits = rule.src_bits && !rule.src_bits->empty();
    for (const wire::NetPortRange& destination : rule.dst_ports)
        out.dst_ports.push_back(
            {destination.ip, {destination.ports.first, destination.ports.last}, destination.bits.has_value()});
    out.ip_proto = rule.ip_proto;
    for (const wire::CapGrant& grant : rule.cap_grant) {
        CapGrant converted;
        converted.dsts = grant.dsts;
        converted.caps = grant.caps;
        for (const auto& [name, values] : grant.cap_map) {
            auto& list = converted.cap_map[name].emplace();
            for (const RawJson& value : values) list.push_back(value.text);
        }
        out.cap_grant.push_back(std::move(converted));
    }
    return out;
}

} // namespace tailrace
