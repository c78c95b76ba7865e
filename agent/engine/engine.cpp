#include "agent/engine/engine.hpp"
#include "agent/engine/explanation.hpp"
#include "agent/engine/packet_filter.hpp"
#include "base/log.hpp"
#include "netlink/silent_rules.hpp"

#include <algorithm>
#include <set>

namespace tailrace {
Engine::Engine(Reactor& reactor, EngineOptions options)
    : reactor_(reactor), options_(std::move(options)), guard_(options_.device, options_.schema, options_.guard),
      source_checks_(SourceChecks::paths_of(options_.device)) {}
Engine::~Engine() = default;

Result<void> Engine::ensure_device() {
    if (!links_) {
        auto links = Links::open();
        if (!links) return links.error();
        links_.emplace(std::move(*links));
    }
    auto link = links_->find(options_.device);
    if (!link) return link.error();
    if (!*link) device_.reset(); // somebody removed it
    if (!device_) {
        auto opened = open_wireguard(options_.device, options_.wireguard);
        if (!opened) return opened.error();
        device_ = std::move(opened->device);
        const bool adopted = opened->how == OpenedWireGuard::How::Adopted;
        device_made_ = adopted ? std::nullopt : std::optional{reactor_.now()};
        log::info(adopted ? "WireGuard device adopted" : "WireGuard device made",
                  {{"device", options_.device}, {"kind", text(device_->kind())}});
        filter_.reset();
        link = links_->find(options_.device);
        if (!link) return link.error();
        if (!*link) return Error::make("{} vanished as soon as it was made", options_.device);
    }
    if ((*link)->index != index_) {
        index_ = (*link)->index;
        filter_.reset();
    }
    if ((*link)->mtu != kMtu)
        if (auto set = links_->set_mtu(index_, kMtu); !set) return set.error();
    return {};
}

Result<void> Engine::apply_peers(const EngineConfig& config, const WireGuardState& state, bool additions) {
    WireGuardConfig wanted;
    wanted.private_key = config.node_key.secret();
    wanted.listen_port = options_.port;
    wanted.fwmark = kMark;
    std::set<WireGuardKey> reachable;
    for (const WireGuardPeerState& peer : state.peers)
        if (peer.endpoint) reachable.insert(peer.public_key);
    for (const WantedPeer& peer : config.wanted.peers) {
        WireGuardPeer entry;
        entry.public_key = peer.key.raw();
        entry.allowed_ips = peer.allowed_ips;
        if (!reachable.contains(entry.public_key) && disco_ != nullptr)
            entry.endpoint = disco_->book().endpoint(peer.key);
        wanted.peers.push_back(std::move(entry));
    }
    WireGuardChanges changes = diff(state, wanted);
    if (!additions) {
        std::erase_if(changes.peers, [](const WireGuardPeerChange& change) {
            return change.kind != WireGuardPeerChange::Kind::Remove;
        });
    }
    if (changes.empty()) return {};
    return device_->apply(changes);
}

Task<Result<void>> Engine::reconcile(EngineConfig config) {
    complete_ = true;
    const std::uint64_t closures = closures_;
    if (!backstop_) {
        auto made = Backstop::create(options_.device, PacketFilter::passed_mark());
        if (!made) co_return made.error();
        backstop_.emplace(std::move(*made));
    }
    auto held = backstop_->ensure();
    if (!held) co_return held.error().with("backstop");
    if (auto device = ensure_device(); !device) co_return device.error();
    if (!filter_) {
        auto opened = PacketFilter::open(reactor_, options_.device, options_.schema, options_.attach);
        if (!opened) co_return opened.error();
        filter_ = std::move(*opened);
        committed_filter_ = 0;
    } else if (auto repaired = filter_->keep_attached(); !repaired) {
        co_return repaired.error();
    }

    // Before anybody is pinged: what an agent before us left steers answers to its sockets. Peers are reached without,
    // too.
    Result<void> steered;
    if (disco_ != nullptr) steered = steer(*disco_);

    auto state = device_->read();
    if (!state) co_return state.error();
    if (disco_ != nullptr)
        for (const WireGuardPeerState& peer : state->peers)
            if (peer.endpoint)
                disco_->book().on_kernel_endpoint(reactor_.now(), NodeKey{peer.public_key}, *peer.endpoint);
    if (auto removed = apply_peers(config, *state, false); !removed) co_return removed.error();
    if (committed_filter_ == 0 || committed_filter_ != config.filter_version) {
        auto committed = co_await filter_->commit(config.filter);
        if (!committed) co_return committed.error().with("put the packet filter in force");
        warnings_ = *committed;
        committed_filter_ = config.filter_version;
        if (!filter_->is_whole()) {
            committed_filter_ = 0;
            complete_ = false;
        }
    }
    auto translated = filter_->translate(config.wanted.via);
    // Before there is a peer whose packets are forwarded.
    if (auto forwarding = apply_forwarding(config.wanted); !forwarding) co_return forwarding.error();
    if (!translated) {
        complete_ = false;
        forwarding_warnings_.push_back(
            fmt::format("Packets for 4via6 routes are dropped, they cannot be translated: {}", translated.error()));
    }
    state = device_->read();
    if (!state) co_return state.error();
    if (auto added = apply_peers(config, *state, true); !added) co_return added.error();
    if (auto up = links_->set_state(index_, LinkState::Up); !up) {
        if (up.error().code() == EADDRINUSE)
            co_return Error::make(
                "UDP port {} is in use by another program; choose another with --port, or stop that program",
                options_.port);
        co_return up.error();
    }
    if (closures_ != closures) { // while the filter was written: the routes of this round would open what was closed
        complete_ = false;
        co_return Result<void>{};
    }
    if (auto router = ensure_router(); !router) co_return router.error();
    auto routed = router_->reconcile(config.wanted.router);
    if (!routed) co_return routed.error();
    if (!steered) co_return steered.error();
    keep_guard();
    co_return Result<void>{};
}

Result<void> Engine::ensure_router() {
    if (router_) return {};
    auto router = Router::create(options_.device);
    if (!router) return router.error();
    router_.emplace(std::move(*router));
    return {};
}

Result<void> Engine::close(const std::vector<IpPrefix>& throw_routes) {
    ++closures_;
    if (auto router = ensure_router(); !router) return router;
    return router_->close(throw_routes);
}

Result<void> Engine::apply_forwarding(const Wanted& wanted) {
    ForwardingConfig config = wanted.forwarding;
    config.port = options_.port;
    notes_ = wanted.notes;
    if (!forwarding_) {
        auto made = Forwarding::create(options_.device);
        if (!made) return made.error();
        forwarding_.emplace(std::move(*made));
    }
    auto warnings = forwarding_->reconcile(config);
    if (!warnings) warnings = forwarding_->reconcile(config); // what passes by itself is not worth a gap
    if (!warnings) {
        complete_ = false;
        forwarding_warnings_ = {warnings.error().message()};
        if (forwarding_->stands() || config.mode != ForwardingMode::On) return {};
        auto refused = fast_path_ ? fast_path_->remove() : Result<void>{}; // its flows would not ask
        if (refused) refused = forwarding_->refuse();
        if (!refused)
            return warnings.error().with("forwarding, which cannot be refused either ({})", refused.error().message());
        forwarding_warnings_ = {fmt::format(
            "Nothing is forwarded between the tailnet and other networks, as the rules for it cannot be made "
            "({}): see \"tailrace doctor\" for what this kernel lacks; all else works.",
            warnings.error().message())};
        return {};
    }
    forwarding_warnings_ = std::move(*warnings);
    if (config.keep_marks) (void)source_checks_.use_marks(); // best effort: where it matters, doctor says so
    apply_fast_path(config);
    return {};
}

void Engine::apply_fast_path(const ForwardingConfig& config) {
    // Connection tracking is what it saves, and what it needs: where nothing asks for it, plain forwarding is cheaper.
    const bool tracked = config.masquerade || config.stateful;
    if (!options_.fast_path || !config.routes || !tracked || config.mode != ForwardingMode::On) {
        if (fast_path_)
            if (auto removed = fast_path_->remove(); !removed) no_fast_path(removed.error());
        return;
    }
    if (!fast_path_) {
        auto made = FastPath::create(options_.device, PacketFilter::passed_mark());
        if (!made) return no_fast_path(made.error());
        fast_path_.emplace(std::move(*made));
    }
    auto silent = find_silent_rules();
    if (!silent) return leave_fast_path(silent.error());
    if (!silent->empty())
        return leave_fast_path(
            Error::make("there are {}: nobody tells when what they forbid changes", *silent).with("fast path"));
    auto all = links();
    if (!all) return leave_fast_path(all.error());
    std::vector<std::string> interfaces;
    for (const Link& link : *all)
        if (link.up && !link.loopback && link.name != options_.device && !link.addresses.empty())
            interfaces.push_back(link.name);
    std::ranges::sort(interfaces);
    const bool before = fast_path_->in_force();
    if (auto used = fast_path_->use(interfaces, index_); !used) return no_fast_path(used.error());
    fast_path_trouble_.clear();
    if (!before) log::info("forwarded flows have a fast path", {});
}

/// There is none from now on.
void Engine::leave_fast_path(const Error& why) {
    auto removed = fast_path_->remove();
    no_fast_path(removed ? why : removed.error());
}

void Engine::no_fast_path(const Error& error) {
    // Without a code it is the host's rules that stand in the way, and of those we hear.
    if (error.code() != 0 && !FastPath::is_not_supported(error)) complete_ = false;
    if (error.message() == fast_path_trouble_) return;
    fast_path_trouble_ = error.message();
    log::info("forwarded flows go the usual way", {{"error", error}});
}

bool Engine::end_fast_flows() {
    auto ended = fast_path_ ? fast_path_->end_flows() : Result<void>{};
    if (!ended) no_fast_path(ended.error());
    return static_cast<bool>(ended);
}

Result<void> Engine::steer(DiscoLoop& disco) {
    constexpr auto kTryAgainAfter = std::chrono::seconds{1};
    constexpr auto kTryAgainAtLeastEvery = std::chrono::minutes{1};
    if (!filter_) return {};
    TimePoint now = reactor_.now();
    if (steer_again_ && now < *steer_again_) {
        complete_ = false;
        return {};
    }
    auto all = links();
    if (!all) return all.error();
    Result<void> steered;
    if (options_.steering == SteeringChoice::Socket)
        steered = Error::make("--steering socket was given");
    else
        steered = filter_->steer({options_.port, disco.port4(), disco.port6()}, *all);
    if (steered) {
        if (!steering_trouble_.empty()) log::info("the steering program is in use again", {});
        steering_trouble_.clear();
        steer_again_.reset();
        steer_wait_ = {};
        disco.stop_listening_raw();
        return {};
    }
    if (auto listening = disco.listen_raw(); !listening)
        return Error::make("disco and STUN cannot be received: no steering program ({}), no raw sockets ({})",
                           steered.error().message(), listening.error().message());
    std::string trouble = steered.error().message();
    if (trouble != steering_trouble_)
        log::warn("no steering program; disco and STUN are received by raw sockets", {{"error", trouble}});
    steering_trouble_ = std::move(trouble);
    if (options_.steering == SteeringChoice::Socket) return {};
    steer_wait_ = std::clamp<Duration>(steer_wait_ * 2, kTryAgainAfter, kTryAgainAtLeastEvery);
    steer_again_ = now + steer_wait_;
    complete_ = false;
    return {};
}

void Engine::keep_guard() {
    auto all = links();
    if (!all) return log::warn("the guard was not looked after", {{"error", all.error()}});
    guard_.keep(reactor_.now(), options_.port, *all);
}

std::vector<std::string> Engine::warnings() const {
    std::vector<std::string> out = warnings_;
    out.insert(out.end(), notes_.begin(), notes_.end());
    out.insert(out.end(), forwarding_warnings_.begin(), forwarding_warnings_.end());
    if (!steering_trouble_.empty())
        out.push_back(
            fmt::format("The steering program is not in use ({}); disco and STUN are received by raw sockets: "
                        "everything works, but each UDP datagram to this host costs more.",
                        steering_trouble_));
    for (std::string& warning : guard_.warnings()) out.push_back(std::move(warning));
    return out;
}

Result<void> Engine::move_ports(const std::vector<PortMove>& moves) {
    if (!filter_) return Error::make("no port can be moved while the packet filter is not there");
    return filter_->move_ports(moves);
}

Result<std::vector<PortMove>> Engine::moved_ports() const {
    if (!filter_) return std::vector<PortMove>{};
    return filter_->moved_ports();
}

Result<std::vector<Link>> Engine::links() {
    if (!links_) {
        auto opened = Links::open();
        if (!opened) return opened.error();
        links_.emplace(std::move(*opened));
    }
    return links_->list();
}

Task<Result<void>> Engine::down(std::optional<std::vector<IpPrefix>> closed_but_for) {
    std::vector<std::string> problems;
    auto note = [&](const Result<void>& outcome) {
        if (!outcome) problems.push_back(outcome.error().message());
    };
    if (ensure_router()) {
        if (closed_but_for) note(router_->close(*closed_but_for));
        note(router_->remove(closed_but_for.value_or(std::vector<IpPrefix>{}), closed_but_for.has_value()));
    }
    router_.reset();
    if (!device_) {
        auto found = find_wireguard(options_.device);
        if (!found && found.error().code() != 0) co_return found.error();
        if (found)
            device_ = std::move(*found);
        else
            note(found.error()); // a device of that name that is not ours
    }
    // While the device is there, what judges its packets stays.
    if (auto removed = device_ ? device_->remove() : Result<void>{}; !removed) co_return removed.error();
    device_.reset();
    index_ = 0;
    if (!forwarding_)
        if (auto made = Forwarding::create(options_.device)) forwarding_.emplace(std::move(*made));
    if (fast_path_) note(fast_path_->remove());
    fast_path_.reset();
    if (forwarding_) note(forwarding_->remove());
    forwarding_.reset();
    forwarding_warnings_.clear();
    notes_.clear();
    filter_.reset();
    steer_again_.reset();
    note(PacketFilter::remove(options_.device, options_.schema));
    note(guard_.remove());
    committed_filter_ = 0;
    if (!backstop_) {
        auto made = Backstop::create(options_.device, PacketFilter::passed_mark());
        if (made) backstop_.emplace(std::move(*made));
    }
    if (backstop_) note(backstop_->remove());
    backstop_.reset();
    note(source_checks_.give_back());
    if (!problems.empty()) co_return Error::make("{}", problems.front());
    co_return Result<void>{};
}

Result<WireGuardState> Engine::read() {
    if (!device_) return Error::make("{} does not exist", options_.device);
    return device_->read();
}

Result<void> Engine::check() {
    if (backstop_) {
        auto state = backstop_->check();
        if (!state) return state.error();
        if (!state->intact) return Error::make("the backstop was changed: {}", state->reason);
    }
    if (filter_ && steering_trouble_.empty() && !filter_->is_steering())
        return Error::make("the steering program was detached from an interface");
    if (filter_ && !filter_->is_attached())
        return Error::make("the packet programs were detached from {}", options_.device);
    if (has_fast_path())
        if (auto legacy = find_legacy_tables(); !legacy.empty()) return Error::make("there are {} now", legacy);
    return guard_.check();
}

Result<void> Engine::use_endpoints(const std::vector<UseEndpoint>& endpoints) {
    for (const UseEndpoint& use : endpoints) guard_.heard(reactor_.now(), use.endpoint);
    if (!device_) return {};
    WireGuardChanges changes;
    for (const UseEndpoint& use : endpoints) {
        WireGuardPeerChange change;
        change.kind = WireGuardPeerChange::Kind::Update;
        change.public_key = use.peer.raw();
        change.endpoint = use.endpoint;
        changes.peers.push_back(std::move(change));
    }
    return device_->apply(changes);
}

Result<std::string> Engine::explain_json(const PacketQuestion& question, const std::vector<std::string>& source_caps,
                                         const std::vector<KnownRule>& rules) {
    if (!filter_) return Error::make("no packet filter is in force: run \"tailrace up\" first");
    auto answer = filter_->ask(question);
    if (!answer) return answer.error();
    return write_explanation(question, *answer, filter_->index_of(answer->rule), source_caps, rules);
}

std::string Engine::drops_json() {
    std::string out = filter_ ? filter_->counters_json() : R"({"Reasons":[]})";
    if (std::string guarded = guard_.counters_json(); !guarded.empty())
        out.insert(out.size() - 1, ",\"Guard\":" + guarded);
    return out;
}

} // namespace tailrace
