// Whole cores with their threads; clients at the other end of socket pairs. Numbers: derp-disco-paths.md 8.
#include "base/io/websocket.hpp"
#include "relay/core/core.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <atomic>
#include <future>
#include <mutex>
#include <thread>

namespace tailrace::relay {
namespace {

using namespace std::chrono_literals;
using derp::FrameType;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr auto kPatience = 5s;

struct Frame {
    FrameType type{};
    Bytes payload;
};

/// The client's side of one connection, which waits.
class TestClient {
public:
    TestClient(Fd socket, const NodePrivateKey& key) : socket_(std::move(socket)), key_(key) {
        timeval limit{kPatience.count(), 0};
        ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        ::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    }

    void write(BytesView data) {
        while (!data.empty()) {
            ssize_t count = ::send(socket_.get(), data.data(), data.size(), MSG_NOSIGNAL);
            if (count <= 0) return; // the relay has closed; what is read next shows it
            data = data.subspan(static_cast<std::size_t>(count));
        }
    }
    void write(std::string_view text) { write(as_bytes(text)); }
    void frame(FrameType type, BytesView payload = {}) { write(derp::write_frame(type, payload)); }
    void packet(const NodeKey& to, std::string_view text) { frame(FrameType::SendPacket, packet_payload(to, text)); }
    static Bytes packet_payload(const NodeKey& to, std::string_view text) {
        Bytes out = to_bytes(to.view());
        out.insert(out.end(), as_bytes(text).begin(), as_bytes(text).end());
        return out;
    }

    Bytes read_exactly(std::size_t size) {
        Bytes out(size);
        std::size_t at = 0;
        while (at < size) {
            ssize_t count = ::recv(socket_.get(), out.data() + at, size - at, 0);
            if (count <= 0) {
                closed_ = count == 0 || errno == ECONNRESET;
                return {};
            }
            at += static_cast<std::size_t>(count);
        }
        return out;
    }
    std::string read_head() {
        std::string head;
        while (!head.ends_with("\r\n\r\n")) {
            Bytes one = read_exactly(1);
            if (one.empty()) break;
            head += static_cast<char>(one[0]);
        }
        return head;
    }
    std::optional<Frame> next() {
        Bytes head = read_exactly(derp::kHeaderSize);
        if (head.empty()) return std::nullopt;
        auto header = derp::read_header(std::span{head}.first<derp::kHeaderSize>());
        Frame out{header.type, {}};
        if (header.length > 0) out.payload = read_exactly(header.length);
        return out;
    }
    /// The next RecvPacket as "text", whatever comes before it.
    std::string received(NodeKey* from = nullptr) {
        while (auto frame = next()) {
            if (frame->type != FrameType::RecvPacket) continue;
            auto view = derp::parse_packet(frame->payload);
            if (from != nullptr) *from = view->key;
            return std::string{as_chars(view->packet)};
        }
        return "<nothing>";
    }
    std::optional<Frame> next_of(FrameType type) {
        while (auto frame = next())
            if (frame->type == type) return frame;
        return std::nullopt;
    }
    bool is_closed_by_relay() {
        while (!read_exactly(1).empty()) {
        }
        return closed_;
    }

    Bytes client_info(const derp::ClientInfo& info) const { return derp::seal_client_info(info, key_, server_); }
    bool log_in(const NodeKey& server, derp::ClientInfo info = {}) {
        write("GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n");
        auto first = next();
        if (!first || first->type != FrameType::ServerKey) return false;
        server_ = *derp::parse_server_key(first->payload);
        if (server_ != server) return false;
        frame(FrameType::ClientInfo, client_info(info));
        auto second = next();
        return second && second->type == FrameType::ServerInfo &&
               derp::open_server_info(second->payload, key_, server_)->version == 2;
    }
    /// Everything sent so far has been dealt with by the client's core.
    void settle() {
        frame(FrameType::Ping, Bytes(8, std::byte{1}));
        (void)next_of(FrameType::Pong);
    }
    NodeKey key() const { return key_.public_key(); }
    void set_server(const NodeKey& key) { server_ = key; }
    void close() { socket_.reset(); }
    int fd() const { return socket_.get(); }

private:
    Fd socket_;
    NodePrivateKey key_;
    NodeKey server_;
    bool closed_ = false;
};

class CoreTest : public ::testing::TestWithParam<std::uint32_t> {
protected:
    CoreTest() {
        shared.settings.key = NodePrivateKey::generate();
        shared.settings.public_key = shared.settings.key.public_key();
        shared.settings.mesh_key = derp::parse_mesh_key(std::string(64, '7')).value_or(derp::MeshKey{});
        shared.metrics = [] { return std::string{"metrics\n"}; };
    }
    void start() {
        std::uint32_t cores = GetParam();
        shared.rings.resize(cores);
        for (std::uint32_t from = 0; from < cores; ++from)
            for (std::uint32_t to = 0; to < cores; ++to)
                shared.rings[from].push_back(from == to ? nullptr : std::make_unique<BatchRing>());
        for (std::uint32_t i = 0; i < cores; ++i) shared.cores.push_back(std::move(*Core::create(shared, i)));
        for (auto& core : shared.cores) core->start();
    }
    ~CoreTest() override {
        for (auto& core : shared.cores) core->post([](Core& one) { one.stop(); });
        for (auto& core : shared.cores) core->join();
    }
    TestClient connect(const NodePrivateKey& key = NodePrivateKey::generate(), Door door = Door::Derp,
                       Endpoint from = *Endpoint::parse("192.0.2.7:40000")) {
        if (shared.cores.empty()) start();
        int pair[2];
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        int flags = ::fcntl(pair[0], F_GETFL);
        ::fcntl(pair[0], F_SETFL, flags | O_NONBLOCK);
        auto connection = std::make_unique<Connection>(Fd{pair[0]}, from, door);
        connection->phase = Phase::HttpHead;
        shared.cores[next_core++ % shared.cores.size()]->give(std::move(connection));
        return TestClient{Fd{pair[1]}, key};
    }
    TestClient logged_in(const NodePrivateKey& key = NodePrivateKey::generate(), derp::ClientInfo info = {}) {
        TestClient client = connect(key);
        EXPECT_TRUE(client.log_in(shared.settings.public_key, info));
        client.settle();
        return client;
    }
    TestClient mesh_peer() {
        derp::ClientInfo info;
        info.mesh_key = shared.settings.mesh_key;
        return logged_in(NodePrivateKey::generate(), info);
    }
    std::uint64_t sum(Counter Counters::*counter) {
        std::uint64_t out = 0;
        for (auto& core : shared.cores) out += (core->counters().*counter).get();
        return out;
    }
    template <typename Condition>
    bool wait_until(Condition condition, std::chrono::milliseconds patience = kPatience) {
        for (auto i = 0ms; i < patience; ++i) {
            if (condition()) return true;
            std::this_thread::sleep_for(1ms);
        }
        return false;
    }
    void set_rate_limit(RateLimit limit) {
        if (shared.cores.empty()) start();
        for (auto& core : shared.cores) core->post([limit](Core& one) { one.set_rate_limit(limit); });
    }
    static std::string disco() {
        std::string out = "TS\xf0\x9f\x92\xac";
        out.resize(62, 'x');
        return out;
    }

    Shared shared;
    std::size_t next_core = 0;
};

TEST_P(CoreTest, AnswersAnOrdinaryUpgrade) { // 1
    TestClient client = connect();
    client.write("GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n");
    EXPECT_THAT(client.read_head(), HasSubstr("Derp-Version: 2\r\n"));
    auto frame = client.next();
    ASSERT_TRUE(frame);
    EXPECT_EQ(*derp::parse_server_key(frame->payload), shared.settings.public_key);
}

TEST_P(CoreTest, TakesFramesThatCameWithTheRequest) { // 2, 3, and a packet before ServerInfo
    for (bool fast : {true, false}) {
        TestClient client = connect();
        client.set_server(shared.settings.public_key);
        Bytes all = to_bytes(as_bytes(fast ? "GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n"
                                           : "GET /derp HTTP/1.1\r\nUpgrade: DERP\r\n\r\n"));
        for (const Bytes& frame :
             {derp::write_frame(FrameType::ClientInfo, client.client_info({})),
              derp::write_frame(FrameType::NotePreferred, derp::write_note_preferred(true)),
              derp::write_frame(FrameType::SendPacket, TestClient::packet_payload(client.key(), "early"))})
            all.insert(all.end(), frame.begin(), frame.end());
        client.write(all);
        if (!fast) EXPECT_THAT(client.read_head(), StartsWith("HTTP/1.1 101 "));
        EXPECT_EQ(client.next()->type, FrameType::ServerKey);
        EXPECT_EQ(client.next()->type, FrameType::ServerInfo);
        EXPECT_EQ(client.received(), "early");
        EXPECT_EQ(sum(&Counters::home_clients), 1U);
        client.close();
        ASSERT_TRUE(wait_until([&] { return sum(&Counters::home_clients) == 0; }));
    }
}

TEST_P(CoreTest, ServesPagesAndCloses) {
    TestClient client = connect();
    client.write("GET /robots.txt HTTP/1.1\r\n\r\n");
    EXPECT_THAT(client.read_head(), StartsWith("HTTP/1.1 200 OK"));
    EXPECT_TRUE(client.is_closed_by_relay());
    TestClient metrics = connect(NodePrivateKey::generate(), Door::Metrics);
    metrics.write("GET /metrics HTTP/1.1\r\n\r\n");
    EXPECT_THAT(metrics.read_head(), HasSubstr("Content-Length: 8\r\n"));
    TestClient nonsense = connect();
    nonsense.write("\x16\x03\x01\r\n\r\n");
    EXPECT_THAT(nonsense.read_head(), StartsWith("HTTP/1.1 400"));
}

TEST_P(CoreTest, RefusesABadLogin) { // 7, 8
    TestClient flipped = connect();
    flipped.set_server(shared.settings.public_key);
    flipped.write("GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n");
    Bytes info = flipped.client_info({});
    info.back() ^= std::byte{1};
    flipped.frame(FrameType::ClientInfo, info);
    EXPECT_TRUE(flipped.is_closed_by_relay());
    for (const Bytes& bad : {Bytes(55, std::byte{1}), Bytes(262145), Bytes(100)}) {
        TestClient client = connect();
        client.write("GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n");
        client.frame(FrameType::ClientInfo, bad);
        EXPECT_TRUE(client.is_closed_by_relay()) << bad.size();
    }
}

TEST_P(CoreTest, AdmitsEveryVersion) { // 8
    for (int version : {0, 1, 99}) {
        derp::ClientInfo info;
        info.version = version;
        logged_in(NodePrivateKey::generate(), info);
    }
}

TEST_P(CoreTest, ThrowsOutWhoDoesNotLogIn) { // 9
    EXPECT_EQ(CoreSettings{}.login_timeout, 10s);
    shared.settings.login_timeout = 200ms;
    TestClient silent = connect();
    EXPECT_TRUE(silent.is_closed_by_relay());
    EXPECT_EQ(sum(&Counters::login_timeouts), 1U);
}

TEST_P(CoreTest, PassesPacketsOnInOrder) { // 12
    TestClient alice = logged_in(), bob = logged_in();
    NodeKey from;
    for (int burst = 0; burst < 500; burst += 25) { // more than the small socket holds would be dropped, and rightly
        for (int i = burst; i < burst + 25; ++i) alice.packet(bob.key(), fmt::format("packet {}", i));
        for (int i = burst; i < burst + 25; ++i) ASSERT_EQ(bob.received(&from), fmt::format("packet {}", i));
    }
    EXPECT_EQ(from, alice.key());
    alice.packet(bob.key(), "");
    EXPECT_EQ(bob.received(), "");
    alice.packet(alice.key(), "to myself");
    EXPECT_EQ(alice.received(), "to myself");
}

TEST_P(CoreTest, ManyClientsOnAllCores) {
    std::vector<TestClient> clients;
    for (int i = 0; i < 20; ++i) clients.push_back(logged_in());
    for (auto& from : clients)
        for (auto& to : clients) from.packet(to.key(), "hello");
    for (auto& to : clients)
        for (std::size_t i = 0; i < clients.size(); ++i) ASSERT_EQ(to.received(), "hello");
    EXPECT_EQ(sum(&Counters::keys), 20U);
    EXPECT_EQ(sum(&Counters::packets_sent), 400U);
}

TEST_P(CoreTest, BoundsThePacketSize) { // 11
    TestClient alice = logged_in(), bob = logged_in();
    alice.packet(bob.key(), std::string(65536, 'x'));
    EXPECT_EQ(bob.received().size(), 65536U);
    alice.packet(bob.key(), std::string(65537, 'x'));
    EXPECT_TRUE(alice.is_closed_by_relay());
    TestClient carol = logged_in();
    carol.frame(FrameType::SendPacket, Bytes(31));
    EXPECT_TRUE(carol.is_closed_by_relay());
}

TEST_P(CoreTest, SaysNotHereForDiscoveryOnlyAndNotTooOften) { // 15
    TestClient alice = logged_in();
    NodeKey nobody = NodePrivateKey::generate().public_key();
    for (int i = 0; i < 5; ++i) alice.packet(nobody, "not discovery");
    for (int i = 0; i < 10; ++i) alice.packet(nobody, disco());
    alice.packet(alice.key(), "end"); // goes to another core perhaps: the answers may come after it
    for (int i = 0; i < 3; ++i) {
        auto gone = alice.next_of(FrameType::PeerGone);
        ASSERT_TRUE(gone);
        EXPECT_EQ(*derp::parse_peer_gone(gone->payload), (derp::PeerGone{nobody, derp::GoneReason::NotHere}));
    }
    EXPECT_EQ(sum(&Counters::peer_gone_sent), 3U);
}

TEST_P(CoreTest, TellsOfADepartureThoseWhoHaveHeardOfIt) { // 16
    TestClient alice = logged_in(), bob = logged_in(), carol = logged_in();
    NodePrivateKey key = NodePrivateKey::generate();
    for (int round = 0; round < 2; ++round) {
        TestClient dave = logged_in(key);
        dave.packet(bob.key(), "hi");
        EXPECT_EQ(bob.received(), "hi");
        dave.close();
        auto gone = bob.next_of(FrameType::PeerGone);
        ASSERT_TRUE(gone);
        EXPECT_EQ(*derp::parse_peer_gone(gone->payload),
                  (derp::PeerGone{key.public_key(), derp::GoneReason::Disconnected}));
    }
    EXPECT_EQ(sum(&Counters::peer_gone_sent), 2U) << "carol has heard nothing";
    carol.settle();
}

TEST_P(CoreTest, OfTwoWithOneKeyTheNewerOrTheLastSpeakerGetsThePackets) { // 17, 18
    TestClient alice = logged_in();
    NodePrivateKey key = NodePrivateKey::generate();
    TestClient first = logged_in(key);
    TestClient second = logged_in(key);
    alice.packet(key.public_key(), "to the second");
    EXPECT_EQ(second.received(), "to the second");
    first.settle(); // any frame
    alice.packet(key.public_key(), "to the first");
    EXPECT_EQ(first.received(), "to the first");
    second.settle();
    second.close();
    ASSERT_TRUE(wait_until([&] { return sum(&Counters::clients) == 2; }));
    alice.packet(key.public_key(), "to the first again");
    EXPECT_EQ(first.received(), "to the first again");
}

TEST_P(CoreTest, EchoesPingsAndMindsTheirLength) { // 20
    TestClient alice = logged_in();
    Bytes data = to_bytes(as_bytes("12345678 and more"));
    alice.frame(FrameType::Ping, data);
    EXPECT_EQ(as_chars(alice.next_of(FrameType::Pong)->payload), "12345678");
    Bytes two = derp::write_frame(FrameType::Ping, data), second = two;
    two.insert(two.end(), second.begin(), second.end());
    alice.write(two);
    EXPECT_EQ(as_chars(alice.next_of(FrameType::Pong)->payload), "12345678");
    alice.packet(alice.key(), "still here");
    EXPECT_EQ(alice.received(), "still here");
    alice.frame(FrameType::Ping, Bytes(7));
    EXPECT_TRUE(alice.is_closed_by_relay());
    TestClient bob = logged_in();
    bob.frame(FrameType::Ping, Bytes(1001));
    EXPECT_TRUE(bob.is_closed_by_relay());
}

TEST_P(CoreTest, SaysThatItLivesToWhoHearsNothing) { // 19
    EXPECT_EQ(CoreSettings{}.keep_alive, 60s);
    EXPECT_LE(CoreSettings{}.keep_alive_jitter + TimerWheel::kTick, 5s);
    shared.settings.keep_alive = 150ms;
    shared.settings.keep_alive_jitter = 0ms;
    TestClient alice = connect();
    ASSERT_TRUE(alice.log_in(shared.settings.public_key));
    auto since = std::chrono::steady_clock::now();
    for (int i = 0; i < 3; ++i) {
        auto frame = alice.next();
        ASSERT_TRUE(frame);
        EXPECT_EQ(frame->type, FrameType::KeepAlive);
        EXPECT_TRUE(frame->payload.empty());
    }
    EXPECT_GE(std::chrono::steady_clock::now() - since, 400ms) << "and not more often";
}

TEST_P(CoreTest, SkipsUnknownFramesAndRefusesWrongLengths) { // 21, 22
    TestClient alice = logged_in();
    alice.frame(static_cast<FrameType>(0x77), Bytes(1 << 20));
    alice.frame(FrameType::KeepAlive);
    alice.settle();
    alice.frame(FrameType::NotePreferred, Bytes(2));
    EXPECT_TRUE(alice.is_closed_by_relay());
}

TEST_P(CoreTest, AWrongMeshKeyMakesAnOrdinaryClient) { // 23
    derp::ClientInfo info;
    info.mesh_key = *derp::parse_mesh_key(std::string(64, '8'));
    Bytes forward(64 + 3);
    for (auto [type, payload] : {std::pair{FrameType::WatchConns, Bytes{}}, std::pair{FrameType::ClosePeer, Bytes(32)},
                                 std::pair{FrameType::ForwardPacket, forward}}) {
        TestClient client = logged_in(NodePrivateKey::generate(), info);
        client.frame(type, payload);
        EXPECT_TRUE(client.is_closed_by_relay());
    }
}

TEST_P(CoreTest, AWrongMeshKeyIsNoWayPastAdmission) { // 23
    shared.settings.ask_control = true;
    shared.ask_control = [](const NodeKey&, const IpAddress&, const std::function<void(bool)>& answer) {
        answer(false);
    };
    derp::ClientInfo info;
    info.mesh_key = *derp::parse_mesh_key(std::string(64, '8'));
    TestClient client = connect();
    EXPECT_FALSE(client.log_in(shared.settings.public_key, info));
    EXPECT_TRUE(client.is_closed_by_relay());
}

TEST_P(CoreTest, PresenceSaysWhatKindOfClientItIs) { // 24
    TestClient peer = mesh_peer();
    peer.frame(FrameType::WatchConns);
    peer.settle();
    auto flags_of = [&](const NodeKey& key) {
        while (auto frame = peer.next_of(FrameType::PeerPresent))
            if (auto present = derp::parse_peer_present(frame->payload); present && present->key == key)
                return static_cast<int>(present->flags);
        return -1;
    };
    EXPECT_EQ(sum(&Counters::watchers), 1U);
    derp::ClientInfo info;
    info.is_prober = true;
    TestClient prober = logged_in(NodePrivateKey::generate(), info);
    EXPECT_EQ(flags_of(prober.key()), derp::kPresentProber);
    TestClient elsewhere = connect();
    elsewhere.set_server(shared.settings.public_key);
    elsewhere.write("GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\nIdeal-Node: 1a\r\n\r\n");
    elsewhere.frame(FrameType::ClientInfo, elsewhere.client_info({}));
    EXPECT_EQ(flags_of(elsewhere.key()), derp::kPresentNotIdeal);
    // We ourselves, as a client, need not be told.
    derp::ClientInfo mesh;
    mesh.mesh_key = shared.settings.mesh_key;
    TestClient self = logged_in(shared.settings.key, mesh);
    self.frame(FrameType::WatchConns);
    self.settle();
    EXPECT_EQ(sum(&Counters::watchers), 1U);
}

TEST_P(CoreTest, AMeshPeerSeesWhoComesAndGoes) { // 24
    TestClient alice = logged_in();
    TestClient peer = mesh_peer();
    peer.frame(FrameType::WatchConns);
    std::vector<derp::PeerPresent> seen;
    for (int i = 0; i < 2; ++i) {
        auto frame = peer.next_of(FrameType::PeerPresent);
        ASSERT_TRUE(frame);
        EXPECT_EQ(frame->payload.size(), 51U);
        seen.push_back(*derp::parse_peer_present(frame->payload));
    }
    auto flags_of = [&](const NodeKey& key) {
        for (const auto& present : seen)
            if (present.key == key) return static_cast<int>(present.flags);
        return -1;
    };
    EXPECT_EQ(flags_of(alice.key()), derp::kPresentRegular);
    EXPECT_EQ(flags_of(peer.key()), derp::kPresentMesh);
    TestClient bob = logged_in();
    EXPECT_EQ(derp::parse_peer_present(peer.next_of(FrameType::PeerPresent)->payload)->key, bob.key());
    bob.close();
    EXPECT_EQ(derp::parse_peer_gone(peer.next_of(FrameType::PeerGone)->payload)->key, bob.key());
}

TEST_P(CoreTest, DeliversWhatAMeshPeerForwardsAndNoFurther) { // 25
    TestClient alice = logged_in();
    TestClient peer = mesh_peer();
    NodeKey far = NodePrivateKey::generate().public_key();
    auto forward = [&](const NodeKey& to, const std::string& text) {
        Bytes payload = to_bytes(far.view());
        Bytes rest = TestClient::packet_payload(to, text);
        payload.insert(payload.end(), rest.begin(), rest.end());
        peer.frame(FrameType::ForwardPacket, payload);
    };
    forward(alice.key(), "from afar");
    NodeKey from;
    EXPECT_EQ(alice.received(&from), "from afar");
    EXPECT_EQ(from, far);
    for (int i = 0; i < 5; ++i) forward(far, "unknown");
    for (int i = 0; i < 10; ++i) forward(far, disco());
    for (int i = 0; i < 3; ++i) {
        auto gone = peer.next_of(FrameType::PeerGone);
        ASSERT_TRUE(gone);
        EXPECT_EQ(*derp::parse_peer_gone(gone->payload), (derp::PeerGone{far, derp::GoneReason::NotHere}));
    }
    EXPECT_EQ(sum(&Counters::peer_gone_sent), 3U) << "of ten, and none for what is no discovery";
    peer.frame(FrameType::ClosePeer, alice.key().view());
    EXPECT_TRUE(alice.is_closed_by_relay());
}

TEST_P(CoreTest, AsksWhoMayComeIn) { // 26
    shared.settings.ask_control = true;
    NodePrivateKey good = NodePrivateKey::generate();
    shared.ask_control = [&](const NodeKey& key, const IpAddress& from, const std::function<void(bool)>& answer) {
        EXPECT_EQ(from.text(), "192.0.2.7");
        answer(key == good.public_key());
    };
    TestClient friendly = logged_in(good);
    TestClient stranger = connect();
    EXPECT_FALSE(stranger.log_in(shared.settings.public_key));
    EXPECT_TRUE(stranger.is_closed_by_relay());
    EXPECT_EQ(sum(&Counters::logins_refused), 1U);
    TestClient peer = mesh_peer(); // relays need no admission
}

TEST_P(CoreTest, BelievesWhoStandsInFrontAboutTheClient) {
    shared.settings.ask_control = true;
    std::mutex mutex;
    std::vector<std::string> asked;
    shared.ask_control = [&](const NodeKey&, const IpAddress& from, const std::function<void(bool)>& answer) {
        std::lock_guard lock{mutex};
        asked.push_back(from.text());
        answer(true);
    };
    const std::string request = "GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nTailrace-Client: [2001:db8::9]:5\r\n"
                                "Derp-Fast-Start: 1\r\n\r\n";
    for (const Endpoint& peer : {Endpoint{}, *Endpoint::parse("192.0.2.7:40000")}) { // a Unix socket, and a stranger
        TestClient client = connect(NodePrivateKey::generate(), Door::Derp, peer);
        client.set_server(shared.settings.public_key);
        client.write(request);
        client.frame(FrameType::ClientInfo, client.client_info({}));
        EXPECT_TRUE(client.next_of(FrameType::ServerInfo));
    }
    EXPECT_THAT(asked, ElementsAre("2001:db8::9", "192.0.2.7"));
}

TEST_P(CoreTest, WhereAListAndControlAreAskedBothMustAgree) { // 26
    shared.settings.ask_control = true;
    NodePrivateKey both = NodePrivateKey::generate(), listed = NodePrivateKey::generate(),
                   known = NodePrivateKey::generate();
    shared.ask_control = [&](const NodeKey& key, const IpAddress&, const std::function<void(bool)>& answer) {
        answer(key != listed.public_key());
    };
    start();
    auto list = std::make_shared<const KeyList>(KeyList{both.public_key(), listed.public_key()});
    for (auto& core : shared.cores) core->post([list](Core& one) { one.set_key_list(list); });
    EXPECT_TRUE(connect(both).log_in(shared.settings.public_key));
    EXPECT_FALSE(connect(listed).log_in(shared.settings.public_key));
    EXPECT_FALSE(connect(known).log_in(shared.settings.public_key));
}

TEST_P(CoreTest, AKeyListLetsInAndThrowsOut) {
    start();
    NodePrivateKey good = NodePrivateKey::generate();
    auto set_list = [&](KeyList list) {
        for (auto& core : shared.cores)
            core->post([list = std::make_shared<const KeyList>(list)](Core& one) { one.set_key_list(list); });
    };
    set_list({good.public_key()});
    TestClient friendly = logged_in(good);
    TestClient stranger = connect();
    EXPECT_FALSE(stranger.log_in(shared.settings.public_key));
    set_list({});
    EXPECT_TRUE(friendly.is_closed_by_relay());
}

TEST_P(CoreTest, SpeaksWebSocket) { // 5
    TestClient client = connect();
    client.set_server(shared.settings.public_key);
    client.write("GET /derp HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                 "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: derp\r\n\r\n");
    EXPECT_THAT(client.read_head(), HasSubstr("Sec-WebSocket-Accept"));
    WebSocketCodec codec{WebSocketCodec::Side::Client};
    Bytes info = derp::write_frame(FrameType::ClientInfo, client.client_info({}));
    Bytes message;
    for (std::size_t at = 0; at < info.size(); at += 50) // a frame cut over three messages
        ASSERT_TRUE(codec.seal(BytesView{info}.subspan(at, std::min<std::size_t>(50, info.size() - at)), message));
    ASSERT_TRUE(codec.seal(derp::write_frame(FrameType::SendPacket, TestClient::packet_payload(client.key(), "echo")),
                           message));
    client.write(message);
    derp::FrameStream frames;
    std::vector<FrameType> seen;
    std::string echoed;
    while (echoed.empty()) {
        Bytes one = client.read_exactly(1), plain;
        ASSERT_FALSE(one.empty());
        ASSERT_TRUE(codec.open(one, plain));
        auto any = [](FrameType) { return std::optional<std::size_t>{1000}; };
        ASSERT_TRUE(frames.feed(plain, any, [&](FrameType type, BytesView payload) {
            seen.push_back(type);
            if (type == FrameType::RecvPacket) echoed = as_chars(payload.subspan(32));
            return derp::FrameStream::Next::Continue;
        }));
    }
    EXPECT_EQ(seen, (std::vector<FrameType>{FrameType::ServerKey, FrameType::ServerInfo, FrameType::RecvPacket}));
    EXPECT_EQ(echoed, "echo");
}

/// The listening socket of a relay that is dialled, and then that relay itself.
class OtherRelay {
public:
    OtherRelay() : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), key(NodePrivateKey::generate()) {
        sockaddr_storage address{};
        socklen_t length = Endpoint::parse("127.0.0.1:0")->to_sockaddr(address);
        EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
        EXPECT_EQ(::listen(listener_.get(), 1), 0);
        length = sizeof address;
        EXPECT_EQ(::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
        at = Endpoint::from_sockaddr(reinterpret_cast<sockaddr*>(&address));
    }
    /// Up to the first frame of the other side.
    TestClient accept() {
        TestClient link{Fd{::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)}, key};
        EXPECT_THAT(link.read_head(), StartsWith("GET /derp HTTP/1.1\r\n"));
        link.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\n\r\n");
        link.frame(FrameType::ServerKey, derp::write_server_key(key.public_key()));
        return link;
    }

private:
    Fd listener_;

public:
    NodePrivateKey key;
    Endpoint at;
};

TEST_P(CoreTest, AMeshLinkCarriesToWhoIsThereUntilItSaysOtherwise) { // 25
    OtherRelay other;
    start();
    std::promise<std::string> ended;
    shared.cores.front()->post([&](Core& core) {
        auto link = std::make_unique<MeshLink>();
        link->host = "127.0.0.1";
        link->tls = false;
        link->on_end = [&](const std::string& why, bool) { ended.set_value(why); };
        core.start_link(std::move(link), other.at, *TlsContext::client(TlsContext::Verify::None));
    });
    TestClient link = other.accept();
    auto info = link.next_of(FrameType::ClientInfo);
    ASSERT_TRUE(info);
    auto opened = derp::open_client_info(info->payload, other.key);
    EXPECT_TRUE(opened && opened->mesh_key && *opened->mesh_key == *shared.settings.mesh_key);
    EXPECT_TRUE(link.next_of(FrameType::WatchConns));

    TestClient alice = logged_in();
    for (auto reason : {derp::GoneReason::Disconnected, derp::GoneReason::NotHere}) {
        NodeKey far = NodePrivateKey::generate().public_key();
        link.frame(FrameType::PeerPresent, derp::write_peer_present({far, other.at, derp::kPresentRegular}));
        ASSERT_TRUE(wait_until([&] { return sum(&Counters::forwarded_keys) == 1; }));
        alice.packet(far, "to afar");
        auto forwarded = link.next_of(FrameType::ForwardPacket);
        ASSERT_TRUE(forwarded);
        auto view = derp::parse_forward(forwarded->payload);
        ASSERT_TRUE(view);
        EXPECT_EQ(view->from, alice.key());
        EXPECT_EQ(view->to, far);
        EXPECT_EQ(as_chars(view->packet), "to afar");
        link.frame(FrameType::PeerGone, derp::write_peer_gone({far, reason}));
        ASSERT_TRUE(wait_until([&] { return sum(&Counters::forwarded_keys) == 0; }));
        alice.packet(far, disco());
        auto gone = alice.next_of(FrameType::PeerGone);
        ASSERT_TRUE(gone);
        EXPECT_EQ(*derp::parse_peer_gone(gone->payload), (derp::PeerGone{far, derp::GoneReason::NotHere}));
    }
    link.close();
    EXPECT_EQ(ended.get_future().get(), "the other relay closes it");
}

TEST_P(CoreTest, ABlockedClientIsGivenUpAndCostsTheOthersNothing) { // 14
    EXPECT_EQ(CoreSettings{}.write_timeout, 2s);
    shared.settings.write_timeout = 300ms;
    TestClient alice = logged_in(), bob = logged_in(), stuck = logged_in();
    std::string large(8000, 'x');
    for (int i = 0; i < 500; ++i) {
        alice.packet(stuck.key(), large);
        alice.packet(bob.key(), "still here");
        ASSERT_EQ(bob.received(), "still here");
    }
    ASSERT_TRUE(wait_until([&] { return sum(&Counters::write_timeouts) == 1; }));
    EXPECT_TRUE(stuck.is_closed_by_relay());
}

TEST_P(CoreTest, PacesTheReadsOfAGreedyClient) {
    set_rate_limit({1'000'000, 100'000});
    TestClient alice = logged_in(), bob = logged_in();
    auto start_time = std::chrono::steady_clock::now();
    std::thread sender{[&] {
        for (int i = 0; i < 60; ++i) alice.packet(bob.key(), std::string(10'000, 'x'));
    }};
    for (int i = 0; i < 60; ++i) ASSERT_EQ(bob.received().size(), 10'000U) << "paced, not dropped";
    sender.join();
    EXPECT_GE(std::chrono::steady_clock::now() - start_time, 300ms);
}

TEST_P(CoreTest, AnotherPaceHoldsForThoseWhoAreHereToo) {
    TestClient alice = logged_in(), bob = logged_in();
    set_rate_limit({1, 65568}); // a packet of 10,000 bytes would have to wait for hours
    alice.settle();
    std::atomic<int> sent{0};
    std::thread sender{[&] {
        for (int i = 0; i < 60; ++i, ++sent) alice.packet(bob.key(), std::string(10'000, 'x'));
    }};
    for (int i = 0; i < 6; ++i) ASSERT_EQ(bob.received().size(), 10'000U) << "the burst";
    EXPECT_FALSE(wait_until([&] { return sent == 60; }, 300ms));
    set_rate_limit({});
    for (int i = 6; i < 60; ++i) ASSERT_EQ(bob.received().size(), 10'000U) << "who waited need not wait any more";
    sender.join();
}

TEST_P(CoreTest, RelaysOfTheRegionHaveNoPace) {
    set_rate_limit({1, 65568});
    TestClient alice = logged_in(), peer = mesh_peer();
    for (int i = 0; i < 60; ++i) {
        peer.packet(alice.key(), std::string(10'000, 'x'));
        ASSERT_EQ(alice.received().size(), 10'000U);
    }
}

TEST_P(CoreTest, ARestartIsAnnouncedAndLosesNothingThatWasRead) {
    TestClient alice = logged_in(), bob = logged_in();
    for (int i = 0; i < 50; ++i) alice.packet(bob.key(), fmt::format("{}", i));
    alice.settle(); // all read
    for (auto& core : shared.cores) core->post([](Core& one) { one.announce_restart({1500, 9000}); });
    auto restarting = alice.next_of(FrameType::Restarting);
    ASSERT_TRUE(restarting);
    EXPECT_EQ(*derp::parse_restarting(restarting->payload), (derp::Restarting{1500, 9000}));
    for (auto& core : shared.cores) core->post([](Core& one) { one.stop_reading(); });
    std::atomic<int> quiet{0};
    ASSERT_TRUE(wait_until([&] {
        quiet = 0;
        std::atomic<std::size_t> answered{0};
        for (auto& core : shared.cores)
            core->post([&](Core& one) {
                if (one.is_quiet()) ++quiet;
                ++answered;
            });
        while (answered < shared.cores.size()) std::this_thread::sleep_for(1ms);
        return quiet == static_cast<int>(shared.cores.size());
    }));
    for (auto& core : shared.cores) core->post([](Core& one) { one.say_goodbye(); });
    for (int i = 0; i < 50; ++i) ASSERT_EQ(bob.received(), fmt::format("{}", i));
    EXPECT_TRUE(bob.is_closed_by_relay()) << "the end of the stream, not a reset";
}

INSTANTIATE_TEST_SUITE_P(Cores, CoreTest, ::testing::Values(1U, 3U));

} // namespace
} // namespace tailrace::relay
