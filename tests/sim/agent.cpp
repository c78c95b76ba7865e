#include "base/random.hpp"
#include "proto/stun.hpp"
#include "tests/sim/tailnet.hpp"

#include <gtest/gtest.h>

namespace tailrace::sim {
namespace {

constexpr std::byte kTransport{4}; // first byte of a WireGuard data message

} // namespace

Agent::Agent(World& world, Internet& internet, Control& control, std::string hostname, Endpoint socket, Nat* behind,
             Relays* relays)
    : world_(world), internet_(internet), control_(control), hostname_(std::move(hostname)), socket_(socket),
      behind_(behind), book_([] { return random_array<12>(); }), relays_(relays) {
    attach();
    look_at_device();
    if (relays_ == nullptr) return;
    choose_home();
    keep_measuring();
}

void Agent::attach() {
    internet_.attach(
        socket_, [this](const Endpoint& from, const Bytes& datagram) { receive(from, datagram); }, behind_);
}

void Agent::move_to(const Endpoint& socket, Nat* behind) {
    internet_.detach(socket_);
    socket_ = socket;
    behind_ = behind;
    attach();
    outside_.reset();
    measured_.reset();
    book_.on_network_change(world_.now());
    carry_out();
    report();
    measure();
}

void Agent::sleep() {
    if (std::exchange(asleep_, true)) return;
    internet_.detach(socket_);
    if (relays_ != nullptr) relays_->disconnect(key_);
    close_stream();
}

void Agent::wake() {
    if (!std::exchange(asleep_, false)) return;
    attach();
    choose_home();
    open_stream();
    measured_.reset();
    measure();
    book_.on_network_change(world_.now());
    book_.on_timer(world_.now());
    carry_out();
}

void Agent::kill() {
    killed_ = true;
    if (relays_ != nullptr) relays_->disconnect(key_);
    close_stream();
}

void Agent::start() {
    killed_ = false;
    adopts_ = true;
    disco_ = DiscoPrivateKey::generate();
    boxes_.clear();
    book_ = PathBook([] { return random_array<12>(); });
    choose_home();
    book_.set_relaying(world_.now(), relays_ != nullptr && relays_->is_alive(home_));
    report();
    control_.publish();
    open_stream();
}

/// Who was heard, as its counters say.
void Agent::look_at_device() {
    constexpr Duration kLooks = std::chrono::seconds{1};
    if (!asleep_ && !killed_) {
        for (const NodeKey& peer : heard_)
            if (auto known = kernel_.find(peer); known != kernel_.end())
                book_.on_data(looked_at_, world_.now(), peer, known->second);
        if (!heard_.empty()) carry_out();
        heard_.clear();
        looked_at_ = world_.now();
    }
    world_.after(kLooks, [this] { look_at_device(); });
}

// -- relays and STUN

void Agent::choose_home() {
    if (relays_ == nullptr || asleep_ || killed_) return;
    int home = home_;
    // The nearest one that lives: each agent has an order of its own.
    for (int i = 0; i < relays_->regions() && !relays_->is_alive(home); ++i)
        home = 1 + (static_cast<int>(socket_.port) + i) % relays_->regions();
    bool moved = std::exchange(home_, home) != home;
    relays_->connect(
        key_, home_, [this](int region, const NodeKey& from, const Bytes& packet) { on_relayed(region, from, packet); },
        [this] { choose_home(); });
    book_.set_relaying(world_.now(), relays_->is_alive(home_));
    carry_out();
    if (moved && id_ != 0) report();
}

void Agent::measure() {
    if (relays_ == nullptr || asleep_ || killed_) return;
    stun::TxId id{};
    internet_.send(socket_, relays_->stun(), to_bytes(stun::write_request(id)));
}

void Agent::keep_measuring() {
    constexpr Duration kPause = std::chrono::seconds{23};
    measure();
    world_.after(kPause, [this] { keep_measuring(); });
}

void Agent::call(const NodeKey& peer, const DiscoKey& disco) {
    constexpr Duration kFreshEnough = std::chrono::seconds{27};
    if (!measured_ || world_.now() - *measured_ > kFreshEnough) {
        waiting_calls_[peer] = disco;
        return measure();
    }
    DiscoCallMeMaybe message;
    if (outside_) message.endpoints.push_back(*outside_);
    message.endpoints.push_back(socket_);
    relay(peer, box(disco).seal(message));
}

Endpoint Agent::relayed_endpoint(NodeId id) const {
    constexpr std::uint32_t kRange = 0x7f400000; // 127.64.0.0
    return {IpAddress::v4(kRange + static_cast<std::uint32_t>(id)), socket_.port};
}

void Agent::relay(const NodeKey& to, Bytes packet) {
    const wire::Node* peer = netmap_.find(to);
    if (relays_ != nullptr && peer != nullptr) relays_->send(peer->home_derp, key_, to, std::move(packet));
}

void Agent::on_relayed(int region, const NodeKey& from, const Bytes& packet) {
    const wire::Node* peer = netmap_.find(from);
    if (asleep_ || peer == nullptr) return;
    if (looks_like_disco(packet)) {
        on_disco(relay_endpoint(region), from, packet);
    } else {
        book_.on_relayed_arrival(world_.now(), from);
        auto path = book_.state(world_.now(), from);
        on_packet(path.trusted ? *path.endpoint : relayed_endpoint(peer->id), packet);
    }
    carry_out();
}

void Relays::set_alive(int region, bool alive) {
    alive_[static_cast<std::size_t>(region) - 1] = alive;
    world_.after(latency_, [this] {
        auto clients = clients_; // who is told connects anew
        for (auto& [key, client] : clients) client.changed();
    });
}

void Relays::send(int region, const NodeKey& from, const NodeKey& to, Bytes packet) {
    if (!is_alive(region)) return;
    world_.after(latency_, [this, region, from, to, packet = std::move(packet)] {
        auto client = clients_.find(to);
        if (is_alive(region) && client != clients_.end() && client->second.home == region)
            client->second.receive(region, from, packet);
    });
}

// -- control

NodeId Agent::join(const std::string& auth_key) {
    wire::RegisterRequest request;
    request.version = 131;
    request.node_key = key_;
    request.hostinfo.value.hostname = hostname_;
    request.auth = wire::RegisterAuth{auth_key};
    auto response = control_.on_register(machine_, request);
    EXPECT_EQ(response.error, "");
    NodePtr node = control_.tailnet().node_by_key(key_);
    EXPECT_TRUE(node);
    id_ = node ? node->id() : 0;
    report();
    open_stream();
    return id_;
}

void Agent::report() {
    wire::MapRequest request;
    request.version = 131;
    request.node_key = key_;
    request.disco_key = disco_.public_key();
    request.endpoints = {socket_};
    request.endpoint_types = {static_cast<int>(wire::EndpointType::Local)};
    if (outside_ && *outside_ != socket_) {
        request.endpoints.push_back(*outside_);
        request.endpoint_types.push_back(static_cast<int>(wire::EndpointType::Stun));
    }
    request.hostinfo.value.hostname = hostname_;
    if (home_ != 0) request.hostinfo.value.net_info.emplace().preferred_derp = home_;
    control_.on_report(request);
}

void Agent::open_stream() {
    netmap_.begin_stream();
    reader_ = MapFrameReader{MapCompression::Zstd};
    wire::MapRequest request;
    request.version = 131;
    request.node_key = key_;
    request.stream = true;
    control_.open_stream(*this, request);
}

void Agent::close_stream() {
    control_.close_stream(id_);
}

void Agent::on_frame(const std::string& bytes) {
    reader_.feed(as_bytes(bytes));
    for (;;) {
        auto json = reader_.next();
        ASSERT_TRUE(json) << json.error().message();
        if (!*json) break;
        auto frame = wire::parse_map_response(**json);
        ASSERT_TRUE(frame) << frame.error().message();
        auto changes = netmap_.apply(std::move(*frame), world_.wall());
        ASSERT_TRUE(changes) << changes.error().message();
    }
    std::vector<PathBook::Peer> peers;
    for (const auto& [id, peer] : netmap_.peers())
        if (netmap_.peer_usable(peer, world_.wall())) {
            peers.push_back({peer.key, peer.disco_key, peer.endpoints, peer.home_derp, std::nullopt});
            if (relays_ != nullptr) peers.back().relayed = relayed_endpoint(id);
        }
    book_.set_peers(world_.now(), peers);
    if (std::exchange(adopts_, false))
        for (const auto& [peer, endpoint] : kernel_) book_.on_kernel_endpoint(world_.now(), peer, endpoint);
    std::erase_if(kernel_, [&](const auto& entry) { return netmap_.find(entry.first) == nullptr; });
    carry_out();
}

const DiscoBox& Agent::box(const DiscoKey& peer) {
    auto known = boxes_.find(peer);
    if (known == boxes_.end()) known = boxes_.emplace(peer, *DiscoBox::between(disco_, peer)).first;
    return known->second;
}

void Agent::receive(const Endpoint& from, const Bytes& datagram) {
    bool for_kernel = !looks_like_disco(datagram) && !stun::parse_response(datagram);
    if (killed_ && !for_kernel) return;
    if (auto answer = stun::parse_response(datagram)) {
        measured_ = world_.now();
        bool news = outside_ != answer->seen_from;
        outside_ = answer->seen_from;
        if (news && id_ != 0) report();
        for (const auto& [peer, disco] : std::exchange(waiting_calls_, {})) call(peer, disco);
    } else if (looks_like_disco(datagram)) {
        on_disco(from, NodeKey{}, datagram);
    } else {
        on_packet(from, datagram);
    }
    carry_out();
}

void Agent::on_disco(const Endpoint& from, const NodeKey& relayed_from, const Bytes& datagram) {
    DiscoKey sender = disco_sender(datagram);
    if (!book_.node_of(sender)) return;
    auto message = box(sender).open(datagram);
    ASSERT_TRUE(message) << message.error().message();
    if (const auto* ping = std::get_if<DiscoPing>(&*message))
        (void)book_.on_ping(world_.now(), sender, ping->node_key, ping->tx_id, from); // strangers get no answer
    else if (const auto* pong = std::get_if<DiscoPong>(&*message))
        book_.on_pong(world_.now(), sender, pong->tx_id, from);
    else if (const auto* call = std::get_if<DiscoCallMeMaybe>(&*message); call && !relayed_from.is_zero())
        book_.on_call_me_maybe(world_.now(), sender, relayed_from, call->endpoints);
}

void Agent::send_packet(const Agent& to) {
    auto known = kernel_.find(to.key());
    if (known == kernel_.end() || asleep_) return;
    Bytes packet{kTransport};
    packet.insert(packet.end(), key_.view().begin(), key_.view().end());
    if (relays_ != nullptr && known->second == relayed_endpoint(to.id())) {
        if (killed_) return;
        book_.on_relayed_packet(world_.now(), to.key());
        relay(to.key(), std::move(packet));
    } else {
        internet_.send(socket_, known->second, std::move(packet));
        if (!killed_) book_.on_traffic(world_.now(), to.key());
    }
    carry_out();
}

void Agent::on_packet(const Endpoint& from, BytesView packet) {
    ASSERT_EQ(packet.size(), 1 + NodeKey::kSize);
    std::array<std::byte, NodeKey::kSize> raw{};
    std::copy(packet.begin() + 1, packet.end(), raw.begin());
    NodeKey sender{raw};
    if (netmap_.find(sender) == nullptr) return; // no such peer in the device
    ++received_[sender];
    heard_.insert(sender);
    kernel_[sender] = from; // WireGuard follows what it can open
    if (!killed_) book_.on_kernel_endpoint(world_.now(), sender, from);
}

std::size_t Agent::packets_from(const Agent& from) const {
    auto counted = received_.find(from.key());
    return counted == received_.end() ? 0 : counted->second;
}

void Agent::carry_out() {
    if (killed_) return;
    for (const PathAction& action : book_.take_actions()) {
        if (const auto* ping = std::get_if<SendPing>(&action)) {
            DiscoPing message;
            message.tx_id = ping->id;
            message.node_key = key_;
            internet_.send(socket_, ping->to, box(ping->disco).seal(message));
        } else if (const auto* pong = std::get_if<SendPong>(&action)) {
            DiscoPong message;
            message.tx_id = pong->id;
            message.seen_from = pong->to;
            internet_.send(socket_, pong->to, box(pong->disco).seal(message));
        } else if (const auto* wish = std::get_if<SendCallMeMaybe>(&action)) {
            call(wish->peer, wish->disco);
        } else if (const auto* use = std::get_if<UseEndpoint>(&action)) {
            kernel_[use->peer] = use->endpoint;
        }
    }
    auto next = book_.next_timer();
    if (!next || (timer_ && *timer_ <= *next && *timer_ > world_.now())) return; // woken early enough
    timer_ = std::max(*next, world_.now() + std::chrono::milliseconds{1});
    world_.after(*timer_ - world_.now(), [this] {
        timer_.reset();
        if (asleep_ || killed_) return;
        book_.on_timer(world_.now());
        carry_out();
    });
}

} // namespace tailrace::sim
