#include "control/routes/route_health.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

namespace tailrace {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;
using Kind = RouteHealth::Action::Kind;
using State = RouteHealth::State;

/// A world that answers or does not, in steps of the class's own timer.
struct RouterHealth : testing::Test {
    RouteHealth health;
    TimePoint now{1h};
    std::set<NodeId> answering{1, 2}; ///< over their streams
    std::set<NodeId> reached;         ///< by peers
    std::map<NodeId, int> asked, peers_asked, path_asked;
    std::map<NodeId, std::set<NodeId>> compared;
    RouteHealth::Proof proof = RouteHealth::Proof::Yes; ///< that goes with what peers reach
    std::vector<NodeId> ended;

    void SetUp() override { health.watch(now, {{1, {true, true}}, {2, {true, true}}}); }
    void carry_out() {
        for (const auto& action : health.take_actions()) {
            if (action.kind == Kind::AskRouter) {
                ++asked[action.router];
                if (answering.contains(action.router)) health.on_word(now, action.router);
            } else if (action.kind == Kind::AskPeers) {
                ++peers_asked[action.router];
                if (reached.contains(action.router)) health.on_witness(now, action.router, RouteHealth::Proof::Yes);
            } else if (action.kind == Kind::AskPath) {
                ++path_asked[action.router];
                if (action.rival != 0) compared[action.router].insert(action.rival);
                for (NodeId id : {action.router, action.rival})
                    if (reached.contains(id)) health.on_witness(now, id, proof);
            } else {
                ended.push_back(action.router);
            }
        }
    }
    void pass(Duration duration) {
        TimePoint end = now + duration;
        while (health.next_timer() && *health.next_timer() <= end) {
            now = std::max(now, *health.next_timer());
            health.on_timer(now);
            carry_out();
        }
        now = end;
    }
    State state(NodeId id) { return *health.state(now, id); }
    Duration until_gone(NodeId id) {
        TimePoint start = now;
        while (state(id) != State::Gone && now - start < 1min) pass(50ms);
        return now - start;
    }
};

TEST_F(RouterHealth, WhoAnswersIsSteadyAndNobodyElseIsAsked) {
    pass(60s);
    EXPECT_EQ(state(1), State::Steady);
    EXPECT_NEAR(asked[1], 50, 3);
    EXPECT_THAT(peers_asked, IsEmpty());
    EXPECT_FALSE(health.take_changed());
    EXPECT_FALSE(health.state(now, 3)) << "nobody watches a router without a rival";
}

TEST_F(RouterHealth, APowerCutIsNoticedInTime) {
    pass(10s);
    answering.erase(1);
    EXPECT_LE(until_gone(1), RouteHealth::kGoneAfter + 100ms);
    EXPECT_TRUE(health.take_changed());
    EXPECT_GE(peers_asked[1], 1);
    EXPECT_THAT(ended, ElementsAre(1)) << "so that it is not shown as online";
    EXPECT_EQ(state(2), State::Steady);
}

TEST_F(RouterHealth, AStreamThatEndsIsFollowedByAShortGrace) {
    pass(10s);
    health.on_stream_end(now, 1);
    EXPECT_EQ(state(1), State::Doubted);
    pass(1s);
    health.on_stream_begin(now, 1); // it only changed its network
    EXPECT_EQ(state(1), State::Steady);
    EXPECT_FALSE(health.take_changed());
    health.on_stream_end(now, 1);
    EXPECT_LE(until_gone(1), RouteHealth::kEndedGrace + 100ms);
}

TEST_F(RouterHealth, AStreamThatEndsAfterASilenceGetsNoNewGrace) {
    pass(10s);
    answering.erase(1);
    pass(3s);
    TimePoint cut = now - 3s;
    health.on_stream_end(now, 1);
    until_gone(1);
    EXPECT_LE(now - cut, RouteHealth::kGoneAfter + 200ms);
}

TEST_F(RouterHealth, PeersThatReachItKeepItsRoutes) {
    pass(10s);
    answering.erase(1);
    reached.insert(1);
    pass(60s);
    EXPECT_EQ(state(1), State::Witnessed);
    EXPECT_FALSE(health.take_changed());
    EXPECT_LE(peers_asked[1], 60);
    reached.erase(1);
    EXPECT_LE(until_gone(1), RouteHealth::kGoneAfter + 100ms);
    reached.insert(1);
    pass(10s);
    EXPECT_EQ(state(1), State::Gone) << "only its own word brings it back";
}

TEST_F(RouterHealth, WithoutAStreamPeersAreAskedAtOnce) {
    reached.insert(1);
    pass(10s);
    health.on_stream_end(now, 1);
    pass(60s);
    EXPECT_EQ(state(1), State::Witnessed);
    answering.insert(1);
    health.on_stream_begin(now, 1);
    pass(5s);
    EXPECT_EQ(state(1), State::Steady);
}

TEST_F(RouterHealth, AnAnnouncedRestartHoldsItsRoutes) {
    pass(10s);
    health.on_restart_announced(now, 1);
    health.on_stream_end(now, 1);
    pass(RouteHealth::kRestartHold - 200ms);
    EXPECT_EQ(state(1), State::Restarting);
    EXPECT_FALSE(health.take_changed());
    EXPECT_LE(until_gone(1), 400ms);
    health.on_stream_begin(now, 1);
    health.on_stream_end(now, 1);
    EXPECT_LE(until_gone(1), RouteHealth::kEndedGrace + 100ms) << "the announcement is used up";
}

TEST_F(RouterHealth, WhoComesBackIsOnProbation) {
    pass(10s);
    health.on_stream_end(now, 1);
    until_gone(1);
    (void)health.take_changed();
    pass(30s);
    health.on_stream_begin(now, 1);
    EXPECT_THAT(health.take_turns(), ElementsAre(RouteHealth::Turn{1, true, 1}, RouteHealth::Turn{1, false, 1}));
    EXPECT_TRUE(health.take_changed());
    EXPECT_EQ(state(1), State::Probation);
    EXPECT_TRUE(health.standing(1)->there);
    EXPECT_FALSE(health.standing(1)->steady);
    pass(RouteHealth::kProbation + 100ms);
    EXPECT_EQ(state(1), State::Steady);
    EXPECT_TRUE(health.take_changed());
    EXPECT_TRUE(health.standing(1)->steady);
}

TEST_F(RouterHealth, ProbationGrowsForOneThatFlapsAndIsForgotten) {
    auto probation = [&] {
        health.on_stream_end(now, 1);
        until_gone(1);
        health.on_stream_begin(now, 1);
        TimePoint back = now;
        while (!health.standing(1)->steady && now - back < 20min) pass(100ms);
        return now - back;
    };
    EXPECT_LE(probation(), RouteHealth::kProbation + 200ms);
    EXPECT_GE(probation(), 2 * RouteHealth::kProbation);
    EXPECT_GE(probation(), 4 * RouteHealth::kProbation);
    for (int i = 0; i < 12; ++i) EXPECT_LE(probation(), RouteHealth::kMostProbation + 200ms);
    pass(RouteHealth::kFlapMemory + 1s);
    EXPECT_LE(probation(), RouteHealth::kProbation + 200ms);
}

TEST_F(RouterHealth, BothCanBeGone) {
    pass(10s);
    answering.clear();
    pass(5s);
    EXPECT_EQ(state(1), State::Gone);
    EXPECT_EQ(state(2), State::Gone);
    health.on_word(now, 2);
    EXPECT_EQ(state(2), State::Probation);
    EXPECT_EQ(state(1), State::Gone);
}

TEST_F(RouterHealth, AServerThatStoodStillBlamesNobody) {
    pass(10s);
    now += 30s; // nothing ran here
    health.on_timer(now);
    carry_out();
    EXPECT_NE(state(1), State::Gone);
    pass(5s);
    EXPECT_EQ(state(1), State::Steady);
    EXPECT_FALSE(health.take_changed());
}

TEST_F(RouterHealth, AfterARestartOfControlRoutersHaveTimeToComeBack) {
    RouteHealth fresh;
    fresh.watch(now, {{1, {false, true, now + 40s}}, {2, {}}});
    EXPECT_EQ(*fresh.state(now, 1), State::Restarting);
    EXPECT_EQ(*fresh.state(now, 2), State::Gone) << "it was offline before";
    health = fresh;
    pass(39s);
    EXPECT_EQ(state(1), State::Restarting);
    pass(2s);
    EXPECT_EQ(state(1), State::Gone);
}

TEST_F(RouterHealth, ProbationGoesOnOverARestartOfControl) {
    RouteHealth::Start start{false, true, now + 40s};
    start.falls = 3; // 40 seconds of probation
    start.returned = now - 15s;
    EXPECT_TRUE(RouteHealth::standing_of(now, start).there);
    EXPECT_FALSE(RouteHealth::standing_of(now, start).steady);
    RouteHealth fresh;
    fresh.watch(now, {{1, start}, {2, {true, true}}});
    health = fresh;
    pass(5s);
    health.on_stream_begin(now, 1);
    EXPECT_EQ(state(1), State::Probation);
    EXPECT_THAT(health.take_turns(), IsEmpty()) << "it did not go";
    pass(19s);
    EXPECT_EQ(state(1), State::Probation);
    pass(2s);
    EXPECT_EQ(state(1), State::Steady);
    health.on_stream_end(now, 1);
    until_gone(1);
    EXPECT_THAT(health.take_turns(), ElementsAre(RouteHealth::Turn{1, true, 4})) << "falls are remembered, too";
}

TEST_F(RouterHealth, AProbationThatIsOverIsOver) {
    RouteHealth::Start start{false, true, now + 40s};
    start.falls = 1;
    start.returned = now - 11s;
    EXPECT_TRUE(RouteHealth::standing_of(now, start).steady);
    start.returned = now + 24h; // the clock was set back
    RouteHealth fresh;
    fresh.watch(now, {{1, start}});
    health = fresh;
    health.on_stream_begin(now, 1);
    EXPECT_EQ(state(1), State::Probation);
    pass(11s);
    EXPECT_EQ(state(1), State::Steady);
}

TEST_F(RouterHealth, WhoHadGoneBeforeARestartOfControlIsGone) {
    RouteHealth::Start start{false, true, now + 40s};
    start.gone = true;
    start.falls = 1;
    start.returned = now - 1min;
    EXPECT_FALSE(RouteHealth::standing_of(now, start).there) << "although it may still count as online";
    RouteHealth fresh;
    fresh.watch(now, {{1, start}, {2, {true, true}}});
    health = fresh;
    EXPECT_EQ(state(1), State::Gone);
    pass(5s);
    EXPECT_EQ(state(1), State::Gone);
    health.on_stream_begin(now, 1);
    EXPECT_EQ(state(1), State::Probation);
    EXPECT_THAT(health.take_turns(), ElementsAre(RouteHealth::Turn{1, false, 2}));
    pass(19s);
    EXPECT_EQ(state(1), State::Probation) << "it went for the second time";
}

TEST_F(RouterHealth, WhoCameBackWhileNobodyLookedIsOnProbation) {
    RouteHealth::Start start{true, true};
    start.gone = true;
    RouteHealth fresh;
    fresh.watch(now, {{1, start}});
    health = fresh;
    EXPECT_EQ(state(1), State::Probation);
    EXPECT_THAT(health.take_turns(), ElementsAre(RouteHealth::Turn{1, false, 1}));
}

/// 1 carries, 2 and 3 stand by; all answer us.
struct RouterPath : RouterHealth {
    void SetUp() override { watch(1); }
    void watch(NodeId carrier) {
        std::map<NodeId, RouteHealth::Start> all;
        for (NodeId id : {1, 2, 3}) {
            all[id] = {true, true};
            all[id].carries = id == carrier;
            for (NodeId other : {1, 2, 3})
                if (other != id) all[id].rivals.push_back(other);
        }
        answering = {1, 2, 3};
        health.watch(now, all);
    }
};

TEST_F(RouterPath, OfWhoCarriesOnePeerIsAskedNowAndThen) {
    reached = {1, 2, 3};
    pass(5min);
    EXPECT_THAT(path_asked, testing::SizeIs(1)) << "nobody is asked about those that stand by";
    EXPECT_NEAR(path_asked[1], 100, 2);
    EXPECT_THAT(compared, IsEmpty());
    EXPECT_FALSE(health.take_changed());
}

TEST_F(RouterPath, WhoAnswersUsButNoPeerIsGone) {
    reached = {1, 2, 3};
    pass(60s);
    reached = {2, 3};
    TimePoint cut = now;
    while (state(1) != State::Unreached && now - cut < 1min) pass(50ms);
    EXPECT_LE(now - cut, RouteHealth::kPathEvery + RouteHealth::kUnreachedAfter + RouteHealth::kProbeEvery + 200ms);
    EXPECT_GE(now - cut, RouteHealth::kUnreachedAfter) << "a peer may be about to take the relay";
    EXPECT_FALSE(health.standing(1)->there);
    EXPECT_THAT(health.take_turns(), ElementsAre(RouteHealth::Turn{1, true, 1}));
    EXPECT_THAT(compared[1], ElementsAre(2, 3)) << "with each rival in turn";
    EXPECT_THAT(ended, IsEmpty()) << "its stream is all right";
    EXPECT_LE(path_asked[1], 20 + 9);

    watch(2);
    path_asked.clear();
    pass(60s);
    EXPECT_EQ(state(1), State::Unreached) << "its own word does not help";
    EXPECT_NEAR(path_asked[1], 20, 2);
    reached.insert(1);
    pass(4s);
    EXPECT_EQ(state(1), State::Probation);
    EXPECT_THAT(health.take_turns(), ElementsAre(RouteHealth::Turn{1, false, 1}));
    pass(11s);
    EXPECT_EQ(state(1), State::Steady);
}

TEST_F(RouterPath, APeerThatReachesNobodyProvesNothing) {
    reached = {1, 2, 3};
    pass(10s);
    reached.clear();
    pass(5min);
    EXPECT_EQ(state(1), State::Steady);
    EXPECT_FALSE(health.take_changed());
    EXPECT_LE(path_asked[1], 80) << "less and less often";
    reached = {2, 3};
    proof = RouteHealth::Proof::No; // they are in the network of that peer
    pass(3min);
    EXPECT_EQ(state(1), State::Steady);
    proof = RouteHealth::Proof::Yes;
    pass(70s);
    EXPECT_EQ(state(1), State::Unreached);
}

TEST_F(RouterPath, OneAnswerSettlesIt) {
    reached = {2, 3};
    for (int i = 0; i < 20; ++i) { // reached once in eight seconds
        pass(8s);
        health.on_witness(now, 1, RouteHealth::Proof::No);
    }
    EXPECT_EQ(state(1), State::Steady);
    EXPECT_FALSE(health.take_changed());
}

TEST_F(RouterPath, WithoutARivalThatIsThereNothingMoves) {
    answering = {1};
    pass(10s);
    EXPECT_EQ(state(2), State::Gone);
    (void)health.take_changed();
    pass(60s);
    EXPECT_EQ(state(1), State::Steady);
    EXPECT_FALSE(health.take_changed());
    EXPECT_THAT(compared, IsEmpty());
}

TEST_F(RouterPath, ANewStreamIsANewBeginning) {
    reached = {2, 3};
    pass(20s);
    ASSERT_EQ(state(1), State::Unreached);
    health.on_stream_end(now, 1);
    health.on_stream_begin(now, 1);
    EXPECT_EQ(state(1), State::Probation);
    pass(20s);
    EXPECT_EQ(state(1), State::Unreached) << "it still carries, as far as we were told";
    EXPECT_THAT(health.take_turns(), testing::SizeIs(3));
    answering.erase(1);
    pass(10s);
    EXPECT_EQ(state(1), State::Gone) << "now nobody hears it";
    health.on_word(now, 1);
    EXPECT_EQ(state(1), State::Probation);
}

TEST_F(RouterPath, AServerThatStoodStillBlamesNoPath) {
    reached = {2, 3};
    pass(9s);
    now += 30s;
    health.on_timer(now);
    carry_out();
    reached.insert(1);
    pass(20s);
    EXPECT_EQ(state(1), State::Steady);
    EXPECT_FALSE(health.take_changed());
}

TEST_F(RouterHealth, WhoIsWatchedNoMoreIsAskedNoMore) {
    health.watch(now, {});
    pass(60s);
    EXPECT_THAT(asked, IsEmpty());
    EXPECT_FALSE(health.next_timer());
}

} // namespace
} // namespace tailrace
