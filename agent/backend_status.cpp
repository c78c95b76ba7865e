// What the backend tells about itself.
#include "agent/backend.hpp"
#include "agent/path/path_report.hpp"
#include "agent/version.hpp"
#include "base/json/json.hpp"
#include "base/text.hpp"
#include "policy/rule_address.hpp"

#include <algorithm>

namespace tailrace {
namespace {

constexpr auto kActiveFor = std::chrono::minutes{2};
constexpr auto kControlMayBeAway = std::chrono::seconds{10};

} // namespace

std::vector<std::string> Backend::health() {
    std::vector<std::string> out;
    if (!config_trouble_.empty()) out.push_back("The configuration is not in force: " + config_trouble_);
    if (!login_trouble_.empty()) out.push_back("You are logged out. The last login error was: " + login_trouble_);
    if (prefs_.want_running && !control_trouble_.empty() && !in_map_poll_ &&
        reactor_.now() - control_lost_ > kControlMayBeAway)
        out.push_back(
            fmt::format("The coordination server {} does not answer ({}); the network map in force stays in force.",
                        prefs_.control_url, control_trouble_));
    if (paths_)
        for (const std::string& trouble : paths_->relays().troubles()) out.push_back(trouble);
    if (!engine_trouble_.empty()) out.push_back("The data plane is not as it should be: " + engine_trouble_);
    if (!store_trouble_.empty()) out.push_back("The state cannot be saved: " + store_trouble_);
    for (const auto& [what, trouble] : watch_troubles_) out.push_back(fmt::format("{}: {}", what, trouble));
    for (const std::string& warning : engine_.warnings()) out.push_back(warning);
    if (!netmap_.display_messages().empty()) {
        for (const auto& [id, message] : netmap_.display_messages())
            out.push_back(message.title.empty() ? message.text : message.title + ": " + message.text);
    } else {
        for (const std::string& message : netmap_.health()) out.push_back(message);
    }
    add_route_health(out);
    if (dns_.in_force())
        for (std::string& trouble : dns_.troubles()) out.push_back(std::move(trouble));
    if (state_ == BackendState::Running) {
        if (!prefs_.route_all) {
            bool offered = std::ranges::any_of(netmap_.peers(), [](const auto& entry) {
                return std::ranges::any_of(entry.second.primary_routes,
                                           [](const IpPrefix& p) { return !p.is_default(); });
            });
            if (offered) out.push_back("Some peers are advertising routes but --accept-routes is false");
        }
    }
    return out;
}

PeerStatus Backend::peer_status(const wire::Node& node, bool is_self) {
    PeerStatus out;
    out.id = node.stable_id;
    out.node_id = node.id;
    out.public_key = node.key.text();
    out.host_name = node.hostinfo.value.hostname;
    out.dns_name = node.name;
    out.os = node.hostinfo.value.os;
    out.user_id = node.user;
    out.alt_sharer_user_id = node.sharer;
    out.tailscale_ips.emplace();
    for (const IpPrefix& prefix : node.addresses) out.tailscale_ips->push_back(prefix.address());
    out.allowed_ips = node.routes_to();
    out.tags = node.tags;
    out.primary_routes = node.primary_routes;
    int region = is_self && paths_ ? paths_->home() : node.home_region(); // control tells us of ours late
    const auto& regions = netmap_.derp_map().regions;
    if (regions && regions->contains(region) && regions->at(region)) out.relay = regions->at(region)->region_code;
    out.created = node.created;
    if (node.last_seen) out.last_seen = *node.last_seen;
    out.online = node.online.value_or(false);
    out.in_network_map = true;
    out.expired = node.expired;
    if (!node.key_expiry.is_zero()) out.key_expiry = node.key_expiry;
    out.cap_map = node.cap_map;
    if (node.hostinfo.value.location) out.location = RawJson{json::write(*node.hostinfo.value.location)};
    out.exit_node_option = std::ranges::any_of(node.routes_to(), [](const IpPrefix& p) { return p.is_default(); });
    for (const wire::Service& service : node.hostinfo.value.services) {
        bool v4 = service.proto == "peerapi4", v6 = service.proto == "peerapi6";
        if (!v4 && !v6) continue;
        for (const IpPrefix& prefix : node.addresses) {
            if (prefix.address().is_v4() != v4) continue;
            if (!out.peer_api_url) out.peer_api_url.emplace();
            out.peer_api_url->push_back(v4 ? fmt::format("http://{}:{}", prefix.address().text(), service.port)
                                           : fmt::format("http://[{}]:{}", prefix.address().text(), service.port));
            break;
        }
    }
    if (is_self) {
        out.online = in_map_poll_;
        out.addrs.emplace();
        for (const Endpoint& endpoint : endpoints_) out.addrs->push_back(endpoint.text());
        return out;
    }
    out.exit_node = !prefs_.exit_node_id.empty() && prefs_.exit_node_id == node.stable_id;
    out.in_magic_sock = !node.disco_key.is_zero();
    for (const WireGuardPeerState& peer : wireguard_.peers) {
        if (peer.public_key != node.key.raw()) continue;
        out.in_engine = true;
        out.rx_bytes = peer.rx_bytes;
        out.tx_bytes = peer.tx_bytes;
        if (peer.last_handshake) out.last_handshake = *peer.last_handshake;
        if (peer.endpoint && !(paths_ && paths_->is_relayed(*peer.endpoint))) out.cur_addr = peer.endpoint->text();
    }
    if (auto wrote = last_write_.find(node.key); wrote != last_write_.end()) {
        Duration ago = reactor_.now() - wrote->second;
        out.active = ago < kActiveFor;
        out.last_write = WallTime::now().plus(-ago);
    }
    if (!out.active) out.cur_addr.clear();
    if (out.active && out.cur_addr.empty() && paths_)
        if (auto via = paths_->peer_relay(node.key).route) out.peer_relay = via->text();
    return out;
}

Status Backend::status(bool with_peers) {
    Status out;
    out.version = kVersion;
    out.backend_state = text(state_);
    out.have_node_key = prefs_.config && prefs_.config->has_node_key();
    out.auth_url = auth_url_;
    out.health = health();
    if (engine_up_)
        if (auto now = engine_.read()) take_device_state(std::move(*now));
    if (!netmap_.has_self()) {
        PeerStatus self;
        self.host_name = report().hostinfo.hostname;
        self.os = "linux";
        self.public_key = NodeKey{}.text();
        out.self = self;
        return out;
    }
    out.self = peer_status(netmap_.self(), true);
    out.tailscale_ips = out.self->tailscale_ips;
    out.magic_dns_suffix = netmap_.magic_dns_suffix();
    if (const auto& records = netmap_.dns().extra_records; !records.empty())
        out.extra_records = RawJson{json::write(records)};
    out.current_tailnet = TailnetStatus{netmap_.domain(), netmap_.magic_dns_suffix(), netmap_.dns().proxied};
    if (!with_peers) return out;
    out.peer.emplace();
    for (const auto& [id, node] : netmap_.peers()) (*out.peer)[node.key.text()] = peer_status(node, false);
    for (const auto& [key, peer] : *out.peer)
        if (peer.exit_node) {
            out.exit_node_status.emplace();
            out.exit_node_status->id = peer.id;
            out.exit_node_status->online = peer.online;
            for (const IpAddress& address : *peer.tailscale_ips)
                out.exit_node_status->tailscale_ips.push_back(IpPrefix::single(address));
        }
    if (out.peer->empty()) out.peer.reset();
    out.user.emplace();
    for (const auto& [id, user] : netmap_.users())
        (*out.user)[id] = {user.id, user.login_name, user.display_name, user.profile_pic_url};
    return out;
}

std::string Backend::paths_json(const std::optional<NodeKey>& only) {
    std::string out = "{\"Peers\":[";
    bool first = true;
    TimePoint now = reactor_.now();
    for (const auto& [id, node] : netmap_.peers()) {
        if (only && node.key != *only) continue;
        PathBook::State path;
        std::vector<PathBook::CandidateState> candidates;
        if (paths_) {
            path = paths_->book().state(now, node.key);
            candidates = paths_->book().candidates(now, node.key);
        }
        if (!first) out += ',';
        first = false;
        PeerRelays::State via;
        if (paths_) via = paths_->peer_relay(node.key);
        out += write_peer_paths(now, node.name, node.key, path, candidates, via);
    }
    return out + "]}";
}

std::string Backend::peer_relay_sessions_json() {
    const PeerRelayServer* server = paths_ ? paths_->peer_relay_server() : nullptr;
    std::string out = "{\"UDPPort\":";
    if (!server) return out + "null,\"Sessions\":[]}";
    auto client = [this](const RelaySessions::State::Client& one) {
        auto peer = paths_->book().node_of(one.disco);
        auto node = std::ranges::find_if(netmap_.peers(), [&](const auto& known) { return known.second.key == peer; });
        return fmt::format("{{\"Endpoint\":{},\"Name\":{},\"ShortDisco\":{},\"PacketsTx\":{},\"BytesTx\":{}}}",
                           json::write(one.at ? one.at->client.text() : std::string{}),
                           json::write(node == netmap_.peers().end() ? std::string{} : node->second.name),
                           json::write(one.disco.short_text()), one.packets, one.bytes);
    };
    out += fmt::format("{},\"Sessions\":[", server->port4() != 0 ? server->port4() : server->port6());
    bool first = true;
    for (const RelaySessions::State& session : server->sessions()) {
        out += fmt::format("{}{{\"VNI\":{},\"Client1\":{},\"Client2\":{}}}", first ? "" : ",", session.vni,
                           client(session.clients[0]), client(session.clients[1]));
        first = false;
    }
    return out + "]}";
}

Task<Result<std::string>> Backend::netcheck() {
    if (!paths_) co_return Error::make("the tunnel is not up: run \"tailrace up\" first");
    auto alive = alive_;
    NetReport report = co_await paths_->measure();
    if (!*alive) co_return Error::make("tailraced is stopping");
    co_return write_net_report(report, WallTime::now());
}

Result<std::string> Backend::whois(std::string_view asked) const {
    std::string_view address_text = asked;
    auto endpoint = Endpoint::parse(asked);
    auto address = IpAddress::parse(address_text);
    const wire::Node* node = nullptr;
    if (asked.starts_with("nodekey:")) {
        auto key = NodeKey::parse(asked);
        if (!key) return key.error();
        node = netmap_.has_self() && netmap_.self().key == *key ? &netmap_.self() : netmap_.find(*key);
    } else if (address && address->valid()) {
        node = netmap_.has_self() ? netmap_.owner_of(*address) : nullptr;
    } else if (endpoint && endpoint->valid()) {
        address = endpoint->address;
        node = netmap_.has_self() ? netmap_.owner_of(*address) : nullptr;
    } else {
        return Error::make("invalid 'addr' parameter: want an address, or an address with a port");
    }
    if (node == nullptr) {
        std::string shown = endpoint && endpoint->valid() ? endpoint->text() : fmt::format("{}:0", asked);
        return Error::from_errno(404, "no match for {}", shown);
    }
    CapabilityMap caps;
    if (netmap_.has_self())
        for (const wire::FilterRule& rule : netmap_.filter_rules()) {
            for (const wire::CapGrant& grant : rule.cap_grant) {
                for (const IpPrefix& source : node->addresses) {
                    bool matches = std::ranges::any_of(
                        rule.src_ips, [&](const std::string& s) { return names_address(s, source.address()); });
                    bool for_us = std::ranges::any_of(grant.dsts, [&](const std::string& d) {
                        return std::ranges::any_of(netmap_.self().addresses, [&](const IpPrefix& own) {
                            return own.address().is_v4() == source.address().is_v4() && names_address(d, own.address());
                        });
                    });
                    if (!matches || !for_us) continue;
                    for (const std::string& name : grant.caps) caps[name];
                    for (const auto& [name, values] : grant.cap_map)
                        for (const RawJson& value : values)
                            if (std::ranges::find(caps[name], value) == caps[name].end()) caps[name].push_back(value);
                    for (const auto& [name, values] : grant.cap_map) caps[name];
                }
            }
        }
    std::string out = "{\"Node\":" + wire::write_node(*node) + ",\"UserProfile\":";
    const wire::UserProfile* user = netmap_.user(node->user);
    out += user != nullptr ? wire::write_user_profile(*user) : "null";
    return out + ",\"CapMap\":" + json::write(caps) + "}";
}

} // namespace tailrace
