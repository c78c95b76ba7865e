// How peers are reached: the paths engine and who asks it, pings and captures.
#include "agent/backend.hpp"
#include "agent/dataplane/steering.hpp"
#include "agent/engine/packet_filter.hpp"
#include "base/json/json.hpp"
#include "base/log.hpp"
#include "base/random.hpp"
#include "base/text.hpp"

#include <algorithm>

namespace tailrace {

namespace {

constexpr auto kRelayRetry = std::chrono::seconds{10};
const std::string kFoundPaths = "tailrace-found-paths"; // in the state file: by node key, past hard NATs

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

void Backend::relay_for_peers() {
    Paths::PeerRelaying wanted;
    if (!netmap_.self().has_cap("disable-relay-server") && !netmap_.self().has_cap("only-tcp-443"))
        wanted.port = prefs_.relay_server_port;
    wanted.named = prefs_.relay_server_static_endpoints.value_or(std::vector<Endpoint>{});
    if (wanted.port) wanted.clients = find_relay_clients(netmap_);
    if (!note_watch("relaying for peers", paths_->set_peer_relaying(std::move(wanted)))) wake_engine_later(kRelayRetry);
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
    callbacks.ping_answered_via = [this](const AnsweredVia& answer) {
        auto found = pending_pings_via_.find(answer.question);
        if (found == pending_pings_via_.end() || found->second->answer) return;
        found->second->answer = PingAnswered{answer.question, answer.peer, answer.route.server, answer.round_trip};
        found->second->via = answer.route;
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
    callbacks.keep_found = [this](const std::map<NodeKey, Endpoint>& paths) {
        auto kept = paths.empty() ? store_.erase({kFoundPaths}) : store_.set(kFoundPaths, json::write(paths));
        if (!kept) log::warn("the next agent will not know which paths were probed for", {{"error", kept.error()}});
    };
    Paths::Options options;
    options.wireguard_port = options_.engine.port;
    options.mark = Engine::kMark;
    options.mapping_nonce = mapping_nonce(machine_key_);
    options.static_endpoints = options_.static_endpoints;
    if (auto device = find_wireguard(options_.engine.device); device && *device)
        if (auto left = (*device)->read()) options.device = std::move(*left);
    auto made = Paths::create(reactor_, disco_key_, std::move(options), std::move(callbacks));
    if (!note_watch("find paths to peers", made ? Result<void>{} : made.error())) return;
    paths_ = std::move(*made);
    paths_->set_control_connected(in_map_poll_);
    engine_.set_disco(&paths_->disco());
    watch_disco_if_wanted();
    endpoints_.clear();
    refresh_endpoints();
}

/// None when what is in the store makes no sense: then it is a path like any other.
std::map<NodeKey, Endpoint> Backend::found_paths() const {
    auto text = store_.get(kFoundPaths);
    if (!text) return {};
    return json::parse<std::map<NodeKey, Endpoint>>(*text).value_or({});
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
/// first one comes; the next comes 5 s later. And who has a session with a device that is gone sends into it for 15 s.
/// So the first packet is one that nobody waits for. Not in large tailnets, where silence is worth more.
void Backend::shake_hands(const NodeKey& peer) {
    const wire::Node* node = netmap_.find(peer);
    const bool have_lost_sessions = peers_know_us_ && engine_.has_lost_sessions();
    if (paths_ && paths_->is_relaying() && !have_lost_sessions) return; // the relay carries the first handshake
    if (!inner_ping_ || node == nullptr || node->addresses.empty() || netmap_.peers().size() > kSmallTailnet) return;
    forget_gone_device();
    for (const WireGuardPeerState& known : wireguard_.peers)
        if (known.public_key == peer.raw() && known.last_handshake) return;
    if (std::exchange(greeted_[peer], engine_.device_index()) == engine_.device_index()) return;
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

Task<wire::PingResponse> Backend::on_ping_wanted(std::string type, IpAddress address) {
    PingResult result = co_await ping(address.text(), type, std::chrono::seconds{10}, 0);
    wire::PingResponse response;
    response.type = type;
    response.ip = result.ip;
    response.node_ip = result.node_ip;
    response.node_name = result.node_name;
    response.err = result.err;
    response.latency_seconds = result.latency_seconds;
    response.endpoint = result.endpoint;
    response.is_local_ip = result.is_local_ip;
    response.peer_relay = result.peer_relay;
    response.derp_region_id = result.derp_region_id;
    response.derp_region_code = result.derp_region_code;
    co_return response;
}

std::optional<PeerApiCaller> Backend::peer_api_caller(const IpAddress& from) {
    const wire::Node* node = netmap_.has_self() ? netmap_.owner_of(from) : nullptr;
    if (node == nullptr || node->id == netmap_.self().id) return std::nullopt;
    const wire::UserProfile* user = netmap_.user(node->user);
    return PeerApiCaller{node->name, user == nullptr ? std::string{} : user->display_name, from};
}

bool Backend::may_ask_names(const IpAddress& from) {
    const bool answers = prefs_.advertises_exit_node() || prefs_.app_connector.advertise;
    if (!answers || engine_.filter() == nullptr) return false;
    // These stand for the whole internet. Source: tailscale ipn/ipnlocal/peerapi.go.
    PacketQuestion question;
    question.source = from;
    question.destination = *IpAddress::parse(from.is_v6() ? "2000::" : "0.0.0.0");
    question.port = 53;
    auto answer = engine_.filter()->ask(question);
    return answer && answer->passes;
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

Task<PingResult> Backend::ping(std::string address_text, std::string type, Duration timeout, int size_bytes) {
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
            result.err = "the tunnel is not up: run \"tailrace up\" first";
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
    std::uint64_t via = paths_ ? paths_->ask_via(key) : 0; // the answer comes later
    std::uint64_t question = paths_ && via == 0 ? paths_->book().ask(reactor_.now(), key, size_bytes) : via;
    if (via != 0 && size_bytes != 0) {
        result.err = "the peer is reached through a peer relay, where pings have one size";
        co_return result;
    }
    if (question == 0) {
        result.err = "nothing is known of where this peer is";
        co_return result;
    }
    auto pending = std::make_shared<PendingPing>(reactor_);
    auto& waiting = via == 0 ? pending_pings_ : pending_pings_via_;
    waiting[question] = pending;
    paths_->carry_out();
    auto alive = alive_;
    if (!pending->answer) (void)co_await pending->answered.wait_for(timeout);
    if (!*alive) {
        result.err = "tailraced is stopping";
        co_return result;
    }
    waiting.erase(question);
    if (!pending->answer) {
        result.err = "timeout";
        co_return result;
    }
    if (pending->via) {
        result.peer_relay = pending->via->text();
    } else if (int region = relay_region(pending->answer->endpoint); region != 0) {
        result.derp_region_id = region;
        result.derp_region_code = paths_->relays().code_of(region);
    } else {
        result.endpoint = pending->answer->endpoint.text();
    }
    set_latency(pending->answer->round_trip);
    co_return result;
}

} // namespace tailrace
