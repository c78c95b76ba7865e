#include "agent/backend.hpp"
#include "agent/dataplane/steering.hpp"
#include "agent/services/hosted_services.hpp"
#include "agent/version.hpp"
#include "base/file.hpp"
#include "base/json/json.hpp"
#include "base/log.hpp"
#include "base/text.hpp"

#include <algorithm>
#include <cerrno>

namespace tailrace {
namespace {

constexpr auto kPatienceOfUp = std::chrono::seconds{5}; // before `up` is told that control does not answer

} // namespace

Backend::Backend(Reactor& reactor, BackendOptions options, StateFile state)
    : reactor_(reactor), options_(options), store_(std::move(state)), machine_info_(read_hostinfo()),
      engine_(reactor, options.engine), peer_api_(
                                            reactor, [this](const IpAddress& from) { return peer_api_caller(from); },
                                            [this](const IpAddress& from) { return may_ask_names(from); },
                                            [this](Bytes query) { return ask_names_for_peer(std::move(query)); }),
      dns_(
          reactor, resolv_conf_of(options_), [this] { return dns_names(); },
          [this](const IpAddress& from) { return is_ours_to_ask(from); }),
      flow_watch_(reactor, flow_surroundings()), engine_wake_(reactor), engine_went_down_(reactor) {}

Backend::~Backend() {
    *alive_ = false;
}

Result<std::unique_ptr<Backend>> Backend::create(Reactor& reactor, BackendOptions options) {
    if (auto made = make_directories(options.state_dir, 0700); !made) return made.error();
    std::string path = options.state_dir + "/tailraced.state";
    auto damaged = [&](const Error& error) -> Error {
        auto kept = keep_aside(path, WallTime::now());
        if (!kept)
            return error.with("the state file {} is damaged and cannot be kept aside ({})", path,
                              kept.error().message());
        return Error::make(
            "the state file {} is damaged ({}); it was kept as {}: put a backup in place, or start again and log "
            "in anew with \"tailrace up\"",
            path, error.message(), *kept);
    };
    auto store = StateFile::open(path);
    if (!store) {
        if (store.error().code() != 0) return store.error().with("read the state"); // unreadable is not damaged
        return damaged(store.error());
    }
    std::unique_ptr<Backend> backend{new Backend(reactor, std::move(options), std::move(*store))};
    if (auto loaded = backend->load(); !loaded) {
        if (loaded.error().code() != 0) return loaded.error();
        return damaged(loaded.error());
    }
    return backend;
}

Result<void> Backend::load() {
    if (auto text = store_.get("_machinekey")) {
        auto key = MachinePrivateKey::parse(*text);
        if (!key || key->is_zero()) return Error::make("_machinekey is no key");
        machine_key_ = *key;
    } else {
        machine_key_ = MachinePrivateKey::generate();
        if (auto saved = store_.set("_machinekey", machine_key_.text_for_storing()); !saved) return saved.error();
    }
    lock_key_ = NlPrivateKey::generate();
    auto current = store_.get("_current-profile");
    if (!current || current->empty()) return {};
    if (!current->starts_with("profile-")) return Error::make("_current-profile names no profile");
    auto text = store_.get(*current);
    if (!text) return {};
    auto prefs = parse_prefs(*text);
    if (!prefs) return prefs.error().with("{}", *current);
    if (prefs->config) {
        if (auto key = NodePrivateKey::parse(prefs->config->private_node_key); !key)
            return key.error().with("{}: PrivateNodeKey", *current);
        auto lock = NlPrivateKey::parse(prefs->config->network_lock_key);
        if (!lock) return lock.error().with("{}: NetworkLockKey", *current);
        if (!lock->is_zero()) lock_key_ = *lock;
    }
    prefs_ = *prefs;
    profile_id_ = current->substr(8);
    load_connector();
    return {};
}

Result<void> Backend::save_prefs(const Prefs& prefs) {
    if (profile_id_.empty()) return {}; // kept once there is somebody to keep it for
    return store_.set("profile-" + profile_id_, write_prefs(prefs));
}

void Backend::start() {
    spawn(reactor_, "engine", run_engine());
    spawn(reactor_, "network monitor", run_monitor());
    spawn(reactor_, "nftables watch", run_nft_watch());
    spawn(reactor_, "device poll", run_poll());
    if (auto closed = close_past_tunnel(prefs_); !closed)
        log::error("traffic for the exit node may leave past it", {{"error", closed.error()}});
    refresh_endpoints();
    way_out_ = way_out();
    peers_know_us_ = prefs_.config && prefs_.config->has_node_key();
    if (prefs_.want_running && prefs_.config && prefs_.config->has_node_key() && !prefs_.logged_out) {
        load_netmap();
        connect(ControlClient::Login::Restore, "");
    }
    update_state();
    wake_engine();
}

Task<void> Backend::announce_restart() {
    const bool carries = !prefs_.routes().empty() || !prefs_.services().empty();
    if (control_ && carries) co_await control_->announce_restart();
}

std::string Backend::on_services_wanted() {
    return wire::write_vip_services(offered_services(prefs_));
}

void Backend::stop() {
    if (control_) control_->stop();
    control_.reset();
}

std::string Backend::netmap_path() const {
    return options_.state_dir + "/profile-data/" + profile_id_ + "/netmap-cache";
}

void Backend::load_netmap() {
    auto text = read_file(netmap_path(), 256 << 20);
    if (!text) return;
    auto frame = wire::parse_map_response(*text);
    if (!frame) {
        log::warn("the cached netmap cannot be read; waiting for control", {{"error", frame.error()}});
        return;
    }
    auto applied = netmap_.apply(std::move(*frame), WallTime::now());
    if (!applied) log::warn("the cached netmap makes no sense; waiting for control", {{"error", applied.error()}});
    netmap_.begin_stream();
}

void Backend::save_netmap() {
    if (profile_id_.empty() || !netmap_.has_self()) return;
    std::string directory = options_.state_dir + "/profile-data/" + profile_id_;
    auto saved = make_directories(directory, 0700);
    if (saved) saved = write_file_atomically(netmap_path(), netmap_json(), 0600);
    if (!saved)
        log::warn("the netmap was not cached: a restart without control would come up empty",
                  {{"error", saved.error()}});
}

std::string Backend::netmap_json() const {
    wire::MapResponse whole;
    if (!netmap_.has_self()) return "{}";
    whole.node = netmap_.self();
    whole.peers.emplace();
    for (const auto& [id, peer] : netmap_.peers()) whole.peers->push_back(peer);
    whole.derp_map = netmap_.derp_map();
    whole.dns_config = netmap_.dns();
    whole.domain = netmap_.domain();
    if (netmap_.has_filter()) {
        whole.packet_filters.emplace();
        (*whole.packet_filters)["base"] = netmap_.filter_rules();
        if (!netmap_.policy_lines().empty()) whole.policy_lines = netmap_.policy_lines();
    }
    for (const auto& [id, user] : netmap_.users()) whole.user_profiles.push_back(user);
    whole.ssh_policy = netmap_.ssh_policy();
    return wire::write_map_response(whole);
}

Result<ControlClient::Settings> Backend::control_settings() const {
    auto url = Url::parse(prefs_.control_url);
    if (!url) return url.error();
    ControlClient::Settings settings;
    settings.server = *url;
    settings.machine = machine_key_;
    settings.lock_key = lock_key_;
    settings.mark = Engine::kMark;
    if (prefs_.config) {
        if (auto key = NodePrivateKey::parse(prefs_.config->private_node_key)) settings.node_key = *key;
        if (auto key = NodePrivateKey::parse(prefs_.config->old_private_node_key)) settings.old_node_key = *key;
    }
    return settings;
}

void Backend::connect(ControlClient::Login how, std::string auth_key) {
    auto settings = control_settings();
    if (!settings) {
        login_trouble_ = settings.error().message();
        publish_error(fmt::format("--login-server {}: {}", prefs_.control_url, settings.error().message()));
        return;
    }
    login_trouble_.clear();
    control_trouble_.clear();
    control_lost_ = reactor_.now();
    in_map_poll_ = false;
    netmap_.begin_stream();
    if (control_) control_->stop();
    control_ = std::make_unique<ControlClient>(reactor_, std::move(*settings), *this, report());
    control_->login(how, std::move(auth_key));
}

SelfReport Backend::report() {
    SelfReport report;
    report.hostinfo = hostinfo_for(machine_info_, prefs_);
    if (peer_api_.port4() != 0) report.hostinfo.services.push_back({"peerapi4", peer_api_.port4(), ""});
    if (peer_api_.port6() != 0) report.hostinfo.services.push_back({"peerapi6", peer_api_.port6(), ""});
    const bool answers_names = prefs_.advertises_exit_node() || prefs_.app_connector.advertise;
    if (answers_names && !report.hostinfo.services.empty())
        report.hostinfo.services.push_back({"peerapi-dns-proxy", 1, ""}); // the version of what it speaks
    wire::NetInfo net;
    net.os_has_ipv6 = true;
    net.firewall_mode = "nft-forced";
    if (paths_) {
        const NetReport& measured = paths_->report();
        net.working_udp = measured.udp;
        net.working_ipv6 = measured.ipv6;
        net.os_has_ipv6 = measured.os_has_ipv6;
        net.working_icmpv4 = measured.icmp_v4;
        net.mapping_varies_by_dest_ip = measured.mapping_varies_by_destination;
        net.have_port_map = paths_->has_port_mapping();
        net.upnp = measured.mapping.upnp;
        net.pmp = measured.mapping.pmp;
        net.pcp = measured.mapping.pcp;
        net.preferred_derp = paths_->home();
        std::map<std::string, double> latency;
        for (const auto& [region, time] : measured.region_v4_latency)
            latency[fmt::format("{}-v4", region)] = std::chrono::duration<double>(time).count();
        for (const auto& [region, time] : measured.region_v6_latency)
            latency[fmt::format("{}-v6", region)] = std::chrono::duration<double>(time).count();
        net.derp_latency = std::move(latency);
        for (const OwnEndpoint& own : paths_->own_endpoints()) {
            report.endpoints.push_back(own.endpoint);
            report.endpoint_types.push_back(own.type);
        }
    } else {
        net.working_udp = true;
        report.endpoints = endpoints_;
        report.endpoint_types.assign(endpoints_.size(), static_cast<int>(wire::EndpointType::Local));
    }
    report.hostinfo.net_info = net;
    report.disco_key = disco_key_.public_key();
    return report;
}

void Backend::update_report() {
    if (control_) control_->report(report());
}

void Backend::refresh_endpoints() {
    auto links = engine_.links();
    if (!note_watch("list interfaces", links ? Result<void>{} : links.error())) return;
    auto found = own_endpoints(*links, options_.engine.device, options_.engine.port);
    if (paths_) {
        std::vector<IpPrefix> attached;
        for (const Link& link : *links)
            if (link.name != options_.engine.device && !link.loopback)
                for (const InterfaceAddress& address : link.addresses) attached.push_back(address.prefix.masked());
        paths_->book().set_local_networks(std::move(attached));
    }
    if (host_networks_in(*links) != attached_) wake_engine(); // routes are made with them in mind
    if (found == endpoints_) return;
    // An address that comes beside the others, as of a bridge for containers, leaves working paths alone.
    const bool any_gone = std::ranges::any_of(
        endpoints_, [&](const Endpoint& one) { return std::ranges::find(found, one) == found.end(); });
    endpoints_ = std::move(found);
    if (paths_) {
        paths_->set_local_endpoints(endpoints_);
        if (any_gone)
            paths_->on_network_change();
        else
            paths_->on_new_addresses();
        (void)engine_.steer(paths_->disco()); // the engine, woken below, does it again and says what is wrong
    }
    on_network_change_soon(); // if packets leave from another address now
    if (engine_up_) engine_.keep_guard();
    update_report();
    wake_engine();
}

Result<std::vector<HostNetwork>> Backend::host_networks() {
    auto links = engine_.links();
    if (!links) return links.error();
    return host_networks_in(*links);
}

std::vector<HostNetwork> Backend::host_networks_in(const std::vector<Link>& links) const {
    std::vector<HostNetwork> out;
    for (const Link& link : links)
        for (const InterfaceAddress& address : link.addresses)
            if (link.name != options_.engine.device)
                out.push_back({address.prefix, link.loopback, link.name, link.up && link.running});
    return out;
}

EngineConfig Backend::engine_config(const std::vector<HostNetwork>& networks) {
    EngineConfig config;
    if (auto key = NodePrivateKey::parse(prefs_.config->private_node_key)) config.node_key = *key;
    WallTime now = WallTime::now();
    std::vector<const wire::Node*> peers;
    for (const auto& [id, peer] : netmap_.peers())
        if (netmap_.peer_usable(peer, now)) peers.push_back(&peer);
    config.wanted = compute_wanted(netmap_.self(), peers, prefs_, networks, now.plus(netmap_.clock_skew()));
    if (netmap_.has_filter())
        for (const wire::FilterRule& rule : netmap_.filter_rules()) config.filter.rules.push_back(to_policy(rule));
    for (const IpPrefix& address : config.wanted.addresses) config.filter.own_addresses.push_back(address.address());
    config.filter.local_nets = config.wanted.local_nets;
    config.filter.never_sources = service_addresses();
    config.filter.shields_up = prefs_.shields_up;
    config.filter.peer_api4 = peer_api_.port4();
    config.filter.peer_api6 = peer_api_.port6();
    for (const wire::Node* peer : peers) {
        PeerFacts facts;
        for (const IpPrefix& prefix : peer->addresses) facts.addresses.push_back(prefix.address());
        facts.allowed_ips = eligible_routes(*peer, prefs_, now);
        for (const auto& [name, values] : peer->cap_map) facts.caps.push_back(name);
        facts.jailed = peer->is_jailed;
        facts.unsigned_peer_api_only = peer->unsigned_peer_api_only;
        config.filter.peers.push_back(std::move(facts));
    }
    std::string fingerprint = json::write(netmap_.filter_rules()) + (prefs_.shields_up ? "shields" : "");
    fingerprint += fmt::format("peerapi {} {} ", peer_api_.port4(), peer_api_.port6());
    for (const IpPrefix& net : config.wanted.local_nets) fingerprint += net.text() + " ";
    for (const PeerFacts& facts : config.filter.peers) {
        fingerprint += facts.jailed ? "J" : "p";
        for (const IpAddress& address : facts.addresses) fingerprint += as_chars(address.bytes());
        for (const IpPrefix& prefix : facts.allowed_ips) fingerprint += prefix.text() + ",";
        for (const std::string& cap : facts.caps) fingerprint += cap + ";";
    }
    std::array<std::byte, 32> digest{};
    crypto_generichash(reinterpret_cast<unsigned char*>(digest.data()), digest.size(), as_uchars(as_bytes(fingerprint)),
                       fingerprint.size(), nullptr, 0);
    if (digest != last_filter_) {
        ++filter_version_;
        last_filter_ = digest;
    }
    config.filter_version = filter_version_;
    return config;
}

Task<void> Backend::run_engine() {
    auto alive = alive_;
    enum class Doing { Nothing, Down, Up };
    Doing doing = Doing::Nothing, failed_before = Doing::Nothing;
    Backoff backoff;
    bool was_closed = false;
    for (;;) {
        co_await engine_wake_.wait();
        if (!*alive) co_return;
        if (std::exchange(was_closed, is_closed(prefs_)) != is_closed(prefs_)) engine_down_ = false;
        bool has_key = prefs_.config && prefs_.config->has_node_key() && !prefs_.logged_out;
        Result<void> outcome;
        doing = prefs_.want_running && has_key ? Doing::Up : Doing::Down;
        if (doing == Doing::Down) {
            if (is_closed(prefs_)) outcome = close_past_tunnel(prefs_);
            if (!engine_down_) {
                std::optional<std::vector<IpPrefix>> closed_but_for;
                auto networks = host_networks();
                if (is_closed(prefs_))
                    closed_but_for = kept_out_of_tunnel(prefs_, networks ? *networks : std::vector<HostNetwork>{});
                outcome = co_await engine_.down(std::move(closed_but_for));
                if (!*alive) co_return;
                if (outcome && is_closed(prefs_)) outcome = networks ? Result<void>{} : networks.error();
                engine_down_ = static_cast<bool>(outcome);
                peers_know_us_ = peers_know_us_ || engine_up_;
                engine_went_down_.notify();
                inner_ping_.reset();
                peer_api_.set_addresses({});
                (void)note_watch("put back the machine's resolvers", restore_dns());
                if (paths_) { // nobody finds us any more, so that nobody takes us for a router that still works
                    paths_->set_port_mapping({});
                    paths_->set_relay_servers({});
                    (void)paths_->set_peer_relaying({});
                    paths_->set_peers({});
                    paths_->set_derp_map({});
                    paths_->carry_out();
                }
            }
            engine_up_ = false;
        } else if (netmap_.has_self() && (netmap_.self().machine_authorized || !netmap_from_control_) &&
                   !netmap_.self_expired(WallTime::now())) {
            engine_down_ = false;
            ensure_paths();
            follow_exit_node();
            auto networks = host_networks();
            if (networks) attached_ = *networks;
            EngineConfig config = engine_config(networks ? *networks : std::vector<HostNetwork>{});
            if (paths_) {
                paths_->set_port_mapping(port_mapping_settings());
                paths_->set_identity(config.node_key);
                paths_->set_hard_nat_traversal(prefs_.hard_nat_traversal);
                paths_->set_only_tcp(netmap_.self().has_cap("only-tcp-443"));
                paths_->set_silent(netmap_.self().has_cap("silent-disco"));
                paths_->set_probing_lifetime(netmap_.self().has_cap("probe-udp-lifetime"));
                paths_->set_probing_sizes(options_.probe_path_mtu.value_or(netmap_.self().has_cap("peer-mtu-enable")));
                if (auto url = Url::parse(prefs_.control_url)) paths_->set_control_host(url->host);
                paths_->set_derp_map(netmap_.derp_map());
                std::vector<PathBook::Peer> peers;
                for (const WantedPeer& peer : config.wanted.peers)
                    peers.push_back({peer.key, peer.disco, peer.endpoints, peer.home_region, std::nullopt, peer.follows,
                                     peer.wireguard_only});
                paths_->set_relay_servers(find_relay_servers(netmap_));
                relay_for_peers();
                paths_->set_peers(std::move(peers));
            }
            // Not with networks of ours unknown: what is kept from exit node's users would be open to them.
            outcome = networks ? Result<void>{} : networks.error();
            if (outcome) outcome = co_await engine_.reconcile(std::move(config));
            if (!*alive) co_return;
            if (paths_) paths_->carry_out();
            if (outcome) {
                std::vector<IpAddress> own;
                for (const IpPrefix& prefix : netmap_.self().addresses) own.push_back(prefix.address());
                if (peer_api_.set_addresses(own)) {
                    update_report();
                    wake_engine(); // the filter lets peers come to these ports
                }
            }
            if (outcome && paths_ && !moves_adopted_) {
                std::map<Endpoint, std::uint16_t> ports;
                auto moved = engine_.moved_ports();
                if (moved)
                    for (const PortMove& move : *moved) ports[move.remote] = move.port;
                if (moved) paths_->adopt_punched(ports, found_paths());
                moves_adopted_ = static_cast<bool>(moved);
            }
            if (outcome) update_dns();
            if (outcome) ensure_inner_ping();
            engine_up_ = static_cast<bool>(outcome);
        } else {
            outcome = close_past_tunnel(prefs_);
            (void)note_watch("put back the machine's resolvers", restore_dns());
        }
        const bool complete = !engine_up_ || (engine_.is_complete() && paths_ && inner_ping_ && moves_adopted_);
        if (outcome) {
            engine_trouble_.clear();
            engine_trouble_told_.clear();
            if (complete) backoff.reset();
        } else {
            std::string trouble = outcome.error().message();
            if (trouble != engine_trouble_) log::error("the data plane is not as it should be", {{"error", trouble}});
            engine_trouble_ = trouble;
            const bool lasts = failed_before == doing; // whoever waits for `up` need not hear of what passes
            if (lasts && trouble != engine_trouble_told_) publish_error(trouble);
            if (lasts) engine_trouble_told_ = trouble;
        }
        failed_before = outcome ? Doing::Nothing : doing;
        if (!outcome || !complete) wake_engine_later(std::max<Duration>(backoff.next(), kLeastRetry));
        update_state();
    }
}

void Backend::wake_engine_later(Duration wait) {
    if (std::exchange(engine_retry_pending_, true)) return;
    auto later = [](std::shared_ptr<bool> alive, Backend* self, Duration how_long) -> Task<void> {
        co_await self->reactor_.sleep(how_long);
        if (!*alive) co_return;
        self->engine_retry_pending_ = false;
        self->wake_engine();
    };
    spawn(reactor_, "engine retry", later(alive_, this, wait));
}

void Backend::set_state(BackendState state) {
    if (state == state_) return;
    state_ = state;
    log::info("state", {{"now", text(state)}});
    publish(fmt::format("\"State\":{}", static_cast<int>(state)));
}

void Backend::update_state() {
    bool has_key = prefs_.config && prefs_.config->has_node_key() && !prefs_.logged_out;
    if (!has_key)
        set_state(BackendState::NeedsLogin);
    else if (!prefs_.want_running)
        set_state(BackendState::Stopped);
    else if (!login_trouble_.empty() && !engine_up_)
        set_state(BackendState::NeedsLogin);
    else if (!netmap_.has_self())
        set_state(auth_url_.empty() ? BackendState::Starting : BackendState::NeedsLogin);
    else if (netmap_.self_expired(WallTime::now()))
        set_state(BackendState::NeedsLogin);
    else if (netmap_from_control_ && !netmap_.self().machine_authorized)
        set_state(BackendState::NeedsMachineAuth);
    else
        set_state(engine_up_ && !login_pending_ ? BackendState::Running : BackendState::Starting);
}

void Backend::publish(const std::string& members) {
    std::string line = "{\"Version\":\"" + std::string{kVersion} + "\"";
    for (const char* name : {"ErrMessage", "LoginFinished", "State", "Prefs", "NetMap", "Engine", "BrowseToURL"})
        if (members.find("\"" + std::string{name} + "\":") == std::string::npos)
            line += ",\"" + std::string{name} + "\":null";
    line += (members.empty() ? "" : ",") + members + "}\n";
    for (const auto& watcher : watchers_) {
        if (watcher->lines.size() >= BusWatcher::kDepth) {
            watcher->fell_behind = true;
            watcher->lines = {"{\"Version\":\"" + std::string{kVersion} +
                              "\",\"ErrMessage\":\"IPN bus consumer fell behind; closing watch\"}\n"};
        } else if (!watcher->fell_behind) {
            watcher->lines.push_back(line);
        }
        watcher->wake.notify();
    }
    std::erase_if(watchers_, [](const auto& watcher) { return watcher->fell_behind || watcher.use_count() == 1; });
}

void Backend::publish_error(const std::string& text) {
    std::string member = "\"ErrMessage\":";
    json::append_string(member, text);
    publish(member);
}

std::shared_ptr<BusWatcher> Backend::watch(int mask) {
    auto watcher = std::make_shared<BusWatcher>(reactor_);
    std::string members;
    auto add = [&](const std::string& member) { members += (members.empty() ? "" : ",") + member; };
    if ((mask & 2) != 0) {
        add("\"SessionID\":\"" + hex_encode(random_array<8>()) + "\"");
        add(fmt::format("\"State\":{}", static_cast<int>(state_)));
        if (!auth_url_.empty()) {
            std::string url = "\"BrowseToURL\":";
            json::append_string(url, auth_url_);
            add(url);
        }
    }
    if ((mask & 4) != 0) add("\"Prefs\":" + write_prefs(prefs_.without_secrets()));
    if ((mask & 8) != 0 && netmap_.has_self()) add("\"SelfChange\":" + wire::write_node(netmap_.self()));
    auto others = std::exchange(watchers_, {watcher});
    if (!members.empty()) publish(members);
    watchers_.insert(others.begin(), others.end());
    return watcher;
}

void Backend::on_map_frame(wire::MapResponse frame) {
    auto changes = netmap_.apply(std::move(frame), WallTime::now());
    if (!changes) {
        log::warn("a map frame was not understood", {{"error", changes.error()}});
        if (control_) control_->reconnect();
        return;
    }
    if (changes->any()) {
        netmap_from_control_ = true;
        dns_.names_changed();
        save_netmap_soon();
        if (prefs_.config && netmap_.has_self() && prefs_.config->node_id != netmap_.self().stable_id) {
            prefs_.config->node_id = netmap_.self().stable_id;
            (void)save_prefs(prefs_); // saved again with the next change
        }
        if (changes->derp_map || changes->first_of_stream) update_report();
        if (changes->self) publish("\"SelfChange\":" + wire::write_node(netmap_.self()));
        if (changes->self) follow_connector();
        wake_engine();
    }
    update_state();
}

void Backend::save_netmap_soon() {
    if (std::exchange(netmap_save_pending_, true)) return;
    auto later = [](std::shared_ptr<bool> alive, Backend* self) -> Task<void> {
        co_await self->reactor_.sleep(std::chrono::milliseconds{500});
        if (!*alive) co_return;
        self->netmap_save_pending_ = false;
        self->save_netmap();
    };
    spawn(reactor_, "cache the netmap", later(alive_, this));
}

void Backend::on_connected(bool in_poll, const std::string& trouble) {
    if (paths_) paths_->set_control_connected(in_poll);
    if (in_poll) {
        in_map_poll_ = true;
        control_trouble_.clear();
        return;
    }
    if (in_map_poll_) {
        control_lost_ = reactor_.now();
        netmap_.begin_stream();
    }
    in_map_poll_ = false;
    control_trouble_ = trouble;
    if (!trouble.empty() && (login_pending_ || !netmap_.has_self()) && reactor_.now() - control_lost_ > kPatienceOfUp)
        publish_error(fmt::format(
            "can't log in at {}: {}; check --login-server and that the server runs (tailraced keeps trying)",
            prefs_.control_url, trouble));
}

} // namespace tailrace
