#include "tests/unit/agent/relayed_path.hpp"

namespace tailrace {
namespace {

// -- A relay that lies. It sees what is sealed for others, and may say that it came from anybody, twice, or later.

const NodeKey kBob = key(2);
const DiscoKey kBobDisco{std::array<std::byte, 32>{std::byte{3}}};
const Endpoint kBobRelayed = *Endpoint::parse("127.64.0.10:50000");

class LyingRelay : public RelayedPath {
protected:
    /// Alice is direct at kPublic; bob is relayed, and said nothing lately.
    LyingRelay() {
        book_.set_peers(at(0s),
                        {{kAlice, kAliceDisco, {kPublic}, 900, kRelayed}, {kBob, kBobDisco, {}, 900, kBobRelayed}});
        take();
        go_direct();
        EXPECT_EQ(book_.endpoint(kBob), kBobRelayed);
    }
};

TEST_F(LyingRelay, BobsPacketsInAlicesNameDoNotTakeHimToHerAddress) {
    book_.on_traffic(at(1s), kBob);
    for (Duration now = 1s; now < 20s; now += 1s) { // WireGuard follows each
        book_.on_traffic(at(now), kAlice);
        tick(now);
        pong_all(now + 10ms);
        book_.on_kernel_endpoint(at(now), kBob, kPublic);
        auto actions = book_.take_actions();
        EXPECT_THAT(actions, testing::Contains(testing::VariantWith<UseEndpoint>(
                                 testing::AllOf(testing::Field(&UseEndpoint::peer, kBob),
                                                testing::Field(&UseEndpoint::endpoint, kBobRelayed)))));
        book_.on_data(at(now - 1s), at(now), kBob, kPublic);
        EXPECT_FALSE(book_.state(at(now), kBob).trusted);
        EXPECT_EQ(book_.endpoint(kBob), kBobRelayed);
    }
    EXPECT_EQ(book_.endpoint(kAlice), kPublic);
}

TEST_F(LyingRelay, BobTakesOverAlicesAddressWhenHeAnswersThere) {
    book_.on_traffic(at(1s), kBob);
    take();
    book_.on_ping(at(1s), kBobDisco, kBob, DiscoTxId{std::byte{9}}, kPublic);
    take();
    ASSERT_THAT(pinged(), ElementsAre(kPublic));
    book_.on_pong(at(1010ms), kBobDisco, pings_[0].id, kPublic);
    book_.on_kernel_endpoint(at(2s), kBob, kPublic);
    EXPECT_EQ(book_.endpoint(kBob), kPublic);
    EXPECT_TRUE(book_.state(at(2s), kBob).trusted);
}

TEST_F(LyingRelay, AnotherSendersMessagesAreNotHis) {
    book_.on_ping(at(1s), kBobDisco, kAlice, DiscoTxId{std::byte{9}}, relay_endpoint(900));
    book_.on_call_me_maybe(at(1s), kBobDisco, kAlice, {kOther});
    take();
    EXPECT_THAT(pinged(), IsEmpty());
    book_.on_traffic(at(3s), kAlice);
    take();
    ASSERT_THAT(pinged(), ElementsAre(kPublic));
    book_.on_pong(at(3100ms), kBobDisco, pings_[0].id, kPublic);
    EXPECT_FALSE(book_.state(at(7s), kAlice).trusted) << "6.5 s after her own pong";
}

TEST_F(LyingRelay, AnOldCallCostsALivingPathNothing) {
    for (Duration now = 1s; now < 60s; now += 500ms) {
        book_.on_traffic(at(now), kAlice);
        tick(now);
        // Two recorded ones in turn: the one that names her address, and the one from before she had it.
        book_.on_call_me_maybe(at(now), kAliceDisco, kAlice,
                               now % 1s == 0s ? std::vector{kPublic} : std::vector{kOther});
        take();
        std::size_t asked = pings_.size();
        EXPECT_LE(asked, 3U);
        for (const SendPing& ping : std::vector{pings_})
            if (ping.to == kPublic) book_.on_pong(at(now + 20ms), kAliceDisco, ping.id, ping.to);
        take();
        tick(now + 400ms);
        for (const SendPing& ping : std::vector{pings_})
            if (ping.to == kPublic) book_.on_pong(at(now + 420ms), kAliceDisco, ping.id, ping.to);
        ASSERT_EQ(in_force_, kPublic) << now.count();
    }
}

TEST_F(LyingRelay, ACallOfAPeerThatHasMovedEndsTheOldPathSoon) {
    book_.on_traffic(at(1s), kAlice);
    book_.on_call_me_maybe(at(1s), kAliceDisco, kAlice, {kPublic});
    take();
    pong_all(1010ms);
    book_.on_call_me_maybe(at(6s), kAliceDisco, kAlice, {kOther});
    take();
    EXPECT_THAT(pinged(), testing::UnorderedElementsAre(kPublic, kOther));
    EXPECT_EQ(in_force_, kPublic);
    tick(6300ms);
    EXPECT_EQ(in_force_, kRelayed) << "no answer to the question whether it still works";
}

TEST_F(LyingRelay, ForgedSourcesDoNotPushOutWhatControlNames) {
    book_.set_peers(at(1s), {{kAlice, kAliceDisco, {kPublic, kOther}, 900, kRelayed}});
    for (std::uint16_t port = 1; port < 500; ++port) // one ping of hers, said again from everywhere
        book_.on_ping(at(1s), kAliceDisco, kAlice, DiscoTxId{std::byte{9}}, Endpoint{kOther.address, port});
    auto candidates = book_.candidates(at(1s), kAlice);
    EXPECT_LE(candidates.size(), PathBook::kMaxCandidates);
    EXPECT_EQ(std::ranges::count_if(candidates, [](const auto& one) { return one.from_control; }), 2);
}

} // namespace
} // namespace tailrace
