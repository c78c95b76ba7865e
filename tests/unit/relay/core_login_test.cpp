// Who comes in, by which door. Numbers: derp-disco-paths.md 8.
#include "base/io/websocket.hpp"
#include "tests/unit/relay/core_fixture.hpp"

#include <gmock/gmock.h>

#include <mutex>

namespace tailrace::relay {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

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

} // namespace
} // namespace tailrace::relay
