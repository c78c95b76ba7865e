#include "agent/path/net_report.hpp"

#include "tests/unit/agent/relayed_path.hpp"

namespace tailrace {
namespace {

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
    constexpr bool kMayNotMove = false;
    EXPECT_EQ(chooser.choose(at(2000s), measured({{1, 100ms}, {2, 10ms}}), map, false, kMayNotMove), 1);
    EXPECT_EQ(chooser.choose(at(2001s), measured({{2, 10ms}}), regions({2}), false, kMayNotMove), 2) << "it is gone";
    HomeChooser fresh;
    EXPECT_EQ(fresh.choose(at(0s), measured({{1, 100ms}, {2, 10ms}}), map, false, kMayNotMove), 2) << "there was none";
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
