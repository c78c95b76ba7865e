#include "base/random.hpp"
#include "tests/sim/tailnet.hpp"

#include <gtest/gtest.h>

namespace tailrace::sim {
namespace {

constexpr std::byte kTransport{4}; // first byte of a WireGuard data message

} // namespace

Agent::Agent(World& world, Internet& internet, Control& control, std::string hostname, Endpoint socket, Nat* behind)
    : world_(world), internet_(internet), control_(control), hostname_(std::move(hostname)), socket_(socket),
      behind_(behind), book_([] { return random_array<12>(); }) {
    attach();
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
    book_.on_network_change(world_.now());
    carry_out();
    report();
}

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
    request.hostinfo.value.hostname = hostname_;
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
        if (netmap_.peer_usable(peer, world_.wall())) peers.push_back({peer.key, peer.disco_key, peer.endpoints});
    book_.set_peers(world_.now(), peers);
    std::erase_if(kernel_, [&](const auto& entry) { return netmap_.find(entry.first) == nullptr; });
    carry_out();
}

const DiscoBox& Agent::box(const DiscoKey& peer) {
    auto known = boxes_.find(peer);
    if (known == boxes_.end()) known = boxes_.emplace(peer, *DiscoBox::between(disco_, peer)).first;
    return known->second;
}

void Agent::receive(const Endpoint& from, const Bytes& datagram) {
    if (!looks_like_disco(datagram)) {
        on_packet(from, datagram);
    } else if (DiscoKey sender = disco_sender(datagram); book_.node_of(sender)) {
        auto message = box(sender).open(datagram);
        ASSERT_TRUE(message) << message.error().message();
        if (const auto* ping = std::get_if<DiscoPing>(&*message))
            (void)book_.on_ping(world_.now(), sender, ping->node_key, ping->tx_id, from); // strangers get no answer
        else if (const auto* pong = std::get_if<DiscoPong>(&*message))
            book_.on_pong(world_.now(), sender, pong->tx_id, from);
    }
    carry_out();
}

void Agent::send_packet(const Agent& to) {
    auto known = kernel_.find(to.key());
    if (known == kernel_.end()) return;
    Bytes packet{kTransport};
    packet.insert(packet.end(), key_.view().begin(), key_.view().end());
    internet_.send(socket_, known->second, std::move(packet));
    book_.on_traffic(world_.now(), to.key());
    carry_out();
}

void Agent::on_packet(const Endpoint& from, BytesView packet) {
    ASSERT_EQ(packet.size(), 1 + NodeKey::kSize);
    std::array<std::byte, NodeKey::kSize> raw{};
    std::copy(packet.begin() + 1, packet.end(), raw.begin());
    NodeKey sender{raw};
    if (netmap_.find(sender) == nullptr) return; // no such peer in the device
    ++received_[sender];
    kernel_[sender] = from; // WireGuard follows what it can open
    book_.on_kernel_endpoint(world_.now(), sender, from);
}

std::size_t Agent::packets_from(const Agent& from) const {
    auto counted = received_.find(from.key());
    return counted == received_.end() ? 0 : counted->second;
}

void Agent::carry_out() {
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
        } else if (const auto* use = std::get_if<UseEndpoint>(&action)) {
            kernel_[use->peer] = use->endpoint;
        }
    }
    auto next = book_.next_timer();
    if (!next || (timer_ && *timer_ <= *next && *timer_ > world_.now())) return; // woken early enough
    timer_ = std::max(*next, world_.now() + std::chrono::milliseconds{1});
    world_.after(*timer_ - world_.now(), [this] {
        timer_.reset();
        book_.on_timer(world_.now());
        carry_out();
    });
}

} // namespace tailrace::sim
