#include "control/routes/home_regions.hpp"
#include "control/routes/region_choice.hpp"

#include <gmock/gmock.h>
#include <limits>

namespace tailrace {
namespace {

using namespace std::chrono_literals;
using testing::IsEmpty;
using testing::Pair;
using testing::UnorderedElementsAre;

constexpr int kOslo = 900, kRome = 901, kLima = 902;
constexpr NodeId kNobody = 0;

RegionRouter router(NodeId id, int region) {
    RegionRouter made;
    made.id = id;
    made.region = region;
    made.since = id;
    made.primary = id == 1;
    return made;
}

TEST(ChooseRouter, EachRegionHasItsOwnRouter) {
    std::vector<RegionRouter> routers{router(1, kOslo), router(2, kRome)};
    EXPECT_EQ(choose_router(kOslo, routers, kNobody), 1);
    EXPECT_EQ(choose_router(kRome, routers, kNobody), 2);
    EXPECT_EQ(choose_router(kRome, routers, 1), 2) << "also where another one was there first";
}

TEST(ChooseRouter, WithinARegionNobodyWhoComesBackTakesOver) {
    std::vector<RegionRouter> routers{router(1, kOslo), router(2, kRome), router(3, kRome)};
    EXPECT_EQ(choose_router(kRome, routers, kNobody), 2) << "a router for longest";
    routers[1].online = false;
    EXPECT_EQ(choose_router(kRome, routers, 2), 3);
    routers[1].online = true;
    EXPECT_EQ(choose_router(kRome, routers, 3), 3);
    routers[0].region = kRome;
    EXPECT_EQ(choose_router(kRome, routers, kNobody), 1) << "the primary is first among equals";
}

TEST(ChooseRouter, ItsClientsComeBackWhenItIsSteady) {
    std::vector<RegionRouter> routers{router(1, kOslo), router(2, kRome)};
    routers[1].online = false;
    EXPECT_EQ(choose_router(kRome, routers, 2), 1);
    routers[1].online = true;
    routers[1].steady = false;
    EXPECT_EQ(choose_router(kRome, routers, 1), 1) << "it is on probation";
    EXPECT_EQ(choose_router(kRome, routers, 2), 2) << "whom it kept all the time it keeps";
    routers[1].steady = true;
    EXPECT_EQ(choose_router(kRome, routers, 1), 2);
}

TEST(ChooseRouter, WhoIsOnProbationIsBetterThanNobody) {
    std::vector<RegionRouter> routers{router(1, kOslo), router(2, kRome)};
    routers[0].online = false;
    routers[1].steady = false;
    EXPECT_EQ(choose_router(kLima, routers, 1), 2);
    routers[1].online = false;
    EXPECT_EQ(choose_router(kLima, routers, 2), 2) << "when none is there nobody gains by moving";
}

TEST(ChooseRouter, WithoutOneOfItsOwnARegionHasTheNearest) {
    RelayLatencies far{{kLima, 180ms}}, near{{kLima, 90ms}}, nearly{{kLima, 95ms}};
    std::vector<RegionRouter> routers{router(1, kOslo), router(2, kRome)};
    routers[0].latencies = &far;
    routers[1].latencies = &near;
    EXPECT_EQ(choose_router(kLima, routers, kNobody), 2);
    EXPECT_EQ(choose_router(kLima, routers, 1), 2) << "clearly nearer";
    routers[0].latencies = &nearly;
    EXPECT_EQ(choose_router(kLima, routers, 1), 1) << "not by enough to cut flows";
    EXPECT_EQ(choose_router(kLima, routers, 2), 2) << "nor the other way";
    EXPECT_EQ(choose_router(kLima, routers, kNobody), 1) << "equals: the primary";
    routers[0].online = false;
    EXPECT_EQ(choose_router(kLima, routers, 1), 2);
}

TEST(ChooseRouter, ATinyDifferenceIsNoneHoweverManyTimesItIs) {
    RelayLatencies one{{kLima, 1ms}}, nine{{kLima, 9ms}};
    std::vector<RegionRouter> routers{router(1, kOslo), router(2, kRome)};
    routers[0].latencies = &nine;
    routers[1].latencies = &one;
    EXPECT_EQ(choose_router(kLima, routers, kNobody), 1);
    EXPECT_EQ(choose_router(kLima, routers, 1), 1);
}

TEST(ChooseRouter, WhatIsNotMeasuredMovesNobody) {
    RelayLatencies known{{kLima, 5ms}};
    std::vector<RegionRouter> routers{router(1, kOslo), router(2, kRome), router(3, kRome)};
    EXPECT_EQ(choose_router(kLima, routers, kNobody), 1) << "the primary";
    EXPECT_EQ(choose_router(kLima, routers, 3), 3);
    routers[1].latencies = &known;
    EXPECT_EQ(choose_router(kLima, routers, kNobody), 2) << "who has measured is rather taken";
    EXPECT_EQ(choose_router(kLima, routers, 3), 3) << "but not from one that has not";
}

TEST(RelayLatencies, AreTheShorterOfBothFamiliesAndOfWhatMakesSense) {
    wire::NetInfo info;
    info.derp_latency = {{"900-v4", 0.02},
                         {"900-v6", 0.01},
                         {"901-v4", 0},
                         {"902-v4", -1},
                         {"903-v4", 1e9},
                         {"-v4", 0.1},
                         {"0-v4", 0.1},
                         {"-5-v4", 0.1},
                         {"904x-v4", 0.1},
                         {"", 0.1},
                         {"99999999999999-v4", 0.1},
                         {"905-v4", std::numeric_limits<double>::quiet_NaN()}};
    EXPECT_THAT(relay_latencies(info), UnorderedElementsAre(Pair(900, 10ms), Pair(901, 0ms)));
}

struct HomeRegionsTest : testing::Test {
    HomeRegions homes;
    TimePoint start{1h};
    void report(Duration when, int region) { homes.on_report(start + when, 7, region); }
    int region(Duration when) {
        homes.on_timer(start + when);
        auto all = homes.regions();
        auto at = all->find(7);
        return at == all->end() ? 0 : at->second;
    }
};

TEST_F(HomeRegionsTest, TheFirstCountsAtOnce) {
    report(0s, 0);
    EXPECT_FALSE(homes.take_changed());
    report(1s, kOslo);
    EXPECT_TRUE(homes.take_changed());
    EXPECT_EQ(region(1s), kOslo);
    report(2s, 0);
    EXPECT_EQ(region(1h), kOslo) << "one that knows no home has not moved";
    EXPECT_FALSE(homes.take_changed());
}

TEST_F(HomeRegionsTest, AnotherCountsWhenTheNodeStaysThere) {
    report(0s, kOslo);
    report(10s, kRome);
    report(20s, kRome); // says it again
    EXPECT_EQ(homes.next_timer(), start + 40s);
    EXPECT_EQ(region(39s), kOslo);
    EXPECT_EQ(region(40s), kRome);
    EXPECT_FALSE(homes.next_timer());
}

TEST_F(HomeRegionsTest, ToAndFroIsNoMove) {
    report(0s, kOslo);
    (void)homes.take_changed();
    for (int i = 0; i < 20; ++i) {
        report(i * 40s, kRome);
        report(i * 40s + 20s, kOslo);
        EXPECT_EQ(region(i * 40s + 25s), kOslo);
    }
    EXPECT_FALSE(homes.take_changed());
    EXPECT_FALSE(homes.next_timer());
}

TEST_F(HomeRegionsTest, AnotherThirdOneBeginsAnew) {
    report(0s, kOslo);
    report(10s, kRome);
    report(35s, kLima);
    EXPECT_EQ(region(40s), kOslo);
    EXPECT_EQ(region(65s), kLima);
}

TEST_F(HomeRegionsTest, WhoMovesOftenWaitsLonger) {
    report(0s, kOslo);
    report(1s, kRome);
    EXPECT_EQ(region(31s), kRome);
    report(32s, kOslo);
    EXPECT_EQ(region(62s), kRome);
    EXPECT_EQ(region(92s), kOslo);
    report(93s, kRome);
    EXPECT_EQ(region(212s), kOslo);
    EXPECT_EQ(region(213s), kRome);
    report(213s + HomeRegions::kMoveMemory, kOslo);
    EXPECT_EQ(region(243s + HomeRegions::kMoveMemory), kOslo) << "it has been quiet";
}

TEST_F(HomeRegionsTest, AnAnswerIsNotChangedAndOneThatLeftIsForgotten) {
    report(0s, kOslo);
    auto before = homes.regions();
    report(1s, kRome);
    homes.on_node_gone(7);
    homes.on_node_gone(7);
    EXPECT_THAT(*homes.regions(), IsEmpty());
    EXPECT_FALSE(homes.next_timer());
    EXPECT_THAT(*before, UnorderedElementsAre(Pair(7, kOslo)));
}

} // namespace
} // namespace tailrace
