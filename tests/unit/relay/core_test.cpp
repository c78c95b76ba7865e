// What becomes of packets and of other frames. Numbers: derp-disco-paths.md 8.
#include "tests/unit/relay/core_fixture.hpp"

#include <atomic>

namespace tailrace::relay {
namespace {

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

INSTANTIATE_TEST_SUITE_P(Cores, CoreTest, ::testing::Values(1U, 3U)); // of all files

} // namespace
} // namespace tailrace::relay
