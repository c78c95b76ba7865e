#include "tests/unit/agent/relayed_path.hpp"

namespace tailrace {
namespace {

TEST_F(RelayedPath, AnIdlePeerIsRelayedAndCostsNothing) {
    EXPECT_EQ(in_force_, kRelayed);
    EXPECT_THAT(pinged(), IsEmpty());
    EXPECT_EQ(book_.next_timer(), std::nullopt);
}

TEST_F(RelayedPath, TheFirstPacketStartsASearchAndACall) {
    book_.on_relayed_packet(at(1s), kAlice);
    take();
    EXPECT_THAT(pinged(), ElementsAre(kPublic));
    EXPECT_EQ(calls_, 1);
    EXPECT_EQ(in_force_, kRelayed);
    book_.on_relayed_packet(at(2s), kAlice);
    take();
    EXPECT_THAT(pinged(), IsEmpty());
    EXPECT_EQ(calls_, 0) << "not with every packet";
}

TEST_F(RelayedPath, APongMakesItDirectAndItsAbsenceRelayedAgain) {
    go_direct();
    EXPECT_EQ(in_force_, kPublic);
    for (Duration now = 3s; now < 10s; now += 100ms) {
        book_.on_traffic(at(now), kAlice);
        tick(now);
        if (now < 100ms + PathBook::kTrustFor)
            EXPECT_EQ(in_force_, kPublic) << now.count();
        else
            EXPECT_EQ(in_force_, kRelayed) << now.count();
    }
    EXPECT_TRUE(book_.is_contested(at(10s)));
}

TEST_F(RelayedPath, ADirectPathIsBetterThanTheRelayHoweverSlowItIs) { // 56
    book_.on_relayed_packet(at(0s), kAlice);
    take();
    pong_all(4900ms);
    EXPECT_EQ(in_force_, kPublic);
    EXPECT_EQ(book_.state(at(4900ms), kAlice).round_trip, 4900ms);
    book_.on_kernel_endpoint(at(5s), kAlice, kRelayed); // what is still on its way by the relay
    take();
    EXPECT_EQ(in_force_, kPublic);
}

TEST_F(RelayedPath, HeartbeatsKeepItDirectWhileThereIsTraffic) {
    go_direct();
    for (Duration now = 1s; now < 60s; now += 500ms) {
        book_.on_traffic(at(now), kAlice);
        tick(now);
        pong_all(now + 10ms);
        EXPECT_EQ(in_force_, kPublic);
    }
    for (Duration now = 60s; now < 120s; now += 500ms) {
        tick(now);
        pong_all(now + 10ms);
    }
    EXPECT_EQ(in_force_, kRelayed) << "45 s after the last packet nobody pings any more";
    EXPECT_EQ(book_.next_timer(), std::nullopt);
}

TEST_F(RelayedPath, TheKernelIsNotLeftOnAPathThatNoPongProved) {
    book_.on_relayed_packet(at(0s), kAlice);
    take();
    book_.on_relayed_arrival(at(900ms), kAlice); // a peer that sends twice, for it trusts no path either
    book_.on_kernel_endpoint(at(1s), kAlice, kOther);
    take();
    EXPECT_EQ(in_force_, kRelayed);
    EXPECT_THAT(pinged(), ElementsAre(kOther));
    pong_all(1100ms);
    EXPECT_EQ(in_force_, kOther);
}

TEST_F(RelayedPath, APeerWhoseAgentIsAwayStaysWhereItIsHeard) {
    book_.on_relayed_packet(at(0s), kAlice);
    EXPECT_EQ(book_.direct_guess(kAlice), kPublic);
    book_.on_kernel_endpoint(at(1s), kAlice, kPublic); // it answered the handshake there
    for (Duration now = 1s; now < 30s; now += 1s) {
        book_.on_traffic(at(now), kAlice);
        book_.on_data(at(now - 1s), at(now), kAlice, kPublic);
        tick(now); // no pong, ever
        EXPECT_EQ(book_.state(at(now), kAlice).endpoint, kPublic) << now.count();
    }
    tick(37s);
    EXPECT_EQ(in_force_, kRelayed) << "silence ends the trust";
}

class LookedAt : public RelayedPath, public testing::WithParamInterface<Duration> {};
INSTANTIATE_TEST_SUITE_P(Phases, LookedAt, testing::Values(150ms, 400ms, 650ms, 900ms, 1050ms));

TEST_P(LookedAt, APeerWhoseAgentEndsKeepsItsPath) {
    go_direct();
    for (Duration now = GetParam(); now < 20s; now += 1s) { // however the looks fall between the heartbeats
        book_.on_traffic(at(now), kAlice);
        book_.on_data(at(now - 1s), at(now), kAlice, kPublic);
        tick(now);
        ASSERT_EQ(in_force_, kPublic) << now.count();
        ASSERT_TRUE(book_.state(at(now), kAlice).trusted) << now.count();
    }
}

TEST_F(RelayedPath, DataBeforeTheNextHeartbeatProvesNothing) {
    go_direct();
    for (Duration now = 1s; now <= 7s; now += 1s) { // the path ends after 2.9 s, before the next heartbeat's answer
        book_.on_traffic(at(now), kAlice);
        if (now <= 3s) book_.on_data(at(now - 1s), at(now), kAlice, kPublic);
        tick(now);
    }
    EXPECT_EQ(in_force_, kRelayed) << "6.5 s after the last pong";
}

TEST_F(RelayedPath, AStragglerOfTheRelayDoesNotTakeTheKernelBack) {
    go_direct();
    book_.on_kernel_endpoint(at(1s), kAlice, kRelayed);
    take();
    EXPECT_EQ(in_force_, kPublic);
}

TEST_F(RelayedPath, ACallIsAnsweredByPingsToAllItNamesAndByNoCall) {
    book_.on_call_me_maybe(at(1s), kAliceDisco, kAlice, {kOther});
    take();
    EXPECT_THAT(pinged(), testing::UnorderedElementsAre(kPublic, kOther));
    EXPECT_EQ(calls_, 0);
    book_.on_call_me_maybe(at(2s), kAliceDisco, kAlice, {kPublic, kOther});
    take();
    EXPECT_THAT(pinged(), IsEmpty()) << "a call on the heels of another";
    book_.on_call_me_maybe(at(6s), kAliceDisco, kAlice, {kPublic});
    take();
    EXPECT_THAT(pinged(), ElementsAre(kPublic)) << "what the last call named and this one does not is gone";
    book_.on_call_me_maybe(at(7s), DiscoKey{}, kAlice, {kOther});
    book_.on_call_me_maybe(at(7s), kAliceDisco, key(7), {kOther});
    take();
    EXPECT_THAT(pinged(), IsEmpty()) << "a call by another key, or for another node";
}

TEST_F(RelayedPath, NewAddressesOfOursAreToldToWhoLooksForUsInVain) {
    book_.on_own_endpoints(at(0s));
    take();
    EXPECT_EQ(calls_, 0) << "nobody talks";
    book_.on_relayed_packet(at(1s), kAlice);
    take();
    EXPECT_EQ(calls_, 1);
    book_.on_own_endpoints(at(2s));
    take();
    EXPECT_EQ(calls_, 1) << "at once, although the last call is not five seconds old";
    tick(6s);
    pong_all(6100ms);
    book_.on_own_endpoints(at(7s));
    take();
    EXPECT_EQ(calls_, 0) << "the path works";
}

TEST_F(RelayedPath, APingThatComesBeforeOurLostOneIsAnsweredByAnother) {
    book_.on_relayed_packet(at(0s), kAlice);
    take();
    ASSERT_THAT(pinged(), ElementsAre(kPublic));
    book_.on_ping(at(2ms), kAliceDisco, kAlice, DiscoTxId{}, kPublic);
    take();
    EXPECT_THAT(pinged(), ElementsAre(kPublic));
}

TEST_F(RelayedPath, TheSamePingTwiceIsAnsweredOnce) {
    auto pongs = [&] {
        int count = 0;
        for (const PathAction& action : book_.take_actions()) count += std::holds_alternative<SendPong>(action);
        return count;
    };
    book_.on_ping(at(1s), kAliceDisco, kAlice, DiscoTxId{std::byte{9}}, kOther);
    book_.on_ping(at(1s), kAliceDisco, kAlice, DiscoTxId{std::byte{9}}, kOther);
    EXPECT_EQ(pongs(), 1);
}

TEST_F(RelayedPath, APathThatIsDoubtfulGetsASecondCopyWhereThePeerDoesNotFollowIt) { // 51
    for (bool follows : {false, true}) {
        Duration start = follows ? 1h : 0s;
        book_.set_peers(at(start), {{kAlice, kAliceDisco, {kPublic}, 900, kRelayed, follows}});
        book_.on_relayed_packet(at(start), kAlice);
        EXPECT_EQ(book_.second_copy(at(start), kAlice), std::nullopt) << "nothing ever worked";
        take();
        pong_all(start + 100ms);
        ASSERT_EQ(in_force_, kPublic);
        std::optional<Duration> first, last;
        for (Duration since = 200ms; since < 20s; since += 100ms) { // no pong any more
            if (since % 1s == 0s) book_.on_relayed_packet(at(start + since), kAlice);
            tick(start + since);
            auto copy = book_.second_copy(at(start + since), kAlice);
            if (!copy) continue;
            EXPECT_EQ(copy, kPublic);
            EXPECT_EQ(in_force_, kRelayed) << "and the relay gets one";
            if (!first) first = since;
            last = since;
        }
        EXPECT_EQ(first.has_value(), !follows);
        if (first) {
            EXPECT_THAT(*first, testing::AllOf(testing::Ge(6600ms), testing::Le(6700ms)));
            EXPECT_LE(*last, 12s) << "until a ping to it is given up";
        }
    }
}

TEST_F(RelayedPath, WithoutARelayTheLastDirectAddressStandsIn) {
    go_direct();
    book_.on_timer(at(60s));
    take();
    ASSERT_EQ(in_force_, kRelayed);
    book_.set_relaying(at(61s), false);
    take();
    EXPECT_EQ(in_force_, kPublic);
}

TEST_F(RelayedPath, ARegionThatCannotBeReachedCostsOnlyItsPeers) {
    go_direct();
    book_.on_timer(at(60s));
    take();
    ASSERT_EQ(in_force_, kRelayed);
    book_.set_relaying(at(61s), true, 901);
    take();
    EXPECT_EQ(in_force_, kRelayed) << "its home is another one";
    book_.set_relaying(at(62s), true, 900);
    take();
    EXPECT_EQ(in_force_, kPublic);
    book_.set_relaying(at(63s), true);
    book_.on_timer(at(63s));
    take();
    EXPECT_EQ(in_force_, kRelayed);
}

TEST_F(RelayedPath, WhatASilentPeerMakesUsPingIsForgotten) {
    std::uint32_t address = 0xc6336400u;
    std::size_t most = 0;
    for (Duration now = 0s; now < 30s; now += 10ms) {
        std::vector<Endpoint> fresh;
        for (int i = 0; i < 50; ++i) fresh.push_back({IpAddress::v4(address++), 1000});
        book_.on_call_me_maybe(at(now), kAliceDisco, kAlice, fresh);
        take();
        while (book_.next_timer() && *book_.next_timer() <= at(now)) tick(now);
        most = std::max(most, book_.pings_under_way());
    }
    EXPECT_GE(most, PathBook::kMaxCandidates) << "there was a flood";
    EXPECT_LE(most, static_cast<std::size_t>(PathBook::kPeerPingBurst + 6 * PathBook::kPeerPingsPerSecond));
    tick(40s);
    EXPECT_EQ(book_.pings_under_way(), 0u);
    EXPECT_EQ(book_.next_timer(), std::nullopt) << "then silence costs nothing";
}

TEST_F(RelayedPath, ParkingLeavesEveryPeerWhereItLastAnswered) {
    go_direct();
    book_.on_timer(at(60s));
    take();
    book_.park(at(61s));
    take();
    EXPECT_EQ(in_force_, kPublic);
}

TEST_F(RelayedPath, AnAdoptedPathIsComparedWithTheOthersOnce) {
    book_.set_peers(at(0s), {{kAlice, kAliceDisco, {kPublic, kOther}, 900, kRelayed}});
    book_.on_kernel_endpoint(at(0s), kAlice, kPublic); // an earlier agent left it there
    take();
    pong_all(1ms);
    ASSERT_EQ(book_.state(at(2ms), kAlice).endpoint, kPublic);
    book_.on_traffic(at(10ms), kAlice);
    take();
    EXPECT_THAT(pinged(), ElementsAre(kOther));
    EXPECT_EQ(calls_, 1);
    for (Duration now = 1s; now < 58s; now += 1s) {
        book_.on_traffic(at(now), kAlice);
        tick(now);
        EXPECT_THAT(pinged(), testing::Not(testing::Contains(kOther))) << now.count();
        pong_all(now + 1ms);
    }
}

TEST_F(RelayedPath, WhatNobodyUnderstoodIsAskedAgainWhenTheAdoptedPathAnswers) {
    book_.set_peers(at(0s), {{kAlice, kAliceDisco, {kPublic, kOther}, 900, kRelayed}});
    book_.on_kernel_endpoint(at(0s), kAlice, kPublic);
    book_.on_traffic(at(10ms), kAlice);
    take();
    ASSERT_THAT(pinged(),
                testing::UnorderedElementsAre(kPublic, kOther)); // sealed by a key that alice is still to be told
    std::vector<Duration> asked_again;
    for (Duration now = 1s; now < 58s; now += 1s) {
        book_.on_traffic(at(now), kAlice);
        tick(now);
        for (const Endpoint& endpoint : pinged())
            if (endpoint == kOther) asked_again.push_back(now);
        pong_all(now + 1ms);
    }
    EXPECT_THAT(asked_again, ElementsAre(testing::AllOf(testing::Ge(5s), testing::Le(7s))));
}

TEST_F(RelayedPath, WhatAnswersIsBetterThanAnAdoptedPathThatDoesNot) {
    book_.set_peers(at(0s), {{kAlice, kAliceDisco, {kPublic, kOther}, 900, kRelayed}});
    book_.on_kernel_endpoint(at(0s), kAlice, kPublic);
    book_.on_traffic(at(10ms), kAlice);
    take();
    ASSERT_THAT(pinged(), testing::UnorderedElementsAre(kPublic, kOther));
    for (const SendPing& ping : std::vector{pings_})
        if (ping.to == kOther) book_.on_pong(at(30ms), kAliceDisco, ping.id, ping.to);
    take();
    EXPECT_EQ(in_force_, kOther);
}

TEST_F(RelayedPath, ALatePacketOfAMuchWorsePathDoesNotUndoTheBetterOne) {
    for (Duration other : {2ms, 40ms}) {
        Duration start = other == 2ms ? 0s : 300s;
        book_.set_peers(at(start), {{kAlice, kAliceDisco, {kPublic, kOther}, 900, kRelayed}});
        book_.on_relayed_packet(at(start), kAlice);
        take();
        ASSERT_EQ(pings_.size(), 2U);
        for (const SendPing& ping : std::vector{pings_})
            book_.on_pong(at(start + (ping.to == kPublic ? 2ms : other)), kAliceDisco, ping.id, ping.to);
        take();
        Endpoint best = *in_force_;
        Endpoint second = best == kPublic ? kOther : kPublic;
        book_.on_kernel_endpoint(at(start + 1s), kAlice, second);
        take();
        EXPECT_EQ(book_.endpoint(kAlice), other == 2ms ? second : best) << "much alike: as the peer likes";
        tick(start + 100s);
    }
}

struct Upgrade {
    Duration round_trip;
    std::vector<int> seconds; ///< when another address is tried
};
class UpgradeOf : public RelayedPath, public testing::WithParamInterface<Upgrade> {};
INSTANTIATE_TEST_SUITE_P(RoundTrips, UpgradeOf, // 55
                         testing::Values(Upgrade{4ms, {}}, Upgrade{5ms, {}}, Upgrade{6ms, {60, 120}}));

TEST_P(UpgradeOf, ASlowPathIsComparedEachMinute) {
    book_.set_peers(at(0s), {{kAlice, kAliceDisco, {kPublic, kOther}, 900, kRelayed}});
    book_.on_relayed_packet(at(0s), kAlice);
    take(); // both are tried; one answers
    std::vector<int> seconds;
    for (Duration now = 0s; now < 150s; now += 1s) {
        book_.on_traffic(at(now), kAlice);
        if (now > 0s) tick(now);
        if (now > 0s && testing::Value(pinged(), testing::Contains(kOther))) {
            seconds.push_back(static_cast<int>(now / 1s));
            EXPECT_EQ(calls_, 1) << "and the peer is asked to do the same";
        }
        for (const SendPing& ping : std::vector{pings_})
            if (ping.to == kPublic) book_.on_pong(at(now + GetParam().round_trip), kAliceDisco, ping.id, ping.to);
        take();
    }
    EXPECT_EQ(seconds, GetParam().seconds);
    EXPECT_EQ(in_force_, kPublic);
}

TEST_F(RelayedPath, APongThatComesTooLateCountsForNothing) { // 46
    for (Duration late : {5000ms, 5001ms}) {
        TimePoint start = at(late == 5000ms ? 100s : 200s);
        book_.on_relayed_packet(start, kAlice);
        take();
        ASSERT_FALSE(pings_.empty());
        book_.on_pong(start + late, kAliceDisco, pings_[0].id, kPublic);
        EXPECT_EQ(book_.state(start + late, kAlice).trusted, late == 5000ms);
        book_.on_timer(start + 60s);
        take();
    }
}

} // namespace
} // namespace tailrace
