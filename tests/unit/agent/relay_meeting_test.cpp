// Two nodes and a relay server, all in bytes: who asks, who calls, and how both come to use it.
#include "agent/path/peer_relays.hpp"
#include "agent/path/relay_servers.hpp"
#include "agent/peer_relay/relay_sessions.hpp"
#include "proto/geneve.hpp"

#include <gtest/gtest.h>

#include <deque>
#include <random>

namespace tailrace {
namespace {

using namespace std::chrono_literals;

constexpr TimePoint kMeetingBegins = TimePoint{} + 1h;
constexpr std::uint32_t kMeetingVni = 1; // the first of a server
const Endpoint kMeetingPoint = *Endpoint::parse("203.0.113.5:40000");

NodeKey node_named(int number) {
    return NodeKey{std::array<std::byte, 32>{std::byte(number)}};
}

class Meeting : public testing::Test {
protected:
    /// One of the two, at an address of a NAT.
    struct Side {
        Side(int number, const char* at) : node(node_named(number)), address(*Endpoint::parse(at)) {}
        NodeKey node;
        Endpoint address;
        DiscoPrivateKey key = DiscoPrivateKey::generate();
        Side* other = nullptr;
        std::optional<PeerRelays> relays;
        unsigned last_id = 0;
        int asked = 0, called = 0;
    };
    struct Underway {
        Side* to; ///< null: the server
        Endpoint from;
        Bytes data;
    };

    Meeting() {
        for (Side* side : {&alice_, &bob_}) {
            side->other = side == &alice_ ? &bob_ : &alice_;
            side->relays.emplace(side->key.public_key(), facts_of(*side));
            side->relays->set_enabled(kMeetingBegins, true);
            side->relays->set_peers(kMeetingBegins, {side->other->node}, {server_node_});
        }
    }
    PeerRelays::Facts facts_of(Side& side) {
        Side* self = &side;
        return {[](TimePoint, const NodeKey&) { return false; },
                [self](const NodeKey& node) -> std::optional<DiscoKey> {
                    if (node == self->other->node) return self->other->key.public_key();
                    return std::nullopt;
                },
                [self](const DiscoKey& key) -> std::optional<NodeKey> {
                    if (key == self->other->key.public_key()) return self->other->node;
                    return std::nullopt;
                },
                [self] {
                    DiscoTxId id{};
                    id[0] = static_cast<std::byte>(++self->last_id);
                    return id;
                }};
    }
    void send(Side& side, const DiscoKey& to, const RelayRoute& via, const DiscoMessage& message) {
        Bytes sealed = DiscoBox::between(side.key, to)->seal(message);
        bool control = std::holds_alternative<DiscoRelayHandshake>(message);
        underway_.push_back(
            {nullptr, side.address, write_geneve({GenevePacket::Protocol::Disco, control, via.vni, sealed})});
    }
    DiscoRelayEndpoint allocate(Side& side, const DiscoAllocateRequest& request) {
        auto endpoint = server_.allocate(now_, request, side.key.public_key());
        EXPECT_TRUE(endpoint);
        endpoint->addresses = {kMeetingPoint};
        return *endpoint;
    }
    /// What the server sends because of a datagram, and to whom.
    std::optional<std::pair<Endpoint, Bytes>> serve(const Endpoint& from, BytesView datagram) {
        auto packet = parse_geneve(datagram);
        if (!packet) return std::nullopt;
        const RelayedPlace place{from, kMeetingPoint.address};
        if (!packet->control) {
            auto to = server_.on_data(now_, packet->vni, place, 1, datagram.size());
            return to ? std::optional{std::pair{to->client, to_bytes(datagram)}} : std::nullopt;
        }
        Bytes answer = server_.on_control(now_, packet->vni, packet->payload, place);
        if (answer.empty()) return std::nullopt;
        return std::pair{from, write_geneve({GenevePacket::Protocol::Disco, true, packet->vni, answer})};
    }
    void carry(Side& side) {
        for (const PeerRelayAction& action : side.relays->take_actions()) {
            if (const auto* ask = std::get_if<AskRelayServer>(&action)) {
                ++side.asked;
                if (server_lives_)
                    side.relays->on_allocated(now_, ask->server,
                                              {ask->request.generation, allocate(side, ask->request)});
            } else if (const auto* call = std::get_if<CallVia>(&action)) {
                ++side.called;
                side.other->relays->on_call(now_, side.node, call->endpoint);
            } else if (const auto* shake = std::get_if<ShakeWithRelay>(&action)) {
                send(side, shake->server, shake->to, shake->message);
            } else if (const auto* ping = std::get_if<PingVia>(&action)) {
                send(side, ping->disco, ping->to, DiscoPing{ping->id, side.node});
            } else if (const auto* pong = std::get_if<PongVia>(&action)) {
                send(side, pong->disco, pong->to, DiscoPong{pong->id, pong->to.server});
            }
        }
    }
    void deliver(Side& side, const Endpoint& from, BytesView datagram) {
        auto packet = parse_geneve(datagram);
        ASSERT_TRUE(packet);
        const RelayRoute via{from, packet->vni};
        if (packet->protocol == GenevePacket::Protocol::WireGuard) {
            if (side.relays->on_data(now_, via) == side.other->node) arrived_.push_back(to_bytes(packet->payload));
            return;
        }
        const DiscoKey sender = disco_sender(packet->payload);
        auto message = DiscoBox::between(side.key, sender)->open(packet->payload);
        ASSERT_TRUE(message);
        if (const auto* handshake = std::get_if<DiscoRelayHandshake>(&*message))
            side.relays->on_challenge(now_, sender, via, *handshake);
        else if (const auto* ping = std::get_if<DiscoPing>(&*message))
            side.relays->on_ping(now_, sender, ping->tx_id, via);
        else if (const auto* pong = std::get_if<DiscoPong>(&*message))
            side.relays->on_pong(now_, sender, pong->tx_id, via);
    }
    /// In steps of 100 ms. So many of a hundred datagrams to the server do not get there.
    void pass(Duration how_long, unsigned lost_percent = 0) {
        for (TimePoint end = now_ + how_long; now_ <= end; now_ += 100ms) {
            for (Side* side : {&alice_, &bob_}) {
                if (side == &alice_) side->relays->on_wish(now_, side->other->node);
                side->relays->on_timer(now_);
            }
            do {
                carry(alice_);
                carry(bob_);
                auto datagrams = std::exchange(underway_, {});
                for (const Underway& one : datagrams) {
                    if (one.to != nullptr) {
                        deliver(*one.to, one.from, one.data);
                        continue;
                    }
                    if (!server_lives_ || dice_() % 100 < lost_percent) continue;
                    if (auto sent = serve(one.from, one.data))
                        underway_.push_back(
                            {sent->first == alice_.address ? &alice_ : &bob_, kMeetingPoint, sent->second});
                }
            } while (!underway_.empty() || alice_.relays->has_actions() || bob_.relays->has_actions());
        }
    }
    bool both_met() const {
        const RelayRoute via{kMeetingPoint, kMeetingVni};
        return alice_.relays->route(now_, bob_.node) == via && bob_.relays->route(now_, alice_.node) == via;
    }

    const NodeKey server_node_ = node_named(9);
    RelaySessions server_{DiscoPrivateKey::generate()};
    bool server_lives_ = true;
    TimePoint now_ = kMeetingBegins;
    Side alice_{1, "198.51.100.1:1111"}, bob_{2, "198.51.100.2:2222"};
    std::deque<Underway> underway_;
    std::vector<Bytes> arrived_;
    std::mt19937 dice_{7}; // the same each time
};

TEST_F(Meeting, OneThatTalksBringsBothThere) {
    pass(200ms);
    EXPECT_TRUE(both_met());
    EXPECT_EQ(alice_.asked, 1);
    EXPECT_EQ(alice_.called, 1);
    EXPECT_EQ(bob_.asked, 0) << "who is silent asks nobody";
    const Bytes packet(100, std::byte{4});
    Bytes datagram = write_geneve({GenevePacket::Protocol::WireGuard, false, kMeetingVni, packet});
    auto sent = serve(alice_.address, datagram);
    ASSERT_TRUE(sent);
    EXPECT_EQ(sent->first, bob_.address);
    deliver(bob_, kMeetingPoint, sent->second);
    deliver(bob_, *Endpoint::parse("203.0.113.6:40000"), sent->second); // from elsewhere
    EXPECT_EQ(arrived_, std::vector<Bytes>{packet});
}

TEST_F(Meeting, LostDatagramsDelayItOnly) {
    int seconds = 0;
    while (!both_met() && seconds++ < 100) pass(900ms, 40);
    EXPECT_TRUE(both_met()) << seconds;
    EXPECT_LE(alice_.asked, 2 * 4) << "twice each half a minute";
}

TEST_F(Meeting, AServerThatDiesIsLeftAndComesBackInTime) {
    pass(1s);
    ASSERT_TRUE(alice_.relays->route(now_, bob_.node));
    server_lives_ = false;
    pass(PeerRelays::kTrustFor);
    EXPECT_FALSE(alice_.relays->route(now_, bob_.node));
    server_lives_ = true;
    pass(4s);
    EXPECT_TRUE(alice_.relays->route(now_, bob_.node));
}

wire::Node tailnet_node(int number, const char* address, std::vector<std::string> caps = {}) {
    wire::Node node;
    node.id = number;
    node.key = node_named(number);
    node.disco_key = DiscoKey{std::array<std::byte, 32>{std::byte(number)}};
    node.addresses = {*IpPrefix::parse(std::string{address} + "/32")};
    node.cap = 131;
    node.home_derp = 900;
    for (const std::string& cap : caps) node.cap_map[cap];
    return node;
}

Netmap tailnet(std::vector<std::string> our_caps, std::vector<wire::Node> peers) {
    wire::MapResponse response;
    response.node = tailnet_node(1, "100.64.0.1", std::move(our_caps));
    response.peers = std::move(peers);
    wire::FilterRule rule;
    rule.src_ips = {"100.64.0.5", "100.64.0.6-100.64.0.8"};
    wire::CapGrant grant;
    grant.dsts = {"100.64.0.1/32"};
    grant.cap_map["tailscale.com/cap/relay-target"];
    grant.cap_map["tailscale.com/cap/relay"];
    rule.cap_grant = {grant};
    wire::FilterRule other;
    other.src_ips = {"*"};
    other.cap_grant = {grant};
    other.cap_grant[0].dsts = {"100.64.0.99/32"};
    response.packet_filter = std::vector<wire::FilterRule>{rule, other};
    Netmap netmap;
    EXPECT_TRUE(netmap.apply(response, WallTime::from_unix(1'800'000'000)));
    return netmap;
}

TEST(RelayServers, AreThoseThatThePolicyNamesAndThatKnowHow) {
    auto old = tailnet_node(7, "100.64.0.7");
    old.cap = 120;
    auto homeless = tailnet_node(8, "100.64.0.8");
    homeless.home_derp = 0;
    auto found = find_relay_servers(tailnet({}, {tailnet_node(4, "100.64.0.4"), tailnet_node(5, "100.64.0.5"),
                                                 tailnet_node(6, "100.64.0.6"), old, homeless}));
    EXPECT_TRUE(found.enabled);
    EXPECT_EQ(found.servers, (std::vector<NodeKey>{node_named(5), node_named(6)}));
    EXPECT_EQ(found.capable, (std::set<NodeKey>{node_named(4), node_named(5), node_named(6), node_named(8)}));
    for (const char* forbids : {"disable-relay-client", "only-tcp-443"})
        EXPECT_FALSE(find_relay_servers(tailnet({forbids}, {tailnet_node(5, "100.64.0.5")})).enabled);
}

TEST(RelayServers, MayBeAskedByWhomThePolicyNames) {
    auto homeless = tailnet_node(8, "100.64.0.8");
    homeless.home_derp = 0;
    auto found =
        find_relay_clients(tailnet({}, {tailnet_node(4, "100.64.0.4"), tailnet_node(5, "100.64.0.5"), homeless}));
    EXPECT_EQ(found, (std::set<NodeKey>{node_named(5), node_named(8)}));
    for (const char* forbids : {"disable-relay-server", "only-tcp-443"})
        EXPECT_TRUE(find_relay_clients(tailnet({forbids}, {tailnet_node(5, "100.64.0.5")})).empty());
}

} // namespace
} // namespace tailrace
