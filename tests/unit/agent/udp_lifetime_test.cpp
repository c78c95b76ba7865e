// How long paths outlive silence: the cycle by itself, and in the PathBook.
#include "agent/path/path_book.hpp"
#include "agent/path/udp_lifetime.hpp"
#include "tests/unit/agent/moments.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;

const Endpoint kQuietPath = *Endpoint::parse("203.0.113.9:41641"), kOtherPath = *Endpoint::parse("203.0.113.10:41641");

TEST(UdpLifetimeTest, ClimbsWhilePongsComeAndSaysTheLastThatDid) {
    UdpLifetime lifetime;
    Duration silent_since = 0s;
    for (Duration silence : {8s, 28s, 58s}) {
        auto step = lifetime.look(at(silent_since + 1s), kQuietPath, at(silent_since));
        EXPECT_FALSE(step.ping);
        EXPECT_EQ(step.look, at(silent_since + silence));
        EXPECT_FALSE(lifetime.look(at(silent_since + silence - 1ms), kQuietPath, at(silent_since)).ping);
        EXPECT_TRUE(lifetime.look(at(silent_since + silence), kQuietPath, at(silent_since)).ping);
        EXPECT_FALSE(lifetime.look(at(silent_since + silence), kQuietPath, at(silent_since)).ping)
            << "one is under way";
        silent_since += silence + 10ms;
        auto result = lifetime.on_answered(at(silent_since), kQuietPath);
        EXPECT_EQ(result.has_value(), silence == 58s);
    }
    ASSERT_TRUE(lifetime.result());
    EXPECT_EQ(lifetime.result()->outlived, 3u);
    EXPECT_EQ(lifetime.result()->path, kQuietPath);
}

TEST(UdpLifetimeTest, ALostPingEndsIt) {
    UdpLifetime lifetime;
    EXPECT_TRUE(lifetime.look(at(8s), kQuietPath, at(0s)).ping);
    EXPECT_FALSE(lifetime.on_answered(at(8s), kOtherPath)) << "of another path";
    EXPECT_FALSE(lifetime.on_answered(at(8s), kQuietPath));
    EXPECT_TRUE(lifetime.look(at(36s), kQuietPath, at(8s)).ping);
    auto result = lifetime.on_lost(at(41s), kQuietPath);
    ASSERT_TRUE(result);
    EXPECT_EQ(result->outlived, 1u);
    EXPECT_FALSE(lifetime.on_lost(at(41s), kQuietPath)) << "once";
}

TEST(UdpLifetimeTest, BeginsOnceADay) {
    UdpLifetime lifetime;
    EXPECT_TRUE(lifetime.look(at(8s), kQuietPath, at(0s)).ping);
    EXPECT_EQ(lifetime.on_lost(at(13s), kQuietPath)->outlived, 0u);
    auto step = lifetime.look(at(20s), kQuietPath, at(14s));
    EXPECT_FALSE(step.ping || step.look);
    step = lifetime.look(at(24h), kQuietPath, at(24h - 8s));
    EXPECT_FALSE(step.ping || step.look);
    EXPECT_TRUE(lifetime.look(at(24h + 8s), kQuietPath, at(24h)).ping);
}

TEST(UdpLifetimeTest, GoesOnAfterAConversationAndBeginsAnewOnAnotherPath) {
    UdpLifetime lifetime;
    EXPECT_TRUE(lifetime.look(at(8s), kQuietPath, at(0s)).ping);
    (void)lifetime.on_answered(at(8s), kQuietPath);
    EXPECT_EQ(lifetime.look(at(1000s), kQuietPath, at(1000s)).look, at(1028s)) << "the next of the cycle";
    auto step = lifetime.look(at(1001s), kOtherPath, at(1000s));
    EXPECT_FALSE(step.ping || step.look) << "a cycle has begun today";
    EXPECT_EQ(lifetime.look(at(25h), kOtherPath, at(25h)).look, at(25h + 8s));
}

TEST(UdpLifetimeTest, WhoIsTooLateWaitsForTheNextSilence) {
    UdpLifetime lifetime;
    auto step = lifetime.look(at(8251ms), kQuietPath, at(0s));
    EXPECT_FALSE(step.ping || step.look);
    EXPECT_TRUE(lifetime.look(at(8250ms), kQuietPath, at(0s)).ping);
}

const NodeKey kQuiet{std::array<std::byte, 32>{std::byte{1}}};
const DiscoKey kLower{std::array<std::byte, 32>{std::byte{1}}}, kQuietDisco{std::array<std::byte, 32>{std::byte{2}}},
    kHigher{std::array<std::byte, 32>{std::byte{3}}};
const Endpoint kQuietRelayed = *Endpoint::parse("127.64.0.1:40000");

class SilentPathTest : public testing::Test {
protected:
    SilentPathTest()
        : book_([this] {
              DiscoTxId id{};
              id[0] = static_cast<std::byte>(++last_id_);
              id[1] = static_cast<std::byte>(last_id_ >> 8);
              return id;
          }) {
        book_.set_relaying(at(0s), true);
        book_.set_peers(at(0s), {{kQuiet, kQuietDisco, {kQuietPath}, 900, kQuietRelayed}});
        book_.set_probing_lifetime(at(0s), kLower);
    }
    /// Time passes; pings that come after at most so much silence on the path are answered. When pings were sent.
    std::vector<Duration> pass(Duration from, Duration to, Duration remembers, bool talk) {
        std::vector<Duration> sent;
        for (Duration now = from; now < to; now += 50ms) {
            if (talk && (now - from) % 1s == 0s) book_.on_traffic(at(now), kQuiet);
            book_.on_timer(at(now));
            for (const PathAction& action : book_.take_actions()) {
                const auto* ping = std::get_if<SendPing>(&action);
                if (std::holds_alternative<UseEndpoint>(action)) ++moves_;
                if (ping == nullptr || relay_region(ping->to) != 0) continue;
                sent.push_back(now);
                if (now - last_ <= remembers) book_.on_pong(at(now), kQuietDisco, ping->id, kQuietPath);
                last_ = now;
            }
        }
        return sent;
    }
    /// A minute's conversation, and the silence after it until heartbeats have ended.
    void talk(Duration from) {
        last_ = from;
        pass(from, from + 60s, 1h, true);
        pass(from + 60s, from + 60s + PathBook::kActiveFor, 1h, false);
    }
    const std::optional<UdpLifetime::Result> result(Duration now) { return book_.state(at(now), kQuiet).lifetime; }

    int last_id_ = 0, moves_ = 0;
    Duration last_ = 0s;
    PathBook book_;
};

TEST_F(SilentPathTest, IsPingedThreeTimesAfterAConversationAndThenLeftAlone) {
    talk(0s);
    auto sent = pass(105s, 3600s, 1h, false);
    ASSERT_EQ(sent.size(), 3u);
    EXPECT_EQ(sent[1] - sent[0], 28s);
    EXPECT_EQ(sent[2] - sent[1], 58s);
    ASSERT_TRUE(result(3600s));
    EXPECT_EQ(result(3600s)->outlived, 3u);
    EXPECT_THAT(book_.lifetime_counts(), ElementsAre(0, 0, 0, 1));
    talk(4000s);
    EXPECT_THAT(pass(4105s, 7200s, 1h, false), IsEmpty()) << "once a day";
    talk(25h);
    EXPECT_EQ(pass(25h + 105s, 26h, 1h, false).size(), 3u);
}

TEST_F(SilentPathTest, ANatThatForgetsIsFoundOut) {
    talk(0s);
    EXPECT_EQ(pass(105s, 600s, 20s, false).size(), 2u);
    ASSERT_TRUE(result(600s));
    EXPECT_EQ(result(600s)->outlived, 1u);
    EXPECT_THAT(book_.lifetime_counts(), ElementsAre(0, 1, 0, 0));
}

TEST_F(SilentPathTest, AnswersMoveNothingToThePathAndKeepNobodyBusy) {
    talk(0s);
    pass(105s, 112s, 1h, false);
    EXPECT_EQ(book_.endpoint(kQuiet), kQuietRelayed) << "where the next packet wakes us";
    moves_ = 0;
    pass(112s, 600s, 1h, false);
    EXPECT_EQ(moves_, 0);
    EXPECT_EQ(book_.endpoint(kQuiet), kQuietRelayed);
    EXPECT_FALSE(book_.state(at(600s), kQuiet).active);
    EXPECT_EQ(book_.next_timer(), std::nullopt);
}

TEST_F(SilentPathTest, OnlyTheLowerKeyPingsAndOnlyWhereItIsWanted) {
    book_.set_probing_lifetime(at(0s), kHigher);
    talk(0s);
    EXPECT_THAT(pass(105s, 600s, 1h, false), IsEmpty());
    book_.set_probing_lifetime(at(600s), std::nullopt);
    talk(1000s);
    EXPECT_THAT(pass(1105s, 1600s, 1h, false), IsEmpty());
    EXPECT_FALSE(result(1600s));
}

TEST_F(SilentPathTest, APeerThatWeNeverTalkedToIsNotPinged) {
    pass(0s, 40s, 1h, false); // an introduction, no more
    EXPECT_THAT(pass(40s, 600s, 1h, false), IsEmpty());
}

TEST_F(SilentPathTest, AConversationInBetweenPutsItOff) {
    talk(0s);
    EXPECT_EQ(pass(105s, 125s, 1h, false).size(), 1u);
    talk(130s);
    auto sent = pass(235s, 600s, 1h, false);
    ASSERT_EQ(sent.size(), 2u) << "those after 30 and 60 s";
    EXPECT_EQ(sent[1] - sent[0], 58s);
    EXPECT_EQ(result(600s)->outlived, 3u);
}

TEST_F(SilentPathTest, WhatThePeerSendsIsNoSilence) {
    talk(0s);
    pass(105s, 108s, 1h, false);
    book_.on_ping(at(108s), kQuietDisco, kQuiet, DiscoTxId{std::byte{0xaa}, std::byte{0xaa}}, kQuietPath);
    auto sent = pass(108s, 600s, 1h, false);
    ASSERT_EQ(sent.size(), 3u);
    EXPECT_EQ(sent.front(), 116s);
}

} // namespace
} // namespace tailrace
