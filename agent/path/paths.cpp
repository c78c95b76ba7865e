#include "agent/path/paths.hpp"
#include "agent/path/captive_portal.hpp"
#include "agent/path/cloud_addresses.hpp"
#include "agent/path/relay_distance.hpp"
#include "agent/relay/relay_dial.hpp"
#include "base/file.hpp"
#include "base/log.hpp"
#include "base/random.hpp"

#include <algorithm>
#include <cerrno>

namespace tailrace {
namespace {

constexpr std::uint16_t kStunPort = 3478;
constexpr auto kHeardLately = std::chrono::seconds{8};
constexpr auto kLookCloserEvery = std::chrono::minutes{5};
constexpr auto kMeasureFullyEvery = std::chrono::minutes{5};

/// Between measurements while there is traffic: keeps NAT mappings younger than 30 s.
Duration measuring_pause() {
    return std::chrono::milliseconds{20'000 + random_below(6'000)};
}

} // namespace

Paths::Paths(Reactor& reactor, Options options, Callbacks callbacks)
    : reactor_(reactor), options_(std::move(options)), callbacks_(std::move(callbacks)),
      relays_(reactor, options_.mark,
              {[this](int region, const NodeKey& from, BytesView packet) { return from_relay(region, from, packet); },
               [this](int region, bool connected) { on_relay_changed(region, connected); }}),
      mapper_(reactor, {options_.wireguard_port, options_.mark, options_.mapping_nonce},
              [this] { on_mapping_changed(); }),
      measured_event_(reactor), measure_wanted_(reactor) {}

Paths::~Paths() {
    *alive_ = false;
    measure_wanted_.notify();
}

Result<std::unique_ptr<Paths>> Paths::create(Reactor& reactor, DiscoPrivateKey key, Options options,
                                             Callbacks callbacks) {
    std::unique_ptr<Paths> paths{new Paths(reactor, std::move(options), std::move(callbacks))};
    Paths* self = paths.get();
    DiscoLoop::Callbacks disco;
    disco.use_endpoints = [self](const std::vector<UseEndpoint>& endpoints) {
        self->callbacks_.use_endpoints(endpoints);
        for (const UseEndpoint& use : endpoints) {
            if (self->is_relayed(use.endpoint)) continue;
            if (auto copy = self->initiations_.take_for_path(self->reactor_.now(), use.peer))
                (void)self->disco_->send_raw(use.endpoint, *copy);
        }
    };
    disco.ping_answered = [self](const PingAnswered& answer) { self->callbacks_.ping_answered(answer); };
    disco.path_works = [self](const NodeKey& peer) { self->callbacks_.path_works(peer); };
    disco.relay = [self](const NodeKey& to, BytesView packet) {
        auto home = self->home_of_.find(to);
        self->relays_.send(home == self->home_of_.end() ? 0 : home->second, to, packet);
    };
    disco.call_wanted = [self](const NodeKey& to, const DiscoKey& peer) { self->call(to, peer); };
    disco.stun_answer = [self](const stun::Response& response) {
        if (self->check_ && self->check_->on_answer(self->reactor_.now(), response)) self->measured_event_.notify();
    };
    disco.punch = [self](const NodeKey& from, const DiscoPunch& message) { self->punch_->on_message(from, message); };
    disco.peer_relay = [self](const NodeKey& from, const DiscoMessage& message) {
        if (const auto* request = std::get_if<DiscoAllocateRequest>(&message))
            self->on_relay_request(from, *request);
        else
            self->peer_relays_->on_message(from, message);
    };
    disco.geneve = [self](const GenevePacket& packet, const Endpoint& from) {
        self->peer_relays_->on_geneve(packet, from);
    };
    disco.heard = [self](const NodeKey& peer, const Endpoint& from) {
        self->callbacks_.heard(from);
        self->punch_->on_heard(peer, from);
    };
    auto loop = DiscoLoop::create(reactor, std::move(key), self->options_.wireguard_port, self->options_.mark,
                                  std::move(disco));
    if (!loop) return loop.error();
    self->disco_ = std::move(*loop);
    self->punch_ =
        std::make_unique<PunchLoop>(reactor, *self->disco_, self->options_.wireguard_port, self->options_.mark,
                                    self->callbacks_.move_ports, self->callbacks_.keep_found);
    PeerRelayLoop::Callbacks through;
    through.arrived = [self](const NodeKey& from, BytesView packet) { self->arrived(from, packet); };
    through.ping_answered = [self](const AnsweredVia& answer) { self->callbacks_.ping_answered_via(answer); };
    through.heard = [self](const Endpoint& from) { self->callbacks_.heard(from); };
    self->peer_relays_ = std::make_unique<PeerRelayLoop>(reactor, *self->disco_, std::move(through));

    std::uint16_t wished = 0;
    if (self->options_.device)
        for (const WireGuardPeerState& peer : self->options_.device->peers)
            if (peer.endpoint && RelayAddresses::range().contains(peer.endpoint->address)) wished = peer.endpoint->port;
    auto from_kernel = [self](const NodeKey& to, const Bytes& datagram) { self->from_kernel(to, datagram); };
    auto port = RelayPort::open(reactor, self->options_.wireguard_port, wished, from_kernel);
    if (!port) return port.error();
    self->port_ = std::move(*port);
    if (self->options_.device)
        for (const WireGuardPeerState& peer : self->options_.device->peers)
            if (peer.endpoint)
                (void)self->port_->addresses().adopt(NodeKey{peer.public_key},
                                                     peer.endpoint->address); // else a new one
    if (auto vendor = read_file(kBiosVendorFile)) self->in_cloud_ = is_amazon(*vendor);
    spawn(reactor, "netcheck", keep_measuring(self->alive_, self));
    return paths;
}

void Paths::set_identity(const NodePrivateKey& node) {
    self_ = node.public_key();
    disco_->set_identity(self_);
    relays_.set_identity(node);
}

void Paths::set_derp_map(const wire::DerpMap& map) {
    if (map == map_) return;
    map_ = map;
    relay_failed_ = false;
    relays_.set_map(map_);
    update_relaying();
    look_closer_ = measure_fully_ = true;
    want_measurement();
}

void Paths::on_relay_changed(int region, bool connected) {
    if (region != home_.home()) return;
    relay_failed_ = relays_.is_failing(region);
    if (!connected) want_measurement();
    update_relaying();
    if (connected) book().on_own_endpoints(reactor_.now()); // earlier calls may have gone into the void
    carry_out();
    callbacks_.changed();
}

void Paths::update_relaying() {
    bool any = map_.regions && !map_.regions->empty();
    book().set_relaying(reactor_.now(), any, relay_failed_ ? home_.home() : 0);
    carry_out();
}

void Paths::set_peers(std::vector<PathBook::Peer> peers) {
    std::set<NodeKey> keys;
    bool first = home_of_.empty() && !peers.empty();
    home_of_.clear();
    for (PathBook::Peer& peer : peers) {
        keys.insert(peer.node);
        home_of_[peer.node] = peer.home_region;
        if (peer.home_region != 0 || !peer.disco.is_zero()) peer.relayed = port_->endpoint_of(peer.node);
        if (peer.home_region == 0) continue;
        if (auto unsent = initiations_.take_unsent(reactor_.now(), peer.node))
            relays_.send(peer.home_region, peer.node, *unsent);
    }
    port_->addresses().keep_only(keys);
    punch_->keep_only(keys);
    initiations_.keep_only(keys);
    book().set_peers(reactor_.now(), peers);
    if (first) want_measurement();
}

void Paths::set_relay_servers(RelayServers servers) {
    peer_relays_->set_peers(std::move(servers.capable), std::move(servers.servers));
    peer_relays_->set_enabled(servers.enabled);
}

Result<void> Paths::set_peer_relaying(PeerRelaying wanted) {
    bool other = wanted.port != relaying_.port;
    relaying_ = std::move(wanted);
    if (other || !relaying_.port) relay_server_.reset();
    if (relaying_.port && !relay_server_) {
        auto servers = [this]() -> Task<std::vector<Endpoint>> {
            std::vector<Endpoint> out; // two tell whether a NAT on the way is easy
            for (const NetCheck::Server& server : co_await this->servers())
                if (server.region == home_.home() || out.size() < 2) out.push_back(server.address);
            co_return out;
        };
        auto opened = PeerRelayServer::open(reactor_, *relaying_.port, options_.mark, options_.wireguard_port, servers);
        if (!opened && opened.error().code() == EADDRINUSE)
            return Error::make("UDP port {} is in use by another program; choose another with \"tailrace set "
                               "--relay-server-port\"",
                               *relaying_.port);
        if (!opened) return opened.error();
        relay_server_ = std::move(*opened);
        log::info("relaying for peers whom the policy lets ask",
                  {{"port4", relay_server_->port4()}, {"port6", relay_server_->port6()}});
    }
    update_relay_server();
    return {};
}

void Paths::update_relay_server() {
    if (!relay_server_) return;
    auto addresses = local_addresses();
    addresses.insert(addresses.end(), cloud_.begin(), cloud_.end());
    relay_server_->set_addresses(addresses, relaying_.named);
}

void Paths::on_relay_request(const NodeKey& from, const DiscoAllocateRequest& request) {
    auto asking = book().disco_of(from);
    if (!relay_server_ || !asking || !relaying_.clients.contains(from)) return;
    if (auto answer = relay_server_->allocate(request, *asking)) disco_->send_relayed(from, *answer);
}

std::uint64_t Paths::ask_via(const NodeKey& peer) {
    auto path = book().state(reactor_.now(), peer);
    return path.trusted && !path.relayed ? 0 : peer_relays_->ask(peer);
}

void Paths::set_local_endpoints(std::vector<Endpoint> local) {
    local_ = std::move(local);
    update_own();
    update_relay_server();
}

void Paths::on_network_change() {
    punch_->on_network_change();
    peer_relays_->on_network_change();
    disco_->on_network_change();
    relays_.on_network_change(local_addresses());
    mapper_.on_network_change();
    measured_.reset();
    seen_.clear(); // from where we were
    look_closer_ = measure_fully_ = true;
    want_measurement();
}

void Paths::on_new_addresses() {
    book().on_new_addresses(reactor_.now());
    carry_out();
    relays_.on_network_change(local_addresses());
    want_measurement();
}

std::vector<IpAddress> Paths::local_addresses() const {
    std::vector<IpAddress> own;
    for (const Endpoint& endpoint : local_) own.push_back(endpoint.address);
    return own;
}

void Paths::on_routes_change() {
    disco_->forget_routes();
    mapper_.on_network_change();
}

void Paths::park() {
    book().park(reactor_.now());
    carry_out();
}

// -- packets

void Paths::from_kernel(const NodeKey& to, const Bytes& datagram) {
    auto found = home_of_.find(to);
    int home = found == home_of_.end() ? 0 : found->second;
    const bool initiation = Initiations::is_initiation(datagram);
    if (initiation) {
        initiations_.begun(reactor_.now(), to, datagram, home != 0);
        if (home == 0) copy_initiations(); // nothing else goes anywhere
        spawn(reactor_, "copy of a handshake", copy_initiations_later(alive_, this));
    }
    book().on_relayed_packet(reactor_.now(), to);
    auto path = book().state(reactor_.now(), to);
    // While a path is doubtful, to its address and over the relay. Where the other end follows what arrives, what the
    // second copy is good for is done otherwise: handshakes go both ways (above), and a peer that only WireGuard hears
    // keeps its path (on_data).
    if (auto doubtful = book().second_copy(reactor_.now(), to); doubtful && !initiation)
        (void)disco_->send_raw(*doubtful, datagram);
    // WireGuard may not have heard yet of the direct path that there is.
    bool sent = path.trusted && disco_->send_raw(*path.endpoint, datagram);
    if (!sent && !peer_relays_->send(to, datagram)) relays_.send(home, to, datagram);
    if (!sent) punch_->on_relayed_packet(to);
    carry_out();
}

/// A peer whose agent is away hears nothing over its relay.
void Paths::copy_initiations() {
    TimePoint now = reactor_.now();
    for (const auto& [peer, datagram] : initiations_.take_due(now)) {
        auto path = book().state(now, peer);
        auto to = path.trusted ? path.endpoint : book().direct_guess(peer);
        if (to) (void)disco_->send_raw(*to, datagram);
    }
}

Task<void> Paths::copy_initiations_later(std::shared_ptr<bool> alive, Paths* self) {
    co_await self->reactor_.sleep(Initiations::kCopyAfter);
    if (*alive) self->copy_initiations();
}

bool Paths::from_relay(int region, const NodeKey& from, BytesView packet) {
    if (!home_of_.contains(from)) return false; // a stranger
    if (looks_like_disco(packet)) {
        disco_->on_relayed(region, from, packet);
        return true;
    }
    arrived(from, packet);
    return true;
}

void Paths::arrived(const NodeKey& from, BytesView packet) {
    if (Initiations::is_response(packet)) initiations_.answered(from);
    book().on_relayed_arrival(reactor_.now(), from);
    auto state = book().state(reactor_.now(), from);
    Result<void> injected;
    if (state.trusted && state.endpoint) {
        injected = disco_->inject(*state.endpoint, packet); // else WireGuard would go back to the relay
        if (!injected) injected = port_->inject(from, packet);
    } else {
        injected = port_->inject(from, packet);
    }
    if (!injected) log::debug("a relayed packet was lost", {{"error", injected.error()}});
    carry_out();
}

void Paths::call(const NodeKey& to, const DiscoKey& disco) {
    waiting_calls_[to] = disco;
    auto fresh = book().is_contested(reactor_.now()) ? kFreshAfterLoss : kFreshEnough;
    if (measured_ && reactor_.now() - *measured_ <= fresh)
        send_waiting_calls();
    else
        want_measurement();
}

// -- our own network

void Paths::want_measurement() {
    if (measuring_)
        measure_again_ = true;
    else
        measure_wanted_.notify();
}

bool Paths::anybody_active() const {
    TimePoint now = reactor_.now();
    return std::ranges::any_of(home_of_,
                               [&](const auto& peer) { return disco_->book().state(now, peer.first).active; });
}

Task<void> Paths::keep_measuring(std::shared_ptr<bool> alive, Paths* self) {
    for (;;) {
        bool wanted = co_await self->measure_wanted_.wait_for(measuring_pause());
        if (!*alive) co_return;
        if (!wanted && !self->anybody_active()) continue;
        do {
            self->measure_again_ = false;
            co_await measure_now(alive, self);
            if (!*alive) co_return;
        } while (self->measure_again_);
    }
}

Task<std::vector<NetCheck::Server>> Paths::servers() {
    std::vector<NetCheck::Server> out;
    auto map = map_;
    if (!map.regions || only_tcp_) co_return out;
    for (const auto& [number, region] : *map.regions) {
        if (!region || region->no_measure_no_home) continue;
        for (const wire::DerpNode& node : region->nodes) {
            if (node.stun_port < 0) continue;
            auto port = static_cast<std::uint16_t>(node.stun_port == 0 ? kStunPort : node.stun_port);
            bool test = !node.stun_test_ip.empty();
            auto doors = test ? std::vector<RelayDoor>{{false, true, node.stun_test_ip}} : relay_doors(node);
            // An address needs no DNS, which may be slow or away when we measure most.
            bool any_literal = std::ranges::any_of(doors, &RelayDoor::literal);
            std::string asked;
            Result<std::vector<IpAddress>> found = std::vector<IpAddress>{};
            for (const RelayDoor& door : doors) {
                if (any_literal && !door.literal) continue;
                if (asked != door.host) found = co_await resolve(reactor_, asked = door.host);
                if (!found) continue;
                auto address =
                    std::ranges::find_if(*found, [&](const IpAddress& one) { return test || one.is_v6() == door.v6; });
                if (address != found->end()) out.push_back({number, {*address, port}, region->avoid});
            }
        }
    }
    co_return out;
}

Task<void> Paths::measure_now(std::shared_ptr<bool> alive, Paths* self) {
    self->measuring_ = true;
    self->mapper_.run();
    self->ask_cloud();
    auto servers = co_await self->servers();
    if (!*alive) co_return;
    TimePoint now = self->reactor_.now();
    bool portal = !self->report_.udp && self->report_.captive_portal == true;
    bool full = std::exchange(self->measure_fully_, false) || portal || !self->measured_fully_ ||
                now - *self->measured_fully_ >= kMeasureFullyEvery;
    if (full) self->measured_fully_ = now;
    auto plan = full ? NetCheck::full_plan(std::move(servers))
                     : NetCheck::short_plan(std::move(servers), self->report_, self->home_.home());
    self->check_.emplace(now, std::move(plan));
    while (!self->check_->is_done(now)) {
        for (const NetCheck::Probe& probe : self->check_->due(now)) {
            auto sent = self->disco_->send_raw(probe.to, stun::write_request(probe.id));
            self->check_->on_sent(probe, static_cast<bool>(sent));
        }
        now = self->reactor_.now();
        if (self->check_->is_done(now)) break;
        (void)co_await self->measured_event_.wait_for(self->check_->next_look(now) - now); // an answer, or time
        if (!*alive) co_return;
        now = self->reactor_.now();
    }
    NetReport report = self->check_->report();
    self->check_.reset();
    report.os_has_ipv6 = self->disco_->port6() != 0;
    if (!report.udp) {
        report = co_await look_closer(alive, self, std::move(report));
        if (!*alive) co_return;
    }
    self->measuring_ = false;
    self->take_report(std::move(report));
}

Task<NetReport> Paths::look_closer(std::shared_ptr<bool> alive, Paths* self, NetReport report) {
    TimePoint now = self->reactor_.now();
    self->send_waiting_calls(); // nothing that they say becomes better by waiting
    bool due = self->look_closer_ || self->report_.udp || !self->looked_closer_ ||
               now - *self->looked_closer_ >= kLookCloserEvery;
    report.captive_portal = self->report_.captive_portal;
    if (!due || !self->map_.regions || self->map_.regions->empty()) co_return report;
    self->look_closer_ = false;
    self->looked_closer_ = now;
    struct Portal {
        explicit Portal(Reactor& reactor) : known(reactor) {}
        Event known;
        std::optional<bool> found;
    };
    auto portal = std::make_shared<Portal>(self->reactor_);
    auto look = [](Reactor& reactor, std::shared_ptr<Portal> into, std::vector<PortalQuestion> questions,
                   std::uint32_t mark) -> Task<void> {
        into->found = co_await find_captive_portal(reactor, std::move(questions), mark);
        into->known.notify();
    };
    std::vector<PortalQuestion> questions; // they go to port 80
    if (!self->only_tcp_) questions = captive_portal_questions(self->map_, self->home_.home(), self->control_host_);
    spawn(self->reactor_, "captive portal", look(self->reactor_, portal, std::move(questions), self->options_.mark));
    auto echo = self->only_tcp_ ? RelayEcho::No : RelayEcho::Too;
    report = co_await measure_relay_distance(self->reactor_, self->map_, self->options_.mark, std::move(report), echo);
    co_await portal->known.wait();
    if (!*alive) co_return report;
    report.captive_portal = portal->found;
    co_return report;
}

void Paths::send_waiting_calls() {
    std::vector<Endpoint> endpoints;
    for (const OwnEndpoint& own : own_) endpoints.push_back(own.endpoint);
    for (const auto& [to, disco] : std::exchange(waiting_calls_, {})) disco_->send_call(to, disco, endpoints);
}

void Paths::take_report(NetReport report) {
    TimePoint now = reactor_.now();
    measured_ = now;
    auto heard = relays_.last_heard(home_.home());
    int before = home_.home();
    report.preferred_derp = home_.choose(now, report, map_, heard && now - *heard < kHeardLately, can_tell_home_);
    bool news = report.preferred_derp != report_.preferred_derp || report.udp != report_.udp ||
                report.icmp_v4 != report_.icmp_v4 || report.os_has_ipv6 != report_.os_has_ipv6 ||
                report.mapping_varies_by_destination != report_.mapping_varies_by_destination;
    report_ = std::move(report);
    report_.mapping = mapper_.services();
    relays_.set_v6_works(report_.ipv6);
    update_punch();
    if (home_.home() != before) {
        log::info("home relay chosen", {{"region", home_.home()}, {"code", relays_.code_of(home_.home())}});
        relay_failed_ = false;
        relays_.set_home(home_.home());
        update_relaying();
    }
    auto own = own_;
    if (!measure_again_) // else it may be of a network that we have left; the mapper knows by itself what is over
        for (const OwnEndpoint& seen : outside_endpoints(std::nullopt, report_, options_.wireguard_port))
            seen_.note(now, seen);
    update_own();
    send_waiting_calls();
    carry_out();
    if (news && own == own_) callbacks_.changed(); // update_own() has told otherwise
}

void Paths::update_own() {
    std::vector<OwnEndpoint> own;
    auto add = [&](const Endpoint& endpoint, int type) {
        bool known = std::ranges::any_of(own, [&](const OwnEndpoint& one) { return one.endpoint == endpoint; });
        if (!known) own.push_back({endpoint, type});
    };
    for (const OwnEndpoint& seen : outside_endpoints(mapper_.external(), report_, options_.wireguard_port))
        add(seen.endpoint, seen.type);
    for (const OwnEndpoint& told : cloud_endpoints(cloud_, options_.wireguard_port)) add(told.endpoint, told.type);
    for (const OwnEndpoint& endpoint : seen_.recent(reactor_.now())) add(endpoint.endpoint, endpoint.type);
    for (const Endpoint& endpoint : options_.static_endpoints) add(endpoint, 5);
    for (const Endpoint& endpoint : local_) add(endpoint, 1);
    if (own == own_) return;
    own_ = std::move(own);
    book().on_own_endpoints(reactor_.now());
    callbacks_.changed();
}

/// Beside the measurement: whether and when it answers changes nothing else.
void Paths::ask_cloud() {
    if (!in_cloud_ || only_tcp_ || std::exchange(asking_cloud_, true)) return;
    auto ask = [](std::shared_ptr<bool> alive, Paths* self) -> Task<void> {
        auto told = co_await ask_amazon(self->reactor_, kMetadataService, self->options_.mark);
        if (!*alive) co_return;
        self->asking_cloud_ = false;
        if (!told) log::debug("the cloud's metadata service says nothing of addresses", {{"error", told.error()}});
        self->cloud_ = told ? std::move(*told) : std::vector<IpAddress>{};
        for (const OwnEndpoint& endpoint : cloud_endpoints(self->cloud_, self->options_.wireguard_port))
            self->seen_.note(self->reactor_.now(), endpoint);
        self->update_own();
        self->update_relay_server();
        self->carry_out();
    };
    spawn(reactor_, "addresses of the cloud", ask(alive_, this));
}

void Paths::on_mapping_changed() {
    report_.mapping = mapper_.services();
    auto own = own_;
    update_own();
    if (own == own_) callbacks_.changed(); // update_own() has told otherwise
}

void Paths::set_hard_nat_traversal(bool on) {
    hard_nat_traversal_ = on;
    update_punch();
    carry_out();
}

void Paths::set_only_tcp(bool only) {
    if (std::exchange(only_tcp_, only) == only) return;
    book().set_only_relay(reactor_.now(), only);
    update_punch();
    carry_out();
    want_measurement();
}

void Paths::set_silent(bool silent) {
    book().set_silent(reactor_.now(), silent);
    carry_out();
}

void Paths::set_probing_sizes(bool on) {
    disco_->set_probing_sizes(on);
    carry_out();
}

void Paths::set_probing_lifetime(bool on) {
    std::optional<DiscoKey> own;
    if (on) own = disco_->key();
    book().set_probing_lifetime(reactor_.now(), own);
    carry_out();
}

void Paths::update_punch() {
    punch_->set_self({hard_nat_traversal_ && !only_tcp_, report_.mapping_varies_by_destination, report_.global_v4});
}

Task<NetReport> Paths::measure() {
    auto alive = alive_;
    look_closer_ = measure_fully_ = true;
    auto since = reactor_.now();
    want_measurement();
    co_await mapper_.probe();
    if (!*alive) co_return NetReport{};
    for (int i = 0; i < 240 && (!measured_ || *measured_ < since); ++i) {
        co_await reactor_.sleep(std::chrono::milliseconds{50});
        if (!*alive) co_return NetReport{};
    }
    co_return report_;
}

} // namespace tailrace
