// What the backend has to do with names.
#include "agent/backend.hpp"
#include "base/json/json.hpp"
#include "base/text.hpp"
#include "netlink/route_lookup.hpp"
#include "netlink/router.hpp"

#include <algorithm>

namespace tailrace {
namespace {

constexpr auto kPeerPatience = std::chrono::seconds{5}; // Source: dns.md 6

/// ".example.com" is what is below it, "example.com" only itself.
bool is_filtered(const std::vector<std::string>& filtered, const std::string& name) {
    return std::ranges::any_of(filtered, [&](const std::string& entry) {
        std::string plain = to_lower(entry);
        if (!plain.empty() && plain.back() == '.') plain.pop_back();
        return plain.starts_with('.') ? name.size() > plain.size() && name.ends_with(plain) : name == plain;
    });
}

std::string texts_json(const std::vector<DnsUpstream>& upstreams) {
    std::string out = "[";
    for (const DnsUpstream& upstream : upstreams) {
        out += out.size() > 1 ? ",{\"Addr\":" : "{\"Addr\":";
        json::append_string(out, upstream.text());
        out += "}";
    }
    return out + "]";
}

} // namespace

ResolvConf resolv_conf_of(const BackendOptions& options) {
    return ResolvConf{options.resolv_conf, options.state_dir + "/resolv.conf.before"};
}

DnsResolver::Names Backend::dns_names() const {
    DnsResolver::Names out;
    out.service = service_addresses();
    if (!netmap_.has_self()) return out;
    auto add = [&](const wire::Node& node) {
        DnsNode named{node.name, {}, node.has_cap("dns-subdomain-resolve")};
        for (const IpPrefix& prefix : node.addresses) named.addresses.push_back(prefix.address());
        out.nodes.push_back(std::move(named));
    };
    add(netmap_.self());
    for (const auto& [id, peer] : netmap_.peers()) add(peer);
    out.ipv6_beside_ipv4 = netmap_.self().has_cap("magicdns-aaaa");
    return out;
}

void Backend::update_dns() {
    const wire::Node* exit_node = nullptr;
    WallTime now = WallTime::now();
    for (const auto& [id, peer] : netmap_.peers())
        if (!prefs_.exit_node_id.empty() && peer.stable_id == prefs_.exit_node_id && netmap_.peer_usable(peer, now))
            exit_node = &peer;
    auto ipv6 = probe_ipv6(options_.engine.device);
    std::vector<IpAddress> listen_at; // what the device has of them
    for (const IpAddress& service : service_addresses())
        if ((service.is_v4() || (ipv6 && ipv6->available)) &&
            std::ranges::any_of(netmap_.self().addresses,
                                [&](const IpPrefix& own) { return own.address().is_v6() == service.is_v6(); }))
            listen_at.push_back(service);
    EffectiveDns dns = effective_dns(netmap_.dns(), netmap_.self(), prefs_, exit_node, uses_exit_node(prefs_));
    dns.outside = reached_outside(prefs_);
    if (prefs_.corp_dns && dns_.would_leak(dns.outside)) dns.install = true;
    dns_.set(std::move(dns), listen_at);
}

std::vector<IpPrefix> Backend::reached_outside(const Prefs& prefs) {
    if (!is_closed(prefs) || !prefs.exit_node_allow_lan_access) return {};
    auto networks = host_networks();
    if (!networks) return {};
    std::erase_if(*networks, [](const HostNetwork& network) { return network.loopback; });
    return kept_out_of_tunnel(prefs, *networks);
}

/// Programs of this host ask from its own addresses, and so do its containers and virtual machines from behind its
/// bridges. The network that leads to the internet is somebody else's, also where it is a bridge.
bool Backend::is_ours_to_ask(const IpAddress& from) {
    const auto& service = service_addresses();
    if (from.is_loopback() || std::ranges::find(service, from) != service.end()) return true;
    auto links = engine_.links();
    if (!links) return false;
    auto lookup = RouteLookup::open();
    auto out = lookup ? lookup->find(*IpAddress::parse("192.0.2.1"), Engine::kMark) : lookup.error();
    for (const Link& link : *links)
        for (const InterfaceAddress& address : link.addresses) {
            if (address.prefix.address() == from) return true;
            const bool inside = link.kind == "bridge" || link.kind == "veth";
            if (inside && address.prefix.contains(from) && out && link.index != out->device_index) return true;
        }
    return false;
}

Task<Result<Bytes>> Backend::ask_names_for_peer(Bytes query) {
    if (auto question = parse_dns_query(query);
        question && is_filtered(netmap_.dns().exit_node_filtered_set, plain_dns_name(question->name))) {
        DnsReply refused;
        refused.result = DnsResult::Refused;
        refused.authoritative = false;
        co_return write_dns_reply(query, refused);
    }
    std::vector<DnsUpstream> resolvers = dns_.host_resolvers();
    if (resolvers.empty()) resolvers = dns_.effective().defaults;
    auto alive = alive_;
    auto answer = co_await ask_in_turn(reactor_, std::move(resolvers), std::move(query), kPeerPatience);
    if (*alive && answer && prefs_.app_connector.advertise && connector_.observe(*answer)) follow_connector();
    co_return answer;
}

std::string Backend::dns_config_json() const {
    return json::write(netmap_.dns());
}

std::string Backend::dns_os_config_json() const {
    OsDns os = dns_.os();
    std::vector<std::string> servers;
    for (const IpAddress& server : os.servers) servers.push_back(server.text());
    return "{\"Nameservers\":" + json::write(servers) + ",\"SearchDomains\":" + json::write(os.search) +
           ",\"MatchDomains\":[]}";
}

Task<Result<std::string>> Backend::dns_query_json(std::string name, std::string type) {
    auto number = parse_dns_type(type.empty() ? "A" : type);
    if (!number) co_return number.error();
    auto query = make_dns_query(name, *number, 1);
    if (!query) co_return query.error();
    auto upstreams = dns_.in_force() ? dns_.upstreams_for(name) : std::vector<DnsUpstream>{};
    auto answer = co_await dns_.answer(*query, DnsTransport::Tcp);
    if (!answer) co_return answer.error();
    std::string out = "{\"Bytes\":";
    json::append_string(out, base64_encode(*answer));
    co_return out + ",\"Resolvers\":" + texts_json(upstreams) + "}";
}

} // namespace tailrace
