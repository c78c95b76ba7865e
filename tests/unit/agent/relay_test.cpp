#include "agent/path/net_report.hpp"
#include "agent/path/own_endpoints.hpp"
#include "agent/path/path_book.hpp"
#include "agent/relay/relay_addresses.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;

TimePoint at(Duration since_start) {
    return TimePoint{} + 1h + since_start;
}

NodeKey key(int number) {
    return NodeKey{std::array<std::byte, 32>{std::byte(number), std::byte(number >> 8)}};
}

const NodeKey kAlice = key(1);
const DiscoKey kAliceDisco{std::array<std::byte, 32>{std::byte{2}}};
const Endpoint kPublic = *Endpoint::parse("203.0.113.9:41641");
const Endpoint kOther = *Endpoint::parse("198.51.100.7:41641");
const Endpoint kRelayed = *Endpoint::parse("127.64.0.9:50000");

/// A book with one peer, whose home is region 900.
class RelayedPath : public testing::Test {
protected:
    RelayedPath()
        : book_([this] {
              DiscoTxId id{};
              id[0] = static_cast<std::byte>(++last_id_);
              return id;
          }) {
        book_.set_relaying(at(0s), true);
        book_.set_peers(at(0s), {{kAlice, kAliceDisco, {kPublic}, 900, kRelayed}});
        take();
    }
    void take() {
        pings_.clear();
        calls_ = 0;
        for (const PathAction& action : book_.take_actions()) {
            if (const auto* ping = std::get_if<SendPing>(&action)) pings_.emplace_back(*ping);
            if (std::holds_alternative<SendCallMeMaybe>(action)) ++calls_;
            if (const auto* use = std::get_if<UseEndpoint>(&action)) in_force_ = use->endpoint;
        }
    }
    std::vector<Endpoint> pinged() const {
        std::vector<Endpoint> out;
        for (const SendPing& ping : pings_) out.push_back(ping.to);
        return out;
    }
    void pong_all(Duration when) {
        auto pings = pings_;
        for (const SendPing& ping : pings) book_.on_pong(at(when), kAliceDisco, ping.id, ping.to);
        take();
    }
    void tick(Duration when) {
        book_.on_timer(at(when));
        take();
    }
    /// Traffic at 0 s, an answered ping at 0.1 s: direct.
    void go_direct() {
        book_.on_relayed_packet(at(0s), kAlice);
        take();
        pong_all(100ms);
    }

    int last_id_ = 0;
    PathBook book_;
    std::vector<SendPing> pings_;
    int calls_ = 0;
    std::optional<Endpoint> in_force_;
};

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

TEST_F(RelayedPath, WithoutARelayTheLastDirectAddressStandsIn) {
    go_direct();
    book_.on_timer(at(60s));
    take();
    ASSERT_EQ(in_force_, kRelayed);
    book_.set_relaying(at(61s), false);
    take();
    EXPECT_EQ(in_force_, kPublic);
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

TEST(OutsideEndpoints, ABetOnAForwardedPortOnlyBehindAHardNat) { // 57
    NetReport report;
    report.global_v4 = *Endpoint::parse("203.0.113.9:5000");
    report.global_v6 = *Endpoint::parse("[2001:db8::9]:41641");
    report.other_globals = {kOther};
    const OwnEndpoint seen4{*report.global_v4, 2}, seen6{*report.global_v6, 2}, other{kOther, 2}, bet{kPublic, 4};
    const OwnEndpoint forwarded{*Endpoint::parse("203.0.113.9:7"), 3};
    EXPECT_THAT(outside_endpoints(std::nullopt, report, 41641), ElementsAre(seen4, seen6, other)) << "not known";
    report.mapping_varies_by_destination = false;
    EXPECT_THAT(outside_endpoints(std::nullopt, report, 41641), ElementsAre(seen4, seen6, other));
    report.mapping_varies_by_destination = true;
    EXPECT_THAT(outside_endpoints(forwarded.endpoint, report, 41641), ElementsAre(forwarded, seen4, seen6, other, bet));
    EXPECT_THAT(outside_endpoints(std::nullopt, report, 0), ElementsAre(seen4, seen6, other)) << "no port of our own";
    report.global_v4.reset();
    EXPECT_THAT(outside_endpoints(std::nullopt, report, 41641), ElementsAre(seen6, other));
}

TEST(EndpointMemoryTest, KeepsForFiveMinutesWhatWasSeen) {
    EndpointMemory memory;
    const OwnEndpoint first{kPublic, 2}, second{kOther, 2};
    memory.note(at(0s), first);
    memory.note(at(10s), second);
    EXPECT_THAT(memory.recent(at(310s)), ElementsAre(second, first));
    EXPECT_THAT(memory.recent(at(311s)), ElementsAre(second));
    memory.note(at(311s), first); // again
    EXPECT_THAT(memory.recent(at(312s)), ElementsAre(first, second));
    EXPECT_THAT(memory.recent(at(1000s)), IsEmpty());
}

TEST(EndpointMemoryTest, KeepsSixPortsOfAnAddress) {
    EndpointMemory memory;
    memory.note(at(0s), {kOther, 2});
    for (std::uint16_t port = 1; port <= 100; ++port) memory.note(at(1s), {{kPublic.address, port}, 2});
    auto recent = memory.recent(at(2s));
    ASSERT_EQ(recent.size(), EndpointMemory::kMostPerAddress + 1);
    EXPECT_EQ(recent.front().endpoint.port, 100);
    EXPECT_EQ(recent.back().endpoint, kOther);
    memory.clear();
    EXPECT_THAT(memory.recent(at(2s)), IsEmpty());
}

TEST(RelayAddressesTest, AreTheSameEachTimeAndNeverShared) {
    RelayAddresses first, second;
    std::set<IpAddress> seen;
    for (int i = 0; i < 5000; ++i) {
        IpAddress address = first.of(key(i));
        EXPECT_TRUE(RelayAddresses::range().contains(address));
        EXPECT_TRUE(seen.insert(address).second);
        EXPECT_EQ(first.peer_at(address), key(i));
        EXPECT_EQ(second.of(key(i)), address);
    }
    first.keep_only({key(3)});
    EXPECT_EQ(first.peer_at(second.of(key(4))), std::nullopt);
}

TEST(RelayAddressesTest, WhatAnEarlierAgentGaveComesFirst) {
    RelayAddresses addresses;
    IpAddress wished = RelayAddresses{}.of(kAlice);
    EXPECT_TRUE(addresses.adopt(key(2), wished));
    EXPECT_FALSE(addresses.adopt(key(3), wished));
    EXPECT_FALSE(addresses.adopt(key(3), *IpAddress::parse("127.0.0.1")));
    EXPECT_NE(addresses.of(kAlice), wished);
    EXPECT_EQ(addresses.of(key(2)), wished);
}

NetCheck::Server server(int region, const char* address) {
    return {region, *Endpoint::parse(address)};
}

TEST(NetCheckTest, AsksEveryRegionUntilItAnswers) {
    NetCheck check{at(0s), NetCheck::full_plan({server(1, "192.0.2.1:3478"), server(2, "192.0.2.2:3478")})};
    auto probes = check.due(at(0s));
    ASSERT_EQ(probes.size(), 2u);
    for (const auto& probe : probes) check.on_sent(probe, true);
    EXPECT_TRUE(check.on_answer(at(20ms), {probes[0].id, kPublic}));
    EXPECT_FALSE(check.on_answer(at(20ms), {probes[0].id, kPublic})) << "an answer counts once";
    auto again = check.due(at(100ms));
    ASSERT_EQ(again.size(), 1u);
    EXPECT_NE(again[0].to, probes[0].to);
    EXPECT_FALSE(check.is_done(at(200ms)));
    EXPECT_TRUE(check.on_answer(at(130ms), {again[0].id, kOther}));
    EXPECT_TRUE(check.is_done(at(130ms)));
    NetReport report = check.report();
    EXPECT_TRUE(report.udp && report.ipv4 && report.ipv4_can_send);
    EXPECT_EQ(report.global_v4, kPublic);
    EXPECT_EQ(report.mapping_varies_by_destination, true);
    EXPECT_EQ(report.region_latency.size(), 2u);
}

TEST(NetCheckTest, EndsAfterItsWindowWhenNobodyAnswers) {
    NetCheck check{at(0s), NetCheck::full_plan({server(1, "192.0.2.1:3478")})};
    check.due(at(0s));
    EXPECT_FALSE(check.is_done(at(2s)));
    EXPECT_TRUE(check.is_done(at(3s)));
    EXPECT_FALSE(check.report().udp);
    EXPECT_TRUE(NetCheck(at(0s), {}).is_done(at(0s)));
}

TEST(NetCheckTest, TakesAnswersToItsQuestionsOnly) {
    NetCheck check{at(0s), NetCheck::full_plan({server(1, "192.0.2.1:3478"), server(2, "192.0.2.2:3478")})};
    auto probes = check.due(at(0s));
    EXPECT_FALSE(check.on_answer(at(10ms), {stun::TxId{}, kPublic})) << "to a question of somebody else";
    for (const char* nonsense : {"0.0.0.0:41641", "[::]:41641", "224.0.0.1:41641", "203.0.113.9:0"})
        EXPECT_FALSE(check.on_answer(at(10ms), {probes[0].id, *Endpoint::parse(nonsense)})) << nonsense;
    EXPECT_FALSE(check.report().udp);
    EXPECT_TRUE(check.on_answer(at(20ms), {probes[0].id, kPublic}));
    EXPECT_FALSE(check.on_answer(at(20ms), {probes[0].id, kOther})) << "a second answer, in the name of another";
    EXPECT_THAT(check.report().seen_v4, ElementsAre(std::pair(kPublic, 1)));
    EXPECT_EQ(check.report().region_latency.size(), 1U);
}

/// (region, family, milliseconds) of each probe, by region, then family, then time.
std::vector<std::tuple<int, int, long>> probes_of(const NetCheck::Plan& plan) {
    std::vector<std::tuple<int, int, long>> out;
    for (const auto& one : plan.probes)
        out.emplace_back(one.server.region, one.server.address.address.is_v6() ? 6 : 4, one.delay / 1ms);
    std::ranges::sort(out);
    return out;
}

using Probes = std::vector<std::tuple<int, int, long>>;

std::vector<NetCheck::Server> five_regions() {
    std::vector<NetCheck::Server> out;
    for (int region = 1; region <= 5; ++region) {
        out.push_back({region, {IpAddress::v4(0xc0000200U + static_cast<std::uint32_t>(region)), 3478}});
        out.push_back({region, *Endpoint::parse(fmt::format("[2001:db8::{}]:3478", region))});
    }
    return out;
}

NetReport lately(std::map<int, Duration> latencies, bool v6 = true) {
    NetReport report;
    report.udp = report.ipv4 = true;
    report.ipv6 = v6;
    report.region_latency = std::move(latencies);
    return report;
}

TEST(NetCheckPlan, AFullOneAsksEverybodyThreeTimes) {
    auto plan = NetCheck::full_plan(five_regions());
    EXPECT_TRUE(plan.full);
    EXPECT_EQ(plan.probes.size(), 5U * 2 * 3);
    auto two_nodes = NetCheck::full_plan({server(1, "192.0.2.1:3478"), server(1, "192.0.2.2:3478")});
    std::vector<std::pair<long, Endpoint>> asked;
    for (const auto& one : two_nodes.probes) asked.emplace_back(one.delay / 1ms, one.server.address);
    const Endpoint first = *Endpoint::parse("192.0.2.1:3478"), second = *Endpoint::parse("192.0.2.2:3478");
    EXPECT_THAT(asked, ElementsAre(std::pair(0L, first), std::pair(100L, second), std::pair(200L, first)));
    EXPECT_TRUE(NetCheck::short_plan(five_regions(), lately({}), 1).full) << "nothing to go by";
}

TEST(NetCheckPlan, AShortOneAsksTheNearestAndHome) {                   // 59
    auto last = lately({{1, 100ms}, {2, 50ms}, {3, 10ms}, {4, 20ms}}); // of the fifth nothing is known
    auto plan = NetCheck::short_plan(five_regions(), last, 1);
    EXPECT_FALSE(plan.full);
    EXPECT_EQ(probes_of(plan), (Probes{
                                   // home, the fourth: one family, four times, 120 ms and then 50 more apart
                                   {1, 6, 0},
                                   {1, 6, 120},
                                   {1, 6, 340},
                                   {1, 6, 510},
                                   {2, 4, 0}, // the third
                                   {3, 4, 0},
                                   {3, 4, 12},
                                   {3, 6, 0},
                                   {3, 6, 12},
                                   {4, 4, 0},
                                   {4, 4, 24},
                                   {4, 6, 0},
                                   {4, 6, 24},
                               }));
}

TEST(NetCheckPlan, IPv6ThatDoesNotWorkIsAskedForOnce) {
    auto last = lately({{1, 100ms}, {2, 50ms}, {3, 10ms}, {4, 20ms}}, false);
    EXPECT_EQ(probes_of(NetCheck::short_plan(five_regions(), last, 3)), (Probes{
                                                                            {2, 4, 0},
                                                                            {3, 4, 0},
                                                                            {3, 4, 12},
                                                                            {3, 4, 124},
                                                                            {3, 4, 186},
                                                                            {3, 6, 0},
                                                                            {4, 4, 0},
                                                                            {4, 4, 24},
                                                                            {4, 6, 0},
                                                                        }));
}

TEST(NetCheckPlan, RegionsToAvoidAreAskedOnlyWhenHome) {
    auto servers = five_regions();
    for (auto& one : servers) one.avoid = one.region == 3;
    auto last = lately({{1, 30ms}, {3, 10ms}, {4, 20ms}});
    auto asks_third = [&](int home) {
        auto probes = NetCheck::short_plan(servers, last, home).probes;
        return std::ranges::any_of(probes, [](const auto& one) { return one.server.region == 3; });
    };
    EXPECT_FALSE(asks_third(1));
    EXPECT_TRUE(asks_third(3));
}

TEST(NetCheckTest, WhatAShortPlanKnowsIsNotAskedAgain) {
    auto last = lately({{1, 100ms}, {2, 50ms}, {3, 10ms}, {4, 20ms}});
    NetCheck check{at(0s), NetCheck::short_plan(five_regions(), last, 1)};
    for (const auto& probe : check.due(at(0s))) {
        check.on_sent(probe, true);
        auto seen = probe.to.address.is_v6() ? *Endpoint::parse("[2001:db8::9]:41641") : kPublic;
        EXPECT_TRUE(check.on_answer(at(5ms), {probe.id, seen}));
    }
    EXPECT_TRUE(check.is_done(at(5ms)));
    EXPECT_THAT(check.due(at(1s)), IsEmpty());
    EXPECT_EQ(check.report().region_latency.size(), 4U);
}

wire::DerpMap regions(std::initializer_list<int> numbers) {
    wire::DerpMap map;
    map.regions.emplace();
    for (int number : numbers) {
        wire::DerpRegion region;
        region.region_id = number;
        region.nodes.resize(1);
        (*map.regions)[number] = region;
    }
    return map;
}

NetReport measured(std::map<int, Duration> latencies) {
    NetReport report;
    report.region_latency = std::move(latencies);
    return report;
}

TEST(HomeChooserTest, MovesOnlyWhenItIsWorthIt) {
    auto map = regions({1, 2});
    HomeChooser chooser;
    EXPECT_EQ(chooser.choose(at(0s), measured({{1, 100ms}, {2, 120ms}}), map, false), 1);
    EXPECT_EQ(chooser.choose(at(400s), measured({{1, 100ms}, {2, 95ms}}), map, false), 1) << "less than 10 ms";
    EXPECT_EQ(chooser.choose(at(800s), measured({{1, 100ms}, {2, 70ms}}), map, false), 1) << "above two thirds";
    EXPECT_EQ(chooser.choose(at(1200s), measured({{1, 100ms}, {2, 60ms}}), map, false), 2);
    EXPECT_EQ(chooser.choose(at(1600s), measured({{1, 55ms}}), map, false), 1) << "home does not answer";
}

TEST(HomeChooserTest, ARelayThatHasDiedIsNotHomeForItsPast) {
    auto map = regions({1, 2});
    HomeChooser chooser;
    EXPECT_EQ(chooser.choose(at(0s), measured({{1, 10ms}, {2, 90ms}}), map, false), 1);
    EXPECT_EQ(chooser.choose(at(25s), measured({{2, 90ms}}), map, true), 1) << "one answer is lost, but we hear it";
    EXPECT_EQ(chooser.choose(at(50s), measured({}), map, false), 1) << "nobody answers: that says nothing about it";
    EXPECT_EQ(chooser.choose(at(75s), measured({{2, 90ms}}), map, false), 2);
    EXPECT_EQ(chooser.choose(at(100s), measured({{1, 10ms}, {2, 90ms}}), map, false), 1);
}

TEST(HomeChooserTest, WithoutAnyAnswerKeepsHomeOrTakesTheFirst) {
    auto map = regions({3, 4});
    HomeChooser chooser;
    EXPECT_EQ(chooser.choose(at(0s), measured({}), map, false), 3);
    EXPECT_EQ(chooser.choose(at(1s), measured({{4, 1ms}}), map, true), 4) << "home was never measured";
    EXPECT_EQ(chooser.choose(at(400s), measured({}), map, false), 4);
    EXPECT_EQ(chooser.choose(at(401s), measured({}), regions({3}), false), 3) << "home is gone from the map";
    EXPECT_EQ(chooser.choose(at(402s), measured({}), regions({}), false), 0);
}

} // namespace
} // namespace tailrace
