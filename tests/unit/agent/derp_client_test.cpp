// Our side of relays, against a real relay and against one that lies. Numbers: derp-disco-paths.md 8.
#include "agent/coordination/backoff.hpp"
#include "agent/relay/derp_client.hpp"
#include "agent/relay/relay_dial.hpp"
#include "relay/core/core.hpp"
#include "tests/fakes/fake_relay.hpp"
#include "tests/fakes/run_task.hpp"

#include <gmock/gmock.h>
#include <sys/socket.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;
using derp::FrameType;
using testing::ElementsAre;
using testing::IsEmpty;

const NodeKey kPeer{std::array<std::byte, 32>{std::byte{1}}};
const NodeKey kStranger{std::array<std::byte, 32>{std::byte{2}}};

wire::DerpMap map_of(std::map<int, std::vector<wire::DerpNode>> regions) {
    wire::DerpMap map;
    map.regions.emplace();
    for (auto& [number, nodes] : regions) {
        wire::DerpRegion region;
        region.region_id = number;
        region.region_code = fmt::format("r{}", number);
        region.nodes = std::move(nodes);
        (*map.regions)[number] = region;
    }
    return map;
}

Bytes from_key(const NodeKey& key, std::string_view text) {
    Bytes out = to_bytes(key.view());
    out.insert(out.end(), as_bytes(text).begin(), as_bytes(text).end());
    return out;
}

/// A client that knows one peer, and what it was told.
struct Node {
    explicit Node(Reactor& reactor, const DerpClient::Pace& pace = {})
        : client(reactor, 0,
                 {[this](int region, const NodeKey& from, BytesView packet) {
                      packets.emplace_back(region, std::string{as_chars(packet)});
                      return from != kStranger;
                  },
                  [this](int region, bool connected) { changes.emplace_back(region, connected); }},
                 pace) {
        client.set_identity(key);
    }
    NodePrivateKey key = NodePrivateKey::generate();
    std::vector<std::pair<int, std::string>> packets;
    std::vector<std::pair<int, bool>> changes;
    DerpClient client;
};

/// The real relay, with its thread, on a loopback port.
class RealRelay {
public:
    RealRelay() : identity_(*make_self_signed({"127.0.0.1"})) {
        shared_.settings.key = NodePrivateKey::generate();
        shared_.settings.public_key = shared_.settings.key.public_key();
        shared_.metrics = [] { return std::string{}; };
        shared_.rings.resize(1);
        shared_.rings[0].push_back(nullptr);
        shared_.cores.push_back(std::move(*relay::Core::create(shared_, 0)));
        int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        sockaddr_storage address{};
        socklen_t length = Endpoint::parse("127.0.0.1:0")->to_sockaddr(address);
        EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), length), 0);
        EXPECT_EQ(::listen(fd, 16), 0);
        length = sizeof address;
        EXPECT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length), 0);
        port_ = Endpoint::from_sockaddr(reinterpret_cast<sockaddr*>(&address)).port;
        auto tls = relay::relay_tls(identity_, shared_.settings.public_key);
        shared_.cores[0]->start();
        shared_.cores[0]->post([fd, tls](relay::Core& core) {
            core.set_tls(*tls);
            EXPECT_TRUE(core.add_listener(Fd{fd}, relay::Door::Derp, true));
        });
    }
    ~RealRelay() {
        shared_.cores[0]->post([](relay::Core& core) { core.stop(); });
        shared_.cores[0]->join();
    }
    wire::DerpNode node() const {
        wire::DerpNode out;
        out.name = "real";
        out.host_name = "127.0.0.1";
        out.derp_port = port_;
        out.cert_name = *certificate_pin(identity_.certificate);
        return out;
    }

private:
    TlsIdentity identity_;
    relay::Shared shared_;
    int port_ = 0;
};

TEST(DerpClientTest, CarriesPacketsOverARealRelay) { // 34: its key comes again after a fast start
    RealRelay relay;
    run_task([&](Reactor& reactor) -> Task<void> {
        Node alice{reactor}, bob{reactor};
        for (Node* node : {&alice, &bob}) {
            node->client.set_map(map_of({{1, {relay.node()}}}));
            node->client.set_home(1);
        }
        while (!alice.client.is_connected(1) || !bob.client.is_connected(1)) co_await reactor.sleep(2ms);
        while (bob.packets.empty()) { // who has logged in may not be known yet
            alice.client.send(1, bob.key.public_key(), as_bytes("hello"));
            co_await reactor.sleep(5ms);
        }
        EXPECT_EQ(bob.packets[0], std::pair(1, std::string{"hello"}));
        bob.client.send(0, alice.key.public_key(), as_bytes("you came over this one"));
        while (alice.packets.empty()) co_await reactor.sleep(2ms);
        EXPECT_THAT(alice.client.troubles(), IsEmpty());
    });
}

TEST(DerpClientTest, SaysWhetherARegionIsHome) { // 32
    run_task([](Reactor& reactor) -> Task<void> {
        FakeRelay one{reactor, "1a"}, two{reactor, "2a"};
        Node node{reactor};
        node.client.set_map(map_of({{1, {one.node()}}, {2, {two.node()}}}));
        node.client.set_home(1);
        FakeRelay::Client* first = co_await one.next_client();
        co_await one.settle(*first);
        EXPECT_EQ(first->key, node.key.public_key());
        EXPECT_EQ(first->frames[0], std::pair(FrameType::NotePreferred, Bytes{std::byte{1}}));
        node.client.set_home(2);
        FakeRelay::Client* second = co_await two.next_client();
        co_await two.settle(*second);
        EXPECT_EQ(second->frames[0], std::pair(FrameType::NotePreferred, Bytes{std::byte{1}}));
        co_await one.settle(*first);
        EXPECT_THAT(first->frames, testing::Contains(std::pair(FrameType::NotePreferred, Bytes{std::byte{0}})));
    });
}

TEST(DerpClientTest, ChoosesTheRegionForAPacket) { // 37
    run_task([](Reactor& reactor) -> Task<void> {
        FakeRelay one{reactor, "1a"}, two{reactor, "2a"}, three{reactor, "3a"};
        Node node{reactor};
        node.client.set_map(map_of({{1, {one.node()}}, {2, {two.node()}}, {3, {three.node()}}}));
        node.client.set_home(1);
        FakeRelay::Client* home = co_await one.next_client();
        node.client.send(2, kPeer, as_bytes("opens"));
        FakeRelay::Client* other = co_await two.next_client();
        co_await two.settle(*other);
        EXPECT_THAT(other->frames, ElementsAre(std::pair(FrameType::SendPacket, from_key(kPeer, "opens")),
                                               std::pair(FrameType::Pong, Bytes(8, std::byte{7}))));
        co_await one.send(*home, FrameType::RecvPacket, from_key(kPeer, "heard here"));
        co_await one.settle(*home);
        node.client.send(3, kPeer, as_bytes("to where it was heard"));
        co_await one.settle(*home);
        EXPECT_THAT(home->frames,
                    testing::Contains(std::pair(FrameType::SendPacket, from_key(kPeer, "to where it was heard"))));
        node.client.send(2, kPeer, as_bytes("its home is open"));
        co_await two.settle(*other);
        EXPECT_EQ(other->count(FrameType::SendPacket), 2U);
        co_await one.send(*home, FrameType::PeerGone, derp::write_peer_gone({kPeer, derp::GoneReason::Disconnected}));
        co_await one.settle(*home);
        node.client.send(3, kPeer, as_bytes("forgotten there"));
        (void)co_await three.next_client();
    });
}

TEST(DerpClientTest, LeavesAQuietRegionAndASilentOne) { // 30, 33
    run_task([](Reactor& reactor) -> Task<void> {
        FakeRelay one{reactor, "1a"}, two{reactor, "2a"};
        Node node{reactor, {300ms, 50ms, 700ms}};
        node.client.set_map(map_of({{1, {one.node()}}, {2, {two.node()}}}));
        node.client.set_home(1);
        FakeRelay::Client* home = co_await one.next_client();
        node.client.send(2, kPeer, as_bytes("one packet"));
        FakeRelay::Client* other = co_await two.next_client();
        co_await two.until([&] { return other->over; });
        EXPECT_THAT(node.client.troubles(), IsEmpty());
        co_await one.until([&] { return home->over; });
        (void)co_await one.next_client(); // home is entered again
        EXPECT_EQ(two.clients.size(), 1U);
    });
}

TEST(DerpClientTest, KeepsToTheRateThatTheRelayNames) { // 35
    run_task([](Reactor& reactor) -> Task<void> {
        FakeRelay relay{reactor, "1a"};
        relay.info.bytes_per_second = 1;
        relay.info.bytes_burst = 3 * (derp::kHeaderSize + NodeKey::kSize + 1000) + 100;
        Node node{reactor};
        node.client.set_map(map_of({{1, {relay.node()}}}));
        node.client.set_home(1);
        FakeRelay::Client* client = co_await relay.next_client();
        co_await relay.settle(*client);
        for (int i = 0; i < 20; ++i) node.client.send(1, kPeer, Bytes(1000));
        co_await relay.settle(*client);
        EXPECT_EQ(client->count(FrameType::SendPacket), 3U);
    });
}

TEST(DerpClientTest, ARelayThatStartsOverIsAwaited) {
    run_task([](Reactor& reactor) -> Task<void> {
        FakeRelay relay{reactor, "1a"};
        Node node{reactor};
        node.client.set_map(map_of({{1, {relay.node()}}}));
        node.client.set_home(1);
        FakeRelay::Client* client = co_await relay.next_client();
        TimePoint told = reactor.now();
        co_await relay.send(*client, FrameType::Restarting, derp::write_restarting({400, 5000}));
        co_await relay.settle(*client);
        node.client.send(1, kPeer, as_bytes("it still carries"));
        co_await relay.settle(*client);
        EXPECT_EQ(client->count(FrameType::SendPacket), 1U);
        client->stream->close();
        co_await relay.until([&] { return !node.client.is_connected(1); });
        node.client.send(1, kPeer, as_bytes("meanwhile"));
        FakeRelay::Client* again = co_await relay.next_client();
        EXPECT_GE(reactor.now() - told, 400ms);
        co_await relay.settle(*again);
        EXPECT_EQ(again->count(FrameType::SendPacket), 1U) << "nothing is lost meanwhile";
    });
}

TEST(DerpClientTest, ARestartMovesUsToTheNextNode) {
    run_task([](Reactor& reactor) -> Task<void> {
        FakeRelay first{reactor, "1a"}, second{reactor, "1b"};
        Node node{reactor};
        node.client.set_map(map_of({{1, {first.node(), second.node()}}}));
        node.client.set_home(1);
        FakeRelay::Client* client = co_await first.next_client();
        co_await first.send(*client, FrameType::Restarting, derp::write_restarting({4'000'000'000, 5000}));
        FakeRelay::Client* moved = co_await second.next_client();
        co_await first.until([&] { return client->over; });
        co_await second.settle(*moved);
        EXPECT_EQ(moved->count(FrameType::NotePreferred), 1U);
        EXPECT_EQ(first.clients.size(), 1U);
    });
}

TEST(DerpClientTest, ARegionDefinedAnewIsEnteredAtOnce) {
    run_task([](Reactor& reactor) -> Task<void> {
        auto mute = Listener::tcp(reactor, *Endpoint::parse("127.0.0.1:0")); // takes connections and says nothing
        FakeRelay before{reactor, "1a"}, after{reactor, "1a"};
        Node node{reactor};
        node.client.set_map(map_of({{1, {before.node()}}}));
        node.client.set_home(1);
        FakeRelay::Client* client = co_await before.next_client();
        wire::DerpNode silent = before.node();
        silent.derp_port = mute->local().port;
        node.client.set_map(map_of({{1, {silent}}}));
        co_await before.until([&] { return client->over; });
        TimePoint begin = reactor.now();
        node.client.set_map(map_of({{1, {after.node()}}}));
        (void)co_await after.next_client();
        EXPECT_LT(reactor.now() - begin, 2500ms) << "not when the dial to the old address has failed";
        EXPECT_EQ(before.clients.size(), 1U);
    });
}

TEST(DerpClientTest, ARelayThatThrowsOutIsNotAskedAllTheTime) {
    run_task([](Reactor& reactor) -> Task<void> {
        FakeRelay relay{reactor, "1a"};
        relay.throws_out = true;
        Node node{reactor};
        node.client.set_map(map_of({{1, {relay.node()}}}));
        node.client.set_home(1);
        co_await reactor.sleep(1s);
        EXPECT_LT(relay.clients.size(), 15U); // 10, 40, 90, 160, 250, 360 ms, each halved at best
        EXPECT_GE(relay.clients.size(), 1U);
    });
}

TEST(DerpClientTest, ALyingRelayGainsNothing) {
    run_task([](Reactor& reactor) -> Task<void> {
        FakeRelay relay{reactor, "1a"};
        Node node{reactor};
        node.client.set_map(map_of({{1, {relay.node()}}, {2, {}}}));
        node.client.set_home(1);
        FakeRelay::Client* client = co_await relay.next_client();
        co_await relay.send(*client, FrameType::RecvPacket, from_key(kStranger, "who am I?"));
        co_await relay.settle(*client);
        node.client.send(0, kStranger, as_bytes("nobody"));
        co_await relay.settle(*client);
        EXPECT_EQ(client->count(FrameType::SendPacket), 0U) << "strangers are not remembered";
        co_await relay.send(*client, FrameType::Health, Bytes(1 << 20, std::byte{'!'}));
        co_await relay.settle(*client);
        EXPECT_EQ(node.client.troubles().size(), 1U);
        EXPECT_LT(node.client.troubles()[0].size(), DerpLink::kLongestTrouble + 100);
        for (FrameType type : {FrameType::RecvPacket, FrameType::PeerGone, FrameType::Ping, FrameType::ServerInfo,
                               FrameType::Restarting}) { // one byte is too short for any
            co_await relay.send(*client, type, Bytes(1));
            co_await relay.until([&] { return client->over; });
            client = co_await relay.next_client();
        }
        co_await relay.send(*client, FrameType::RecvPacket, Bytes(NodeKey::kSize + derp::kMaxPacket + 1));
        co_await relay.until([&] { return client->over; });
        client = co_await relay.next_client();
        co_await relay.send(*client, FrameType{0x77}, Bytes((1 << 20) + 1));
        co_await relay.until([&] { return client->over; });
        EXPECT_THAT(node.packets, ElementsAre(std::pair(1, std::string{"who am I?"})));
    });
}

TEST(DerpClientTest, PausesGrowToFiveSecondsBeforeTheyAreSpread) { // 31
    EXPECT_EQ(Backoff::unjittered(3, DerpClient::kLongestPause), 90ms);
    EXPECT_EQ(Backoff::unjittered(22, DerpClient::kLongestPause), 4840ms);
    EXPECT_EQ(Backoff::unjittered(23, DerpClient::kLongestPause), 5s);
    Backoff backoff{DerpClient::kLongestPause};
    Duration longest{}, shortest = 1h;
    for (int i = 0; i < 2000; ++i) {
        Duration pause = backoff.next();
        longest = std::max(longest, pause);
        if (i > 30) shortest = std::min(shortest, pause);
    }
    EXPECT_GT(longest, 7s); // 5 s and a half of it
    EXPECT_LE(longest, 7500ms);
    EXPECT_LT(shortest, 3s);
    EXPECT_GE(shortest, 2500ms);
}

wire::DerpNode node_at(std::string host, std::string v4, std::string v6) {
    wire::DerpNode node;
    node.host_name = std::move(host);
    node.ipv4 = std::move(v4);
    node.ipv6 = std::move(v6);
    return node;
}

TEST(RelayDoors, EachFamilyIsAnAddressANameOrNothing) {
    const RelayDoor v4{false, true, "192.0.2.1"}, v6{true, true, "2001:db8::1"};
    const RelayDoor name4{false, false, "relay.example"}, name6{true, false, "relay.example"};
    EXPECT_THAT(relay_doors(node_at("relay.example", "192.0.2.1", "2001:db8::1")), ElementsAre(v4, v6));
    EXPECT_THAT(relay_doors(node_at("relay.example", "192.0.2.1", "")), ElementsAre(v4, name6));
    EXPECT_THAT(relay_doors(node_at("relay.example", "none", "")), ElementsAre(name6));
    EXPECT_THAT(relay_doors(node_at("relay.example", "", "none")), ElementsAre(name4));
    EXPECT_THAT(relay_doors(node_at("relay.example", "", "")), ElementsAre(name4, name6));
    EXPECT_THAT(relay_doors(node_at("relay.example", "none", "none")), IsEmpty());
    EXPECT_THAT(relay_doors(node_at("192.0.2.1", "", "")), ElementsAre(v4)) << "an address has no other family";
    EXPECT_THAT(relay_doors(node_at("2001:db8::1", "", "2001:db8::1")), ElementsAre(v6));
}

TEST(RelayDoors, RaceAndTheFirstThatOpensWins) {
    run_task([](Reactor& reactor) -> Task<void> {
        FakeRelay relay{reactor, "1a"};
        wire::DerpNode node = relay.node();
        node.ipv6 = "2001:db8::1"; // refused, unreachable or silent, as this machine has it
        TimePoint begin = reactor.now();
        auto stream = co_await dial_relay_node(reactor, node, 0);
        EXPECT_TRUE(stream);
        EXPECT_LT(reactor.now() - begin, 1400ms) << "before the other family gives up";
        node.ipv4 = node.ipv6 = "none";
        auto nowhere = co_await dial_relay_node(reactor, node, 0);
        EXPECT_FALSE(nowhere);
    });
}

TEST(RelayDoors, OneFamilyHasAHeadStart) {
    const RelayDoor v4{false, true, "192.0.2.1"}, v6{true, true, "2001:db8::1"};
    const RelayDoor name4{false, false, "relay.example"}, name6{true, false, "relay.example"};
    auto starts = [](std::vector<RelayDoor> doors, bool v6_works) { return head_starts(doors, v6_works); };
    EXPECT_THAT(starts({v4, v6}, false), ElementsAre(0ms, 0ms));
    EXPECT_THAT(starts({v4, v6}, true), ElementsAre(200ms, 0ms));
    EXPECT_THAT(starts({name4, name6}, true), ElementsAre(200ms, 0ms));
    EXPECT_THAT(starts({v4, name6}, false), ElementsAre(0ms, 200ms)) << "a look-up costs time";
    EXPECT_THAT(starts({v4, name6}, true), ElementsAre(200ms, 0ms));
    EXPECT_THAT(starts({v4}, true), ElementsAre(0ms)) << "there is nobody to wait for";
}

TEST(RelayDoors, IPv6IsTakenWhereItWorks) {
    Reactor any;
    if (!Listener::tcp(any, *Endpoint::parse("[::1]:0"))) GTEST_SKIP() << "no IPv6 on this machine";
    run_task([](Reactor& reactor) -> Task<void> {
        FakeRelay relay{reactor, "1a", "[::]:0"};
        RelayDialOptions options{.limit = 5s, .v6_works = true};
        wire::DerpNode node = relay.node();
        node.ipv6 = "::1";
        for (int i = 0; i < 5; ++i) {
            auto stream = co_await dial_relay_node(reactor, node, 0, options);
            EXPECT_TRUE(stream && (*stream)->peer().address.unmapped().is_v6());
        }
        node.ipv6 = "none";
        auto stream = co_await dial_relay_node(reactor, node, 0, options);
        EXPECT_TRUE(stream && !(*stream)->peer().address.unmapped().is_v6());
    });
}

/// Takes connections and says nothing.
wire::DerpNode silent_node(const Listener& listener) {
    wire::DerpNode node = node_at("127.0.0.1", "", "none");
    node.name = "silent";
    node.derp_port = listener.local().port;
    return node;
}

TEST(DialDerp, StartsFastWhereTheCertificatesNameTheKey) { // 2
    RealRelay relay;
    run_task([&](Reactor& reactor) -> Task<void> {
        FakeRelay other{reactor, "1a"};
        wire::DerpRegion region;
        for (bool fast : {true, false}) {
            region.nodes = {fast ? relay.node() : other.node()};
            auto login = co_await dial_derp(reactor, region, NodePrivateKey::generate(), 0, "");
            EXPECT_TRUE(login && login->fast == fast);
        }
    });
}

TEST(DialDerp, EndsInTimeWhateverRelaysDo) {
    run_task([](Reactor& reactor) -> Task<void> {
        auto listener = Listener::tcp(reactor, *Endpoint::parse("127.0.0.1:0"));
        wire::DerpRegion region;
        region.nodes = {silent_node(*listener), silent_node(*listener)};
        TimePoint begin = reactor.now();
        RelayDialOptions options{.limit = 400ms};
        auto login = co_await dial_derp(reactor, region, NodePrivateKey::generate(), 0, "", options);
        EXPECT_FALSE(login);
        EXPECT_GE(reactor.now() - begin, 390ms);
        EXPECT_LT(reactor.now() - begin, 1s);
        EXPECT_EQ(kDialRegion, 10s);
    });
}

TEST(DialDerp, ASilentRelayLeavesTimeForTheNext) {
    run_task([](Reactor& reactor) -> Task<void> {
        auto listener = Listener::tcp(reactor, *Endpoint::parse("127.0.0.1:0"));
        FakeRelay relay{reactor, "1b"};
        wire::DerpRegion region;
        wire::DerpNode stun = relay.node();
        stun.stun_only = true;
        region.nodes = {stun, silent_node(*listener), relay.node()};
        RelayDialOptions options{.limit = 2s};
        auto login = co_await dial_derp(reactor, region, NodePrivateKey::generate(), 0, "", options);
        EXPECT_TRUE(login);
        if (login) EXPECT_EQ(login->node, "1b");
    });
}

} // namespace
} // namespace tailrace
