// What happens on the machine: its network, the device, the firewall, sleep.
#include "agent/backend.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "netlink/route_lookup.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <malloc.h>

namespace tailrace {

namespace {

constexpr auto kLookEvery = std::chrono::seconds{1}; // at the device's counters and endpoints; see PathBook::on_data
constexpr auto kCheckEvery =
    std::chrono::milliseconds{2900}; // whether all hangs where we hung it: of the rules we hear at once
constexpr auto kLookIdleEvery = std::chrono::seconds{10}; // where nobody talks in a large tailnet
constexpr auto kTidyEvery = std::chrono::seconds{10};
constexpr auto kLookCloser = std::chrono::milliseconds{200};  // while a path is contested
constexpr auto kRepairPause = std::chrono::milliseconds{500}; // once repairs follow each other closely
constexpr auto kSettle = std::chrono::milliseconds{250};      // until the events of one change are all there

/// Of what another object reads: whether it is readable.
Result<Descriptor> watched(Reactor& reactor, int fd) {
    Fd copy{::fcntl(fd, F_DUPFD_CLOEXEC, 3)};
    if (!copy) return Error::from_errno(errno, "copy a descriptor");
    return Descriptor{reactor, std::move(copy)};
}

} // namespace

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

void Backend::refresh_endpoints_soon() {
    auto wait = look_pace_.on_change(reactor_.now());
    if (!wait) return;
    auto later = [](std::shared_ptr<bool> alive, Backend* self, Duration pause) -> Task<void> {
        co_await self->reactor_.sleep(pause);
        if (!*alive) co_return;
        self->look_pace_.on_look(self->reactor_.now());
        self->refresh_endpoints();
    };
    spawn(reactor_, "look at addresses", later(alive_, this, *wait));
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
    auto descriptor = monitor ? watched(reactor_, monitor->fd()) : monitor.error();
    if (!note_watch("watch the network", descriptor ? Result<void>{} : descriptor.error())) co_return;
    std::vector<NetworkEvent> seen{EventsLost{}}; // whatever happened before we looked
    for (bool first = true;; first = false) {
        if (!first) {
            auto ready = co_await descriptor->readable();
            if (!*alive || !ready) co_return;
            auto events = monitor->read_events();
            if (!events) {
                (void)note_watch("watch the network", events.error());
                co_return;
            }
            seen = std::move(*events);
        }
        bool addresses = false, routes = false, damaged = false;
        bool elsewhere = false; // the way to the internet is another one
        bool flows = false;     // may be forwarded to somewhere else
        int own = engine_.device_index();
        for (const NetworkEvent& event : seen) {
            if (const auto* view = std::get_if<Ipv6LinkEvent>(&event)) {
                damaged = damaged || view->link_index == own; // of other interfaces the addresses tell
                continue;
            }
            flows = true;
            if (std::holds_alternative<EventsLost>(event)) {
                addresses = routes = damaged = elsewhere = true;
            } else if (const auto* link = std::get_if<LinkEvent>(&event)) {
                if (link->link.index == own)
                    damaged =
                        damaged || link->change == Change::Removed || !link->link.up || link->link.mtu != Engine::kMtu;
                else
                    addresses = true;
            } else if (const auto* address = std::get_if<AddressEvent>(&event)) {
                if (address->link_index == own)
                    damaged = damaged || address->change == Change::Removed;
                else
                    addresses = routes = true;
            } else if (const auto* route = std::get_if<RouteEvent>(&event)) {
                if (route->table == kRoutingTable)
                    damaged = damaged || route->change == Change::Removed;
                else {
                    routes = true;
                    elsewhere = elsewhere || route->route.destination.is_default();
                }
            } else if (const auto* rule = std::get_if<RuleEvent>(&event)) {
                damaged = damaged || rule->change == Change::Removed;
            } else if (std::holds_alternative<NexthopEvent>(event)) {
                routes = elsewhere = true; // any of them, the default route included, may go by it
            }
        }
        if (addresses) refresh_endpoints_soon();
        if (routes && paths_) paths_->on_routes_change();
        if (flows && !engine_.end_fast_flows()) wake_engine();
        if (elsewhere) on_network_change_soon();
        if (damaged && (engine_up_ || is_closed(prefs_))) repair();
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
    auto descriptor = watch ? watched(reactor_, watch->fd()) : watch.error();
    if (!note_watch("watch nftables", descriptor ? Result<void>{} : descriptor.error())) co_return;
    firewall_touched_ = true; // whatever happened before we looked
    if (!engine_.end_fast_flows() || engine_up_) wake_engine();
    for (;;) {
        auto ready = co_await descriptor->readable();
        if (!*alive || !ready) co_return;
        auto touched = watch->take_changes();
        if (!touched) {
            (void)note_watch("watch nftables", touched.error());
            co_return;
        }
        if (watch->take_others_changes()) firewall_touched_ = true;
        if (watch->take_rule_changes()) {
            if (!engine_.end_fast_flows()) wake_engine();
            firewall_touched_ = true; // there may be a fast path no more, or again
        }
        if (*touched && engine_up_) repair();
    }
}

void Backend::repair() {
    if (repair_pending_) return;
    if (repairs_.try_take(reactor_.now())) return wake_engine();
    repair_pending_ = true;
    auto later = [](std::shared_ptr<bool> alive, Backend* self) -> Task<void> {
        co_await self->reactor_.sleep(kRepairPause);
        if (!*alive) co_return;
        self->repair_pending_ = false;
        self->repair(); // it counts like every other
    };
    spawn(reactor_, "repair", later(alive_, this));
}

/// What was read of a device that is gone says nothing of the one in its place: no session, no counter.
void Backend::forget_gone_device() {
    if (std::exchange(read_index_, engine_.device_index()) != engine_.device_index()) wireguard_ = {};
}

/// Looks at the device: who talks, and where WireGuard sends. It says neither by itself.
void Backend::take_device_state(WireGuardState state) {
    struct Bytes {
        std::uint64_t sent = 0, received = 0;
    };
    forget_gone_device();
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
        // First what was read: what follows may give a path up, and what it was would then look like WireGuard's
        // choice.
        if (peer.endpoint) paths_->book().on_kernel_endpoint(now, key, *peer.endpoint);
        if (peer.endpoint && peer.rx_bytes > known.received)
            paths_->book().on_data(device_read_, now, key, *peer.endpoint);
        if (moved) paths_->book().on_traffic(now, key);
    }
    path_traffic_.take(
        state, [this](const Endpoint& endpoint) { return paths_ && paths_->is_relayed(endpoint); },
        [this](const WireGuardKey& key) -> std::optional<Endpoint> {
            auto via = paths_ ? paths_->peer_relay(NodeKey{key}).route : std::nullopt;
            if (!via) return std::nullopt;
            return via->server;
        });
    wireguard_ = std::move(state);
    device_read_ = now;
    look_at_exit_node(now);
    if (engine_.guard().is_wanted()) {
        std::vector<Endpoint> in_force;
        for (const WireGuardPeerState& peer : wireguard_.peers)
            if (peer.endpoint) in_force.push_back(*peer.endpoint);
        engine_.guard().set_endpoints(now, std::move(in_force));
    }
    auto is_gone = [&](const NodeKey& key) { return netmap_.find(key) == nullptr; };
    std::erase_if(announced_, [&](const auto& entry) { return is_gone(entry.first); });
    std::erase_if(last_write_, [&](const auto& entry) { return is_gone(entry.first); });
    std::erase_if(greeted_, [&](const auto& entry) { return is_gone(entry.first); });
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
    look_for_sleep(); // from now on
    for (;;) {
        bool contested = paths_ && paths_->book().is_contested(reactor_.now());
        co_await reactor_.sleep(contested ? Duration{kLookCloser} : Duration{kLookEvery});
        if (!*alive) co_return;
        look_for_sleep();
        give_memory_back();
        dns_.look();
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
        if (netmap_.self_expired(WallTime::now())) update_state();
        if (reactor_.now() - checked_ < kCheckEvery) continue;
        checked_ = reactor_.now();
        if (auto intact = engine_.check(); !intact) {
            log::warn("repairing", {{"error", intact.error()}});
            wake_engine();
        }
    }
}

} // namespace tailrace
