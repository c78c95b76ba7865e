// What the backend has to do with routes: of ours, of others, and by an exit node.
#include "agent/backend.hpp"
#include "agent/doctor/ethtool.hpp"
#include "agent/router/ip_forwarding.hpp"
#include "agent/router/udp_gro.hpp"
#include "agent/router/via6.hpp"
#include "base/json/json.hpp"
#include "base/log.hpp"
#include "netlink/route_lookup.hpp"

#include <algorithm>

namespace tailrace {

namespace {

constexpr auto kAvoidFor =
    std::chrono::minutes{5}; // an exit node that did not answer, while control takes it for online

} // namespace

std::string Backend::check_ip_forwarding(std::vector<IpPrefix> routes) {
    ForwardingQuestion question;
    for (IpPrefix& route : routes)
        if (auto via = from_via(route)) route = via->prefix; // it is IPv4 that is forwarded
    question.routes = std::move(routes);
    auto links = engine_.links();
    if (!links) return links.error().message();
    for (const Link& link : *links) {
        if (link.name != "lo") question.interfaces.push_back(link.name);
        for (const InterfaceAddress& address : link.addresses) question.own.push_back(address.prefix.address());
    }
    return ip_forwarding_trouble(question, read_kernel_setting);
}

std::string Backend::check_udp_gro_forwarding() {
    auto lookup = RouteLookup::open();
    auto links = engine_.links();
    if (!lookup || !links) return "";
    auto out = lookup->find(*IpAddress::parse("192.0.2.1"), Engine::kMark); // documentation: nobody has a route there
    if (!out) return "";
    auto uplink = std::ranges::find(*links, out->device_index, &Link::index);
    if (uplink == links->end()) return "";
    return udp_gro_trouble(interface_features(options_.engine.device), uplink->name, interface_features(uplink->name));
}

std::vector<std::string> Backend::check_accept_routes(bool over_lan) {
    std::vector<const wire::Node*> peers;
    for (const auto& [id, peer] : netmap_.peers()) peers.push_back(&peer);
    auto networks = host_networks();
    if (!networks) return {networks.error().with("the networks of this machine are not known").message()};
    Prefs wanted = prefs_;
    wanted.routes_over_lan = over_lan;
    return route_warnings(acceptable_routes(peers, prefs_, WallTime::now()), wanted, *networks);
}

ExitNodeQuestion Backend::exit_node_question() const {
    ExitNodeQuestion question;
    WallTime now = WallTime::now();
    for (const auto& [id, peer] : netmap_.peers())
        if (netmap_.peer_usable(peer, now) && !avoided_exit_nodes_.contains(peer.stable_id))
            question.peers.push_back(&peer);
    question.relays = &netmap_.derp_map();
    if (paths_) {
        question.home_region = paths_->home();
        question.region_latency = paths_->report().region_latency;
    }
    question.previous = suggested_exit_node_;
    question.spread = static_cast<std::uint64_t>(netmap_.self().id);
    return question;
}

Result<std::string> Backend::suggest_exit_node_json() {
    if (!netmap_.has_self()) return Error::make("no network map, try again later");
    auto suggested = suggest_exit_node(exit_node_question());
    if (!suggested) return suggested.error();
    std::string id, name;
    if (*suggested != nullptr) {
        id = (*suggested)->stable_id;
        name = (*suggested)->name;
        suggested_exit_node_ = id;
    }
    std::string out = "{\"ID\":";
    json::append_string(out, id);
    out += ",\"Name\":";
    json::append_string(out, name);
    if (*suggested != nullptr && (*suggested)->hostinfo.value.location)
        out += ",\"Location\":" + json::write(*(*suggested)->hostinfo.value.location);
    return out + "}";
}

void Backend::look_at_exit_node(TimePoint now) {
    const wire::Node* chosen = nullptr;
    if (uses_exit_node(prefs_) && way_out_ != kNoWayOut) // else it is not the exit node that has gone
        for (const auto& [id, peer] : netmap_.peers())
            if (peer.stable_id == prefs_.exit_node_id) chosen = &peer;
    auto state = std::ranges::find_if(wireguard_.peers, [&](const WireGuardPeerState& peer) {
        return chosen != nullptr && NodeKey{peer.public_key} == chosen->key;
    });
    if (state == wireguard_.peers.end()) {
        exit_node_watch_.reset();
        exit_node_is_silent_ = false;
        return;
    }
    const bool silent = exit_node_watch_.look(now, chosen->key, state->tx_bytes, state->rx_bytes);
    if (std::exchange(exit_node_is_silent_, silent) == silent) return;
    if (!silent) {
        avoided_exit_nodes_.erase(chosen->stable_id);
        return;
    }
    log::warn("the exit node does not answer", {{"name", chosen->name}});
    if (prefs_.auto_exit_node.empty()) return;
    avoided_exit_nodes_[chosen->stable_id] = now + kAvoidFor;
    wake_engine(); // where there is another one, it is chosen
}

void Backend::follow_exit_node() {
    if (!uses_exit_node(prefs_) || !netmap_.has_self()) return;
    std::erase_if(avoided_exit_nodes_, [&](const auto& avoided) {
        const bool control_knows = std::ranges::any_of(netmap_.peers(), [&](const auto& entry) {
            return entry.second.stable_id == avoided.first && !entry.second.online.value_or(true);
        });
        return control_knows || reactor_.now() >= avoided.second; // and says when it is back
    });
    ExitNodeQuestion question = exit_node_question();
    question.previous = prefs_.exit_node_id;
    const int home = question.home_region;
    if (home == 0 && !prefs_.auto_exit_node.empty()) return; // nothing is measured yet
    auto resolved = resolve_exit_node(prefs_, question, exit_node_home_ == 0 ? home : exit_node_home_);
    exit_node_home_ = home;
    if (!resolved) return;
    log::info("the exit node is another one", {{"before", prefs_.exit_node_id}, {"now", resolved->exit_node_id}});
    if (auto saved = save_prefs(*resolved); !saved)
        log::warn("the exit node was not saved; a restart chooses again", {{"error", saved.error()}});
    prefs_ = *resolved;
    publish("\"Prefs\":" + write_prefs(prefs_.without_secrets()));
    update_report();
}

Result<void> Backend::close_past_tunnel(const Prefs& prefs) {
    if (!is_closed(prefs)) return {};
    auto networks = host_networks();
    if (!networks) return networks.error();
    return engine_.close(kept_out_of_tunnel(prefs, *networks));
}

void Backend::add_route_health(std::vector<std::string>& out) {
    constexpr const char* kCure =
        "nothing leaves to the internet until then; \"tailrace set --exit-node=\" stops using it";
    if (is_closed(prefs_)) {
        const wire::Node* chosen = nullptr;
        for (const auto& [id, peer] : netmap_.peers())
            if (peer.stable_id == prefs_.exit_node_id) chosen = &peer;
        if (!netmap_.has_self() || state_ != BackendState::Running)
            out.push_back(
                fmt::format("An exit node is chosen, and this node is not connected to the tailnet: {}.", kCure));
        else if (chosen == nullptr && !prefs_.auto_exit_node.empty())
            out.push_back(fmt::format("No exit node is there for --exit-node=auto:any to choose: {}.", kCure));
        else if (chosen == nullptr)
            out.push_back(fmt::format("The exit node {} is not in the tailnet, or the policy does not show it: {}.",
                                      prefs_.exit_node_ip.empty() ? prefs_.exit_node_id : prefs_.exit_node_ip, kCure));
        else if (!offers_exit_node(*chosen))
            out.push_back(fmt::format("{} is no exit node for us any more: {}.", chosen->name, kCure));
        else if (!chosen->online.value_or(true))
            out.push_back(fmt::format("The exit node {} is offline: {}.", chosen->name, kCure));
        else if (exit_node_is_silent_)
            out.push_back(fmt::format("The exit node {} does not answer: {}.", chosen->name, kCure));
    }
    if (prefs_.app_connector.advertise && !connector_trouble_.empty())
        out.push_back(
            fmt::format("What the policy says in nodeAttrs of app connectors is not understood, so that what was "
                        "said before stays in force: {}. Correct it there.",
                        connector_trouble_));
    if (prefs_.app_connector.advertise && connector_.is_full())
        out.push_back(
            "The app connector has learned as many names or addresses as it holds: no route is made of more. Fewer or "
            "narrower domains in the policy's nodeAttrs make room.");
    std::vector<IpPrefix> routes = prefs_.routes();
    if (prefs_.app_connector.advertise && routes.empty()) // whatever names will lead to
        routes = {IpPrefix{IpAddress::v4(0), 0}, IpPrefix{IpAddress::v6({}), 0}};
    if (state_ != BackendState::Running || routes.empty()) return;
    if (std::string trouble = check_ip_forwarding(std::move(routes)); !trouble.empty()) out.push_back(trouble);
    if (prefs_.advertises_exit_node() && prefs_.no_snat)
        out.push_back("An exit node is advertised with --snat-subnet-routes=false: replies from the internet will "
                      "not come back.");
    if (prefs_.no_stateful_filtering == false)
        if (auto links = engine_.links();
            links && std::ranges::any_of(*links, [](const Link& link) { return link.name == "docker0"; }))
            out.push_back(
                "Stateful filtering is on and Docker is here: containers can not be reached from the tailnet by "
                "routes. \"tailrace set --stateful-filtering=false\" lets them.");
}

} // namespace tailrace
