#include "control/map/wire_json.hpp"

#include "base/json/json.hpp"
#include "proto/control/map.hpp"

namespace tailrace {

namespace {

wire::CapMap cap_map_of(const CapabilityValues& values) {
    wire::CapMap out;
    for (const auto& [name, arguments] : values) {
        auto& raw = out[name];
        for (const std::string& argument : arguments) raw.push_back(RawJson{argument});
    }
    return out;
}

wire::Node common(const Node& node, const std::string& fqdn, const NodeView& view, const WallTime& now) {
    const NodeRecord& record = node.record;
    const NodeReport& report = node.report;
    wire::Node out;
    out.id = record.id;
    out.stable_id = std::to_string(record.id);
    out.name = fqdn;
    out.user = record.is_tagged() ? kTaggedDevicesUser : record.user;
    out.key = record.node_key;
    out.key_expiry = record.key_expiry;
    out.machine = record.machine_key;
    out.disco_key = report.disco_key;
    for (const IpAddress& address : view.addresses) out.addresses.push_back(IpPrefix::single(address));
    out.allowed_ips = out.addresses;
    out.allowed_ips->insert(out.allowed_ips->end(), view.routes.begin(), view.routes.end());
    out.primary_routes = view.primary_routes;
    out.endpoints = report.endpoints;
    out.home_derp = report.home_derp;
    out.legacy_derp = wire::legacy_derp_text(report.home_derp);
    out.created = record.created;
    out.cap = report.cap_version;
    out.tags = record.tags;
    out.online = report.online;
    if (!report.online) out.last_seen = report.last_seen;
    out.machine_authorized = record.authorized && !record.expired(now);
    out.expired = record.expired(now);
    out.cap_map = cap_map_of(view.capabilities);
    return out;
}

} // namespace

std::string NodeView::text() const {
    std::string out;
    for (const IpAddress& address : addresses) out += address.text() + ' ';
    out += "via ";
    for (const IpPrefix& route : routes) out += route.text() + ' ';
    out += "primary ";
    for (const IpPrefix& route : primary_routes) out += route.text() + ' ';
    for (const auto& [name, values] : capabilities) {
        out += "cap " + name + ' ';
        for (const std::string& value : values) out += value + ' ';
    }
    return out;
}

std::string peer_json(const Node& node, const std::string& fqdn, const NodeView& view, const WallTime& now) {
    wire::Node out = common(node, fqdn, view, now);
    wire::Hostinfo& shown = out.hostinfo.value;
    if (auto all = wire::parse_hostinfo(node.report.hostinfo)) {
        shown.os = std::move(all->os);
        shown.hostname = std::move(all->hostname);
        shown.services = std::move(all->services);
        shown.ssh_host_keys = std::move(all->ssh_host_keys);
        shown.location = std::move(all->location);
        shown.app_connector = all->app_connector;
        shown.peer_relay = all->peer_relay;
        shown.sharee_node = all->sharee_node;
        shown.wire_ingress = all->wire_ingress;
        shown.ingress_enabled = all->ingress_enabled;
    } else {
        shown.hostname = node.record.hostname;
    }
    return wire::write_node(out);
}

std::string self_json(const Node& node, const std::string& fqdn, const NodeView& view, const WallTime& now) {
    wire::Node out = common(node, fqdn, view, now);
    out.hostinfo.text = node.report.hostinfo;
    out.cap_map["https://tailscale.com/cap/ssh"];
    out.cap_map["https://tailscale.com/cap/file-sharing"];
    out.cap_map.try_emplace("default-auto-update", std::vector<RawJson>{RawJson{"false"}});
    return wire::write_node(out);
}

std::string filter_json(const std::vector<FilterRule>& rules) {
    std::vector<wire::FilterRule> out;
    for (const FilterRule& rule : rules) {
        wire::FilterRule& wired = out.emplace_back();
        wired.src_ips = rule.src_ips;
        for (const FilterDestination& destination : rule.dst_ports)
            wired.dst_ports.push_back({destination.ip, {}, {destination.ports.first, destination.ports.last}});
        wired.ip_proto = rule.ip_proto;
        for (const CapGrant& grant : rule.cap_grant) {
            wire::CapGrant& wired_grant = wired.cap_grant.emplace_back();
            wired_grant.dsts = grant.dsts;
            wired_grant.caps = grant.caps;
            for (const auto& [name, values] : grant.cap_map) {
                auto& raw = wired_grant.cap_map[name];
                if (values)
                    for (const std::string& value : *values) raw.push_back(RawJson{value});
            }
        }
    }
    return json::write(out);
}

std::string lines_json(const std::vector<RuleLines>& lines) {
    std::vector<wire::RuleLines> out;
    for (const RuleLines& rule : lines) {
        wire::RuleLines& wired = out.emplace_back();
        for (const LineSpan& span : rule) wired.push_back({span.line, span.destinations});
        if (!wired.empty()) wired.back().count = 0; // all that are left
    }
    return json::write(out);
}

wire::DnsConfig dns_config(const std::string& base_domain, const DnsSettings& settings) {
    wire::DnsConfig config;
    config.resolvers = settings.nameservers;
    config.routes = settings.split;
    config.extra_records = settings.extra_records;
    if (settings.magic_dns && !base_domain.empty()) {
        config.proxied = true;
        config.domains = {base_domain};
        config.routes[base_domain];
        for (int second = 64; second < 128; ++second) config.routes[fmt::format("{}.100.in-addr.arpa", second)];
        config.routes["0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa"];
    }
    config.domains.insert(config.domains.end(), settings.search_domains.begin(), settings.search_domains.end());
    return config;
}

void take_routes(NodeRecord& into, const NodeRecord& from) {
    into.approved_routes = from.approved_routes;
    into.policy_routes = from.policy_routes;
    into.revoked_routes = from.revoked_routes;
    into.primary_routes = from.primary_routes;
    into.router_since = from.router_since;
    into.hosting = from.hosting;
}

NodeChange difference(const Node& before, const Node& after) {
    NodeRecord a = before.record;
    const NodeRecord& b = after.record;
    NodeChange change = NodeChange::None;
    if (a.node_key != b.node_key) change = change | NodeChange::Key | NodeChange::DiscoKey | NodeChange::Endpoints;
    if (a.key_expiry != b.key_expiry) {
        // Peers may have been told that it had expired, and no patch takes that back.
        const bool is_renewed = !a.key_expiry.is_zero() && (b.key_expiry.is_zero() || a.key_expiry < b.key_expiry);
        if (is_renewed) return NodeChange::Full;
        change = change | NodeChange::KeyExpiry;
    }
    a.node_key = b.node_key;
    a.key_expiry = b.key_expiry;
    a.auth_key = b.auth_key; // nobody sees it
    a.ephemeral = b.ephemeral;
    a.name_is_fixed = b.name_is_fixed;
    take_routes(a, b); // who may use them is the policy's to say: it says so when it is compiled
    if (a != b || before.report.hostinfo != after.report.hostinfo) {
        // The Hostinfo that peers see is a part of it, without NetInfo, which changes most, and the routes.
        auto old_info = wire::parse_hostinfo(before.report.hostinfo);
        auto new_info = wire::parse_hostinfo(after.report.hostinfo);
        for (auto* info : {&old_info, &new_info})
            if (*info) {
                (*info)->net_info.reset();
                (*info)->routable_ips.clear(); // the offer is between the node and us
                (*info)->services_hash.clear();
            }
        if (a != b || !old_info || !new_info || !(*old_info == *new_info)) return NodeChange::Full;
    }
    if (before.report.endpoints != after.report.endpoints) change = change | NodeChange::Endpoints;
    if (before.report.home_derp != after.report.home_derp) change = change | NodeChange::HomeDerp;
    if (before.report.disco_key != after.report.disco_key) change = change | NodeChange::DiscoKey;
    if (before.report.online != after.report.online) change = change | NodeChange::Online;
    if (before.report.cap_version != after.report.cap_version) change = change | NodeChange::Cap;
    return change;
}

std::string patch_json(const Node& node, NodeChange change) {
    wire::PeerChange patch;
    patch.node_id = node.id();
    if (has(change, NodeChange::Endpoints)) patch.endpoints = node.report.endpoints;
    if (has(change, NodeChange::HomeDerp)) patch.derp_region = node.report.home_derp;
    if (has(change, NodeChange::Cap)) patch.cap = node.report.cap_version;
    if (has(change, NodeChange::Key)) patch.key = node.record.node_key;
    if (has(change, NodeChange::KeyExpiry)) patch.key_expiry = node.record.key_expiry;
    if (has(change, NodeChange::DiscoKey)) patch.disco_key = node.report.disco_key;
    // A client drops a new disco key of a node that is offline, unless it was seen lately (control-protocol.md 5.4).
    if (has(change, NodeChange::Online) || has(change, NodeChange::DiscoKey)) {
        patch.online = node.report.online;
        if (!node.report.online) patch.last_seen = node.report.last_seen;
    }
    return wire::write_peer_change(patch);
}

} // namespace tailrace
