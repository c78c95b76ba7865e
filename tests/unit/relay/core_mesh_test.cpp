// Relays among themselves. Numbers: derp-disco-paths.md 8.
#include "tests/unit/relay/core_fixture.hpp"

#include <gmock/gmock.h>

#include <future>

namespace tailrace::relay {
namespace {

using ::testing::StartsWith;

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

TEST_P(CoreTest, RelaysOfTheRegionHaveNoPace) {
    set_rate_limit({1, 65568});
    TestClient alice = logged_in(), peer = mesh_peer();
    for (int i = 0; i < 60; ++i) {
        peer.packet(alice.key(), std::string(10'000, 'x'));
        ASSERT_EQ(alice.received().size(), 10'000U);
    }
}

} // namespace
} // namespace tailrace::relay
