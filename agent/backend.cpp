#include "agent/backend.hpp"
#include "agent/dataplane/steering.hpp"
#include "agent/version.hpp"
#include "base/file.hpp"
#include "base/json/json.hpp"
#include "base/log.hpp"
#include "base/random.hpp"
#include "base/text.hpp"
#include "netlink/route_lookup.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <malloc.h>

namespace tailrace {
namespace {

constexpr auto kLookEvery = std::chrono::seconds{1}; // at the device's counters and endpoints; see PathBook::on_data
constexpr auto kLookIdleEvery = std::chrono::seconds{10}; // where nobody talks in a large tailnet
constexpr auto kTidyEvery = std::chrono::seconds{10};
constexpr std::size_t kSmallTailnet = 64;
constexpr auto kLookCloser = std::chrono::milliseconds{200}; // while a path is contested
constexpr auto kLeastRetry = std::chrono::milliseconds{500};
constexpr auto kSettle = std::chrono::milliseconds{250}; // until the events of one change are all there
constexpr auto kPatienceOfUp = std::chrono::seconds{5};  // before `up` is told that control does not answer

std::string new_profile_id() {
    return hex_encode(random_array<2>());
}

} // namespace

Backend::Backend(Reactor& reactor, BackendOptions options, StateFile state)
    : reactor_(reactor), options_(options), store_(std::move(state)), machine_info_(read_hostinfo()),
      engine_(reactor, options.engine),
      peer_api_(reactor, [this](const IpAddress& from) { return peer_api_caller(from); }),
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
    if (prefs_.want_running && prefs_.config && prefs_.config->has_node_key() && !prefs_.logged_out) {
        load_netmap();
        connect(ControlClient::Login::Restore, "");
    }
    update_state();
    wake_engine();
}

Task<void> Backend::announce_restart() {
    if (control_ && !prefs_.routes().empty()) co_await control_->announce_restart();
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
    }
    for (const auto& [id, user] : netmap_.users()) whole.user_profiles.push_back(user);
    whole.ssh_policy = netmap_.ssh_policy();
    return wire::write_map_response(whole);
}

void Backend::connect(ControlClient::Login how, std::string auth_key) {
    auto url = Url::parse(prefs_.control_url);
    if (!url) {
        login_trouble_ = url.error().message();
        publish_error(fmt::format("--login-server {}: {}", prefs_.control_url, url.error().message()));
        return;
    }
    login_trouble_.clear();
    control_trouble_.clear();
    control_lost_ = reactor_.now();
    in_map_poll_ = false;
    netmap_.begin_stream();
    ControlClient::Settings settings;
    settings.server = *url;
    settings.machine = machine_key_;
    settings.lock_key = lock_key_;
    settings.mark = Engine::kMark;
    if (prefs_.config) {
        if (auto key = NodePrivateKey::parse(prefs_.config->private_node_key)) settings.node_key = *key;
        if (auto key = NodePrivateKey::parse(prefs_.config->old_private_node_key)) settings.old_node_key = *key;
    }
    if (control_) control_->stop();
    control_ = std::make_unique<ControlClient>(reactor_, std::move(settings), *this, report());
    control_->login(how, std::move(auth_key));
}

SelfReport Backend::report() {
    SelfReport report;
    report.hostinfo = hostinfo_for(machine_info_, prefs_);
    if (peer_api_.port4() != 0) report.hostinfo.services.push_back({"peerapi4", peer_api_.port4(), ""});
    if (peer_api_.port6() != 0) report.hostinfo.services.push_back({"peerapi6", peer_api_.port6(), ""});
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
    if (found == endpoints_) return;
    endpoints_ = std::move(found);
    if (paths_) {
        paths_->set_local_endpoints(endpoints_);
        paths_->on_network_change();
        (void)engine_.steer(paths_->disco()); // the engine, woken below, does it again and says what is wrong
    }
    if (engine_up_) engine_.keep_guard();
    update_report();
    wake_engine();
}

void Backend::on_network_change_soon() {
    if (std::exchange(network_change_pending_, true)) return;
    auto later = [](std::shared_ptr<bool> alive, Backend* self) -> Task<void> {
        co_await self->reactor_.sleep(kSettle);
        if (!*alive) co_return;
        self->network_change_pending_ = false;
        if (self->way_out() != self->way_out_) self->on_network_change();
    };
    spawn(reactor_, "network change", later(alive_, this));
}

void Backend::on_network_change() {
    way_out_ = way_out();
    log::info("the network changed; paths, relays and control are tried again", {{"now", way_out_}});
    if (paths_) paths_->on_network_change();
    if (control_) control_->reconnect();
}

std::string Backend::way_out() {
    std::string out;
    auto lookup = RouteLookup::open();
    if (!lookup) return out;
    for (const char* somewhere : {"192.0.2.1", "2001:db8::1"}) { // documentation: nobody has a route of their own there
        auto route = lookup->find(*IpAddress::parse(somewhere), Engine::kMark);
        out += out.empty() ? "" : ", ";
        if (!route)
            out += "none";
        else
            out += fmt::format("{} by {} of {}", route->source ? route->source->text() : "-",
                               route->gateway ? route->gateway->text() : "-", route->device_index);
    }
    return out;
}

void Backend::look_for_sleep() {
    auto slept = sleep_watch_.look(SleepWatch::read());
    if (!slept) return;
    log::info("the machine was asleep",
              {{"seconds", std::chrono::duration_cast<std::chrono::seconds>(*slept).count()}});
    on_network_change();
}

Result<std::vector<HostNetwork>> Backend::host_networks() {
    std::vector<HostNetwork> out;
    auto links = engine_.links();
    if (!links) return links.error();
    for (const Link& link : *links)
        for (const InterfaceAddress& address : link.addresses)
            if (link.name != options_.engine.device) out.push_back({address.prefix, link.loopback, link.name});
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

namespace {

/// The same after every start, so that a gateway knows its old mapping to be ours; says nothing about the key.
pcp::Nonce mapping_nonce(const MachinePrivateKey& key) {
    constexpr std::string_view kPurpose = "nonce of our port mapping";
    std::array<std::byte, 32> digest{};
    crypto_generichash(reinterpret_cast<unsigned char*>(digest.data()), digest.size(), key.data(), key.view().size(),
                       as_uchars(as_bytes(kPurpose)), kPurpose.size());
    return Reader{digest}.array<12>();
}

} // namespace

PortMapping::Settings Backend::port_mapping_settings() const {
    const wire::Node& self = netmap_.self();
    return {options_.port_mapping && !self.has_cap("only-tcp-443"), !self.has_cap("debug-disable-upnp")};
}

void Backend::ensure_paths() {
    if (paths_) return;
    Paths::Callbacks callbacks;
    callbacks.use_endpoints = [this](const std::vector<UseEndpoint>& endpoints) {
        if (auto used = engine_.use_endpoints(endpoints); !used)
            log::warn("a peer's endpoint was not set", {{"error", used.error()}});
    };
    callbacks.ping_answered = [this](const PingAnswered& answer) {
        auto found = pending_pings_.find(answer.question);
        if (found == pending_pings_.end() || found->second->answer) return;
        found->second->answer = answer;
        found->second->answered.notify();
    };
    callbacks.path_works = [this](const NodeKey& peer) { shake_hands(peer); };
    callbacks.heard = [this](const Endpoint& from) { engine_.guard().heard(reactor_.now(), from); };
    callbacks.changed = [this] {
        if (paths_) update_report(); // else it is being made
    };
    callbacks.move_ports = [this](const std::map<Endpoint, std::uint16_t>& ports) {
        std::vector<PortMove> moves;
        for (const auto& [remote, port] : ports) moves.push_back({remote, port});
        return engine_.move_ports(moves);
    };
    Paths::Options options;
    options.wireguard_port = options_.engine.port;
    options.mark = Engine::kMark;
    options.mapping_nonce = mapping_nonce(machine_key_);
    if (auto device = find_wireguard(options_.engine.device); device && *device)
        if (auto left = (*device)->read()) options.device = std::move(*left);
    auto made = Paths::create(reactor_, disco_key_, std::move(options), std::move(callbacks));
    if (!note_watch("find paths to peers", made ? Result<void>{} : made.error())) return;
    paths_ = std::move(*made);
    engine_.set_disco(&paths_->disco());
    watch_disco_if_wanted();
    endpoints_.clear();
    refresh_endpoints();
}

std::shared_ptr<DiscoCapture> Backend::capture_disco() {
    auto capture = std::make_shared<DiscoCapture>(reactor_);
    captures_.insert(capture);
    watch_disco_if_wanted();
    return capture;
}

void Backend::watch_disco_if_wanted() {
    if (!paths_) return;
    if (captures_.empty())
        paths_->disco().watch({});
    else
        paths_->disco().watch([this](const DiscoFrame& frame) { tell_captures(frame); });
}

void Backend::tell_captures(const DiscoFrame& frame) {
    if (std::erase_if(captures_, [](const auto& capture) { return capture.use_count() == 1; }) > 0 &&
        captures_.empty()) {
        auto later = [](std::shared_ptr<bool> alive, Backend* self) -> Task<void> { // not from inside the watcher
            co_await self->reactor_.sleep({});
            if (*alive) self->watch_disco_if_wanted();
        };
        spawn(reactor_, "end of a capture", later(alive_, this));
        return;
    }
    const wire::Node* node = netmap_.find(frame.peer);
    std::string_view name = node == nullptr ? std::string_view{} : std::string_view{node->name};
    name = name.substr(0, name.find('.'));
    for (const auto& capture : captures_) {
        if (capture->lines.size() >= DiscoCapture::kDepth) {
            ++capture->lost;
            continue;
        }
        capture->lines.push_back(write_disco_frame(frame, WallTime::now(), name, std::exchange(capture->lost, 0)) +
                                 "\n");
        capture->wake.notify();
    }
}

void Backend::park() {
    if (paths_) paths_->park();
}

/// A reference client answers a handshake only over paths that it has tried, and without a relay it has none when the
/// first one comes; the next comes 5 s later. So the first packet is one that nobody waits for. Not in large tailnets,
/// where silence is worth more.
void Backend::shake_hands(const NodeKey& peer) {
    const wire::Node* node = netmap_.find(peer);
    if (paths_ && paths_->is_relaying()) return; // the relay carries the first handshake
    if (!inner_ping_ || node == nullptr || node->addresses.empty() || netmap_.peers().size() > kSmallTailnet) return;
    for (const WireGuardPeerState& known : wireguard_.peers)
        if (known.public_key == peer.raw() && known.last_handshake) return;
    if (!greeted_.insert(peer).second) return;
    auto greet = [](Backend* self, std::shared_ptr<bool> alive, IpAddress to) -> Task<void> {
        if (*alive && self->inner_ping_) (void)co_await self->inner_ping_->tsmp(to, std::chrono::seconds{5});
    };
    spawn(reactor_, "greet a peer", greet(this, alive_, node->addresses.front().address()));
}

void Backend::ensure_inner_ping() {
    if (inner_ping_) return;
    InnerPing::Callbacks callbacks;
    callbacks.own_address = [this](bool v6) -> std::optional<IpAddress> {
        if (!netmap_.has_self()) return std::nullopt;
        for (const IpPrefix& prefix : netmap_.self().addresses)
            if (prefix.address().is_v6() == v6) return prefix.address();
        return std::nullopt;
    };
    callbacks.disco_key = [this](const IpAddress& from, const DiscoKey& key) {
        const wire::Node* peer = netmap_.owner_of(from);
        if (peer == nullptr || !netmap_.learn_disco_key(peer->id, key, WallTime::now()) || !paths_) return;
        paths_->book().set_disco_key(reactor_.now(), peer->key, key);
        paths_->carry_out();
    };
    callbacks.peer_api_port = [this](bool v6) { return v6 ? peer_api_.port6() : peer_api_.port4(); };
    auto made = InnerPing::create(reactor_, options_.engine.device, Engine::kMark, std::move(callbacks));
    if (note_watch("answer pings in the tunnel", made ? Result<void>{} : made.error())) inner_ping_ = std::move(*made);
}

/// Once a session. Control tells peers our key too, but it may be away when we start over.
void Backend::announce_disco_key(const WireGuardPeerState& peer) {
    if (!inner_ping_ || !peer.last_handshake) return;
    NodeKey key{peer.public_key};
    const wire::Node* node = netmap_.find(key);
    if (node == nullptr || node->is_wireguard_only) return;
    WallTime& told = announced_[key];
    if (told == *peer.last_handshake) return;
    told = *peer.last_handshake;
    for (const IpPrefix& address : node->addresses) {
        if (!address.address().is_v4()) continue;
        if (auto sent = inner_ping_->announce(address.address(), disco_key_.public_key()); !sent)
            log::debug("the disco key was not announced", {{"error", sent.error()}});
        return;
    }
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
                engine_went_down_.notify();
                inner_ping_.reset();
                peer_api_.set_addresses({});
                if (paths_) { // nobody finds us any more, so that nobody takes us for a router that still works
                    paths_->set_port_mapping({});
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
            EngineConfig config = engine_config(networks ? *networks : std::vector<HostNetwork>{});
            if (paths_) {
                paths_->set_port_mapping(port_mapping_settings());
                paths_->set_identity(config.node_key);
                paths_->set_hard_nat_traversal(prefs_.hard_nat_traversal);
                paths_->set_only_tcp(netmap_.self().has_cap("only-tcp-443"));
                if (auto url = Url::parse(prefs_.control_url)) paths_->set_control_host(url->host);
                paths_->set_derp_map(netmap_.derp_map());
                std::vector<PathBook::Peer> peers;
                for (const WantedPeer& peer : config.wanted.peers)
                    peers.push_back({peer.key, peer.disco, peer.endpoints, peer.home_region, std::nullopt});
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
                if (moved) paths_->adopt_moves(ports);
                moves_adopted_ = static_cast<bool>(moved);
            }
            if (outcome) ensure_inner_ping();
            engine_up_ = static_cast<bool>(outcome);
        } else {
            outcome = close_past_tunnel(prefs_);
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

bool Backend::note_watch(std::string_view what, const Result<void>& outcome) {
    if (outcome) {
        watch_troubles_.erase(what);
        return true;
    }
    std::string text = outcome.error().message();
    if (watch_troubles_[what] != text) log::warn("not possible, tried again", {{"what", what}, {"error", text}});
    watch_troubles_[what] = std::move(text);
    return false;
}

Task<void> Backend::run_monitor() {
    auto alive = alive_;
    while (*alive) {
        co_await follow_network(alive);
        if (!*alive) co_return;
        co_await reactor_.sleep(kLeastRetry);
    }
}

/// Until it cannot be watched any more.
Task<void> Backend::follow_network(std::shared_ptr<bool> alive) {
    auto monitor = NetworkMonitor::open();
    if (!note_watch("watch the network", monitor ? Result<void>{} : monitor.error())) co_return;
    Descriptor descriptor{reactor_, Fd{::fcntl(monitor->fd(), F_DUPFD_CLOEXEC, 3)}};
    std::vector<NetworkEvent> seen{EventsLost{}}; // whatever happened before we looked
    for (bool first = true;; first = false) {
        if (!first) {
            auto ready = co_await descriptor.readable();
            if (!*alive || !ready) co_return;
            auto events = monitor->read_events();
            if (!events) {
                (void)note_watch("watch the network", events.error());
                co_return;
            }
            seen = std::move(*events);
        }
        bool addresses = false, routes = false, repair = false;
        bool elsewhere = false; // the way to the internet is another one
        int own = engine_.device_index();
        for (const NetworkEvent& event : seen) {
            if (std::holds_alternative<EventsLost>(event)) {
                addresses = routes = repair = elsewhere = true;
            } else if (const auto* link = std::get_if<LinkEvent>(&event)) {
                if (link->link.index == own)
                    repair =
                        repair || link->change == Change::Removed || !link->link.up || link->link.mtu != Engine::kMtu;
                else
                    addresses = true;
            } else if (const auto* address = std::get_if<AddressEvent>(&event)) {
                if (address->link_index == own)
                    repair = repair || address->change == Change::Removed;
                else
                    addresses = routes = true;
            } else if (const auto* route = std::get_if<RouteEvent>(&event)) {
                if (route->table == kRoutingTable)
                    repair = repair || route->change == Change::Removed;
                else {
                    routes = true;
                    elsewhere = elsewhere || route->route.destination.is_default();
                }
            } else if (const auto* rule = std::get_if<RuleEvent>(&event)) {
                repair = repair || rule->change == Change::Removed;
            }
        }
        if (addresses) refresh_endpoints();
        if (routes && paths_) paths_->on_routes_change();
        if (!seen.empty() && !engine_.end_fast_flows()) wake_engine();
        if (elsewhere) on_network_change_soon();
        if (repair && (engine_up_ || is_closed(prefs_))) wake_engine();
    }
}

Task<void> Backend::run_nft_watch() {
    auto alive = alive_;
    while (*alive) {
        co_await follow_nftables(alive);
        if (!*alive) co_return;
        co_await reactor_.sleep(kLeastRetry);
    }
}

Task<void> Backend::follow_nftables(std::shared_ptr<bool> alive) {
    auto watch = NftablesWatch::open(options_.engine.device);
    if (!note_watch("watch nftables", watch ? Result<void>{} : watch.error())) co_return;
    Descriptor descriptor{reactor_, Fd{::fcntl(watch->fd(), F_DUPFD_CLOEXEC, 3)}};
    firewall_touched_ = true; // whatever happened before we looked
    if (!engine_.end_fast_flows() || engine_up_) wake_engine();
    for (;;) {
        auto ready = co_await descriptor.readable();
        if (!*alive || !ready) co_return;
        auto touched = watch->take_changes();
        if (!touched) {
            (void)note_watch("watch nftables", touched.error());
            co_return;
        }
        if (watch->take_others_changes()) firewall_touched_ = true;
        if (watch->take_rule_changes() && !engine_.end_fast_flows()) wake_engine();
        if (*touched && engine_up_) wake_engine();
    }
}

/// Looks at the device: who talks, and where WireGuard sends. It says neither by itself.
void Backend::take_device_state(WireGuardState state) {
    struct Bytes {
        std::uint64_t sent = 0, received = 0;
    };
    std::map<WireGuardKey, Bytes> before;
    for (const WireGuardPeerState& peer : wireguard_.peers) before[peer.public_key] = {peer.tx_bytes, peer.rx_bytes};
    TimePoint now = reactor_.now();
    for (const WireGuardPeerState& peer : state.peers) {
        NodeKey key{peer.public_key};
        Bytes known = before[peer.public_key];
        bool moved = peer.tx_bytes > known.sent;
        if (moved) last_write_[key] = now;
        announce_disco_key(peer);
        if (!paths_) continue;
        if (moved) paths_->book().on_traffic(now, key);
        if (peer.endpoint) paths_->book().on_kernel_endpoint(now, key, *peer.endpoint);
        if (peer.endpoint && peer.rx_bytes > known.received)
            paths_->book().on_data(device_read_, now, key, *peer.endpoint);
    }
    path_traffic_.take(state, [this](const Endpoint& endpoint) { return paths_ && paths_->is_relayed(endpoint); });
    wireguard_ = std::move(state);
    device_read_ = now;
    if (engine_.guard().is_wanted()) {
        std::vector<Endpoint> in_force;
        for (const WireGuardPeerState& peer : wireguard_.peers)
            if (peer.endpoint) in_force.push_back(*peer.endpoint);
        engine_.guard().set_endpoints(now, std::move(in_force));
    }
    auto is_gone = [&](const NodeKey& key) { return netmap_.find(key) == nullptr; };
    std::erase_if(announced_, [&](const auto& entry) { return is_gone(entry.first); });
    std::erase_if(last_write_, [&](const auto& entry) { return is_gone(entry.first); });
    std::erase_if(greeted_, is_gone);
    if (paths_) paths_->carry_out();
}

/// Reading thousands of peers is most of what an idle agent does. Who is silent is woken over the relay, by its packet.
bool Backend::must_read_device() const {
    bool small = netmap_.peers().size() <= kSmallTailnet;
    return small || !paths_ || paths_->anybody_active() || reactor_.now() - device_read_ >= kLookIdleEvery;
}

/// A network map, what is asked for on the socket, and the device as text are megabytes that come and go.
void Backend::give_memory_back() {
    if (reactor_.now() - memory_given_back_ < kTidyEvery) return;
    memory_given_back_ = reactor_.now();
    ::malloc_trim(0);
}

Task<void> Backend::run_poll() {
    auto alive = alive_;
    for (;;) {
        bool contested = paths_ && paths_->book().is_contested(reactor_.now());
        co_await reactor_.sleep(contested ? Duration{kLookCloser} : Duration{kLookEvery});
        if (!*alive) co_return;
        look_for_sleep();
        give_memory_back();
        if (watch_troubles_.contains("list interfaces")) refresh_endpoints();
        if (!engine_up_ || !engine_.has_device()) continue;
        if (std::exchange(firewall_touched_, false)) wake_engine();
        if (must_read_device()) {
            auto now_state = engine_.read();
            if (!now_state) {
                wake_engine();
                continue;
            }
            take_device_state(std::move(*now_state));
        }
        if (auto intact = engine_.check(); !intact) {
            log::warn("repairing", {{"error", intact.error()}});
            wake_engine();
        }
        if (netmap_.self_expired(WallTime::now())) update_state();
    }
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

Result<void> Backend::edit_prefs(Prefs wanted) {
    if (auto good = check_prefs(wanted); !good) return good;
    remember_exit_node(prefs_, wanted);
    auto changed = changed_prefs(prefs_, wanted);
    if (changed.empty()) return {};
    if (auto closed = close_past_tunnel(wanted); !closed) return closed.error().with("the exit node is not used");
    if (auto saved = save_prefs(wanted); !saved) return saved;
    bool was_running = prefs_.want_running;
    bool other_server = prefs_.control_url != wanted.control_url;
    prefs_ = std::move(wanted);
    publish("\"Prefs\":" + write_prefs(prefs_.without_secrets()));
    if (!prefs_.want_running && was_running) {
        stop();
        auth_url_.clear();
        login_trouble_.clear();
        in_map_poll_ = false;
        login_pending_ = false;
    } else if (prefs_.want_running && (!was_running || other_server)) {
        if (prefs_.config && prefs_.config->has_node_key() && !prefs_.logged_out) {
            if (!netmap_.has_self()) load_netmap();
            connect(ControlClient::Login::Restore, "");
        }
    }
    update_report();
    update_state();
    wake_engine();
    return {};
}

Result<void> Backend::start_with(Prefs wanted, std::string auth_key) {
    if (auto good = check_prefs(wanted); !good) return good;
    wanted.config = prefs_.config;
    remember_exit_node(prefs_, wanted);
    bool other_server = prefs_.control_url != wanted.control_url;
    if (other_server && wanted.config && wanted.config->has_node_key() && !prefs_.control_url.empty()) {
        wanted.config.reset(); // who we are there is nothing to the new server
        netmap_ = Netmap{};
        netmap_from_control_ = false;
    }
    if (other_server) stop();
    wanted.logged_out = false;
    if (auto closed = close_past_tunnel(wanted); !closed) return closed.error().with("the exit node is not used");
    if (auto saved = save_prefs(wanted); !saved) return saved;
    prefs_ = std::move(wanted);
    publish("\"Prefs\":" + write_prefs(prefs_.without_secrets()));
    auth_url_.clear();
    engine_trouble_told_.clear(); // whoever asked now shall hear of it again
    login_pending_ = true;
    bool has_key = prefs_.config && prefs_.config->has_node_key();
    auth_key_does_it_ = !has_key && !auth_key.empty();
    // An auth key means a new login only for who has none: a container that starts again with its key stays who it is.
    if (prefs_.want_running && (has_key || !auth_key.empty()))
        connect(ControlClient::Login::Restore, std::move(auth_key));
    update_state();
    wake_engine();
    return {};
}

Result<void> Backend::login_interactive() {
    if (prefs_.control_url.empty()) return Error::make("no coordination server is known; name it with --login-server");
    prefs_.logged_out = false;
    // `up` asks for a login without waiting for what its auth key does, which may be done already.
    if (std::exchange(auth_key_does_it_, false)) return {};
    login_pending_ = true;
    std::string key = control_ ? control_->auth_key() : "";
    connect(ControlClient::Login::Interactive, std::move(key));
    update_state();
    return {};
}

Task<Result<void>> Backend::logout() {
    Result<void> outcome;
    if (control_ && prefs_.config && prefs_.config->has_node_key()) {
        outcome = co_await control_->logout();
        if (!outcome) log::warn("control was not told of the logout", {{"error", outcome.error()}});
    }
    stop();
    Prefs gone;
    gone.control_url = prefs_.control_url;
    gone.logged_out = true;
    gone.operator_user = prefs_.operator_user;
    if (!profile_id_.empty()) {
        (void)store_.erase("profile-" + profile_id_); // what remains is overwritten by the next login
        (void)store_.erase("_profiles");
        auto erased = store_.erase("_current-profile");
        if (!erased) outcome = erased;
        ::unlink(netmap_path().c_str());
        profile_id_.clear();
    }
    prefs_ = gone;
    netmap_ = Netmap{};
    netmap_from_control_ = false;
    auth_url_.clear();
    login_trouble_.clear();
    login_pending_ = false;
    in_map_poll_ = false;
    publish("\"Prefs\":" + write_prefs(prefs_.without_secrets()));
    update_state();
    wake_engine();
    co_return Result<void>{};
}

void Backend::on_login_url(const std::string& url) {
    auth_url_ = url;
    std::string member = "\"BrowseToURL\":";
    json::append_string(member, url);
    publish(member);
    log::info("somebody must visit a page to let this node in", {{"url", url}});
    update_state();
}

void Backend::on_logged_in(const NodePrivateKey& node_key, const NodePrivateKey& old_key,
                           const wire::RegisterResponse& answer) {
    Prefs prefs = prefs_;
    if (!prefs.config) prefs.config.emplace();
    prefs.config->private_node_key = node_key.text_for_storing();
    prefs.config->old_private_node_key = old_key.is_zero() ? Persist::zero_node_key() : old_key.text_for_storing();
    prefs.config->network_lock_key = lock_key_.text_for_storing();
    prefs.config->user_profile = {answer.user.id, answer.login.login_name, answer.login.display_name,
                                  answer.login.profile_pic_url};
    prefs.logged_out = false;
    prefs_ = prefs;
    auth_url_.clear();
    login_trouble_.clear();
    login_pending_ = false;
    bool fresh = profile_id_.empty();
    if (fresh) profile_id_ = new_profile_id();
    Result<void> saved = save_prefs(prefs_);
    if (saved && fresh) {
        std::string profile = fmt::format("{{\"{0}\":{{\"ID\":\"{0}\",\"Name\":", profile_id_);
        json::append_string(profile, answer.login.login_name);
        profile += fmt::format(
            ",\"Key\":\"profile-{}\",\"UserProfile\":{},\"NodeID\":\"\",\"LocalUserID\":\"\",\"ControlURL\":",
            profile_id_, json::write(prefs_.config->user_profile));
        json::append_string(profile, prefs_.control_url);
        saved = store_.set("_profiles", profile + "}}");
        if (saved) saved = store_.set("_current-profile", "profile-" + profile_id_);
    }
    if (!saved) {
        store_trouble_ = saved.error().message();
        log::error("the login was not saved: the next start will need a new one", {{"error", saved.error()}});
        publish_error(
            fmt::format("logged in, but the login cannot be saved ({}); make room and run \"tailrace up\" again",
                        saved.error().message()));
    } else {
        store_trouble_.clear();
    }
    publish("\"LoginFinished\":{}");
    update_state();
    wake_engine();
}

void Backend::on_login_refused(const std::string& text) {
    login_trouble_ = text;
    login_pending_ = false;
    log::warn("control refused the login", {{"text", text}});
    update_state();
    publish_error(fmt::format("{} refused the login: {}; see to that, or get another auth key from whoever runs the "
                              "server, and run \"tailrace up\" again",
                              prefs_.control_url, text));
}

void Backend::on_key_expired() {
    login_pending_ = true;
    log::warn("the node key has expired; somebody must log in again", {});
    update_state();
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
        save_netmap_soon();
        if (prefs_.config && netmap_.has_self() && prefs_.config->node_id != netmap_.self().stable_id) {
            prefs_.config->node_id = netmap_.self().stable_id;
            (void)save_prefs(prefs_); // saved again with the next change
        }
        if (changes->derp_map || changes->first_of_stream) update_report();
        if (changes->self) publish("\"SelfChange\":" + wire::write_node(netmap_.self()));
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

Task<wire::PingResponse> Backend::on_ping_wanted(std::string type, IpAddress address) {
    PingResult result = co_await ping(address.text(), type, std::chrono::seconds{10});
    wire::PingResponse response;
    response.type = type;
    response.ip = result.ip;
    response.node_ip = result.node_ip;
    response.node_name = result.node_name;
    response.err = result.err;
    response.latency_seconds = result.latency_seconds;
    response.endpoint = result.endpoint;
    response.is_local_ip = result.is_local_ip;
    response.derp_region_id = result.derp_region_id;
    response.derp_region_code = result.derp_region_code;
    co_return response;
}

std::optional<PeerApiCaller> Backend::peer_api_caller(const IpAddress& from) {
    const wire::Node* node = netmap_.has_self() ? netmap_.owner_of(from) : nullptr;
    if (node == nullptr || node->id == netmap_.self().id) return std::nullopt;
    const wire::UserProfile* user = netmap_.user(node->user);
    return PeerApiCaller{node->name, user == nullptr ? std::string{} : user->display_name};
}

Task<PingResult> Backend::ping_peer_api(PingResult result, NodeKey peer, Duration timeout) {
    const wire::Node* node = netmap_.find(peer);
    std::optional<Endpoint> base;
    for (bool v6 : {false, true}) { // a family that both have, IPv4 rather
        bool ours = std::ranges::any_of(netmap_.self().addresses,
                                        [&](const IpPrefix& own) { return own.address().is_v6() == v6; });
        if (base || !ours || node == nullptr) continue;
        for (const wire::Service& service : node->hostinfo.value.services)
            for (const IpPrefix& prefix : node->addresses)
                if (!base && service.proto == (v6 ? "peerapi6" : "peerapi4") && prefix.address().is_v6() == v6)
                    base = Endpoint{prefix.address(), service.port};
    }
    if (!base || base->port == 0) {
        result.err = fmt::format("{} says nothing of a peer API", result.node_name);
        co_return result;
    }
    auto answered = co_await ask_peer_api(reactor_, *base, timeout);
    if (!answered) {
        result.err = answered.error().code() == ETIMEDOUT ? "timeout" : answered.error().message();
        co_return result;
    }
    result.peer_api_url = "http://" + base->text();
    result.latency_seconds = std::chrono::duration<double>(*answered).count();
    co_return result;
}

Task<PingResult> Backend::ping(std::string address_text, std::string type, Duration timeout) {
    PingResult result;
    result.ip = address_text;
    auto address = IpAddress::parse(address_text);
    if (!address || !address->valid()) {
        result.err = fmt::format("\"{}\" is not an IP address", address_text);
        co_return result;
    }
    const wire::Node* peer = netmap_.has_self() ? netmap_.owner_of(*address) : nullptr;
    if (peer == nullptr) {
        result.err = "no matching peer";
        co_return result;
    }
    result.node_ip = peer->addresses.empty() ? "" : peer->addresses.front().address().text();
    if (std::ranges::any_of(peer->addresses, [&](const IpPrefix& p) { return p.address() == *address; }))
        result.node_ip = address->text();
    result.node_name = peer->name.substr(0, peer->name.find('.'));
    if (peer->id == netmap_.self().id) {
        result.is_local_ip = true;
        result.err = fmt::format("{} is local Tailscale IP", address->text());
        co_return result;
    }
    NodeKey key = peer->key;
    auto set_latency = [&](Duration round_trip) {
        result.latency_seconds = std::chrono::duration<double>(round_trip).count();
    };
    if (type == "TSMP" || type == "ICMP") {
        if (!inner_ping_) {
            result.err = "the tunnel is not up";
            co_return result;
        }
        Result<InnerPong> pong = Error::make("no answer");
        if (type == "TSMP")
            pong = co_await inner_ping_->tsmp(*address, timeout);
        else
            pong = co_await inner_ping_->icmp(*address, timeout);
        if (!pong) {
            result.err = pong.error().code() == ETIMEDOUT ? "timeout" : pong.error().message();
            co_return result;
        }
        result.peer_api_port = pong->peer_api_port;
        set_latency(pong->round_trip);
        co_return result;
    }
    if (type == "peerapi") co_return co_await ping_peer_api(std::move(result), key, timeout);
    if (type != "disco") {
        result.err = fmt::format("pings of type {} are not supported", type);
        co_return result;
    }
    std::uint64_t question = paths_ ? paths_->book().ask(reactor_.now(), key) : 0;
    if (question == 0) {
        result.err = "nothing is known of where this peer is";
        co_return result;
    }
    auto pending = std::make_shared<PendingPing>(reactor_);
    pending_pings_[question] = pending;
    paths_->carry_out();
    if (!pending->answer) (void)co_await pending->answered.wait_for(timeout);
    pending_pings_.erase(question);
    if (!pending->answer) {
        result.err = "timeout";
        co_return result;
    }
    if (int region = relay_region(pending->answer->endpoint); region != 0) {
        result.derp_region_id = region;
        result.derp_region_code = paths_->relays().code_of(region);
    } else {
        result.endpoint = pending->answer->endpoint.text();
    }
    set_latency(pending->answer->round_trip);
    co_return result;
}

} // namespace tailrace
