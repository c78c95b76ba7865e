// What WireGuard hears of a peer whose agent says nothing: has the agent ended, or the path to it?
#include "tests/unit/agent/relayed_path.hpp"

#include <cstring>

namespace tailrace {
namespace {

constexpr auto kStep = 50ms;
constexpr auto kBegin = 12s; // the agents know each other, and heartbeats go both ways
constexpr auto kLooks = 1s;  // at the device
constexpr auto kWay = 10ms;  // of a packet

/// A peer that talks all the time, and the path to it. Times are since the start.
struct Story {
    Duration beats_at = 0s; ///< the peer's heartbeats: this long after every third second
    Duration looks_at = 0s; ///< our looks at the device: this long after every second
    Duration late = 0s;     ///< the peer's heartbeats that come after `path_there_ends`
    Duration agent_ends = Duration::max();
    Duration path_there_ends = Duration::max(); ///< from us to the peer
    Duration path_here_ends = Duration::max();
    Duration new_agent = Duration::max();       ///< when we learn its key
    Duration new_agent_hears = Duration::max(); ///< it speaks at once, and hears later
};

class SilentAgent : public RelayedPath {
protected:
    /// Plays the story from the start, and says when the path was left first.
    std::optional<Duration> left(const Story& story, Duration until) {
        book_ = PathBook([this] {
            DiscoTxId id{};
            std::memcpy(id.data(), &++last_id_, sizeof last_id_);
            return id;
        });
        in_force_.reset();
        disco_ = kAliceDisco;
        book_.set_relaying(at(0s), true);
        introduce(0s);
        book_.on_relayed_packet(at(0s), kAlice);
        hear(story, 0s);
        for (Duration now = kStep; now < until; now += kStep) {
            if (now == story.new_agent) {
                disco_ = kNewDisco;
                introduce(now);
            }
            if (now % kLooks == story.looks_at) look(story, now);
            book_.on_timer(at(now));
            if (speaks(story, now)) {
                DiscoTxId id{std::byte{0xff}};
                std::memcpy(id.data() + 1, &now, sizeof now);
                book_.on_ping(at(now), disco_, kAlice, id, kPublic);
            }
            hear(story, now);
            if (now > 1s && in_force_ != kPublic) return now;
        }
        return std::nullopt;
    }

    static Story phase(int number) { return {.beats_at = number % 60 * kStep, .looks_at = number * 7 % 20 * kStep}; }

private:
    const DiscoKey kNewDisco{std::array<std::byte, 32>{std::byte{3}}};

    void introduce(Duration now) { book_.set_peers(at(now), {{kAlice, disco_, {kPublic}, 900, kRelayed}}); }
    static bool lives(const Story& story, Duration now) { return now < story.agent_ends || now >= story.new_agent; }
    static bool speaks(const Story& story, Duration now) {
        if (!lives(story, now) || now >= story.path_here_ends) return false;
        Duration late = now > story.path_there_ends ? story.late : 0s;
        return now == story.new_agent || (now - late) % 3s == story.beats_at;
    }
    void look(const Story& story, Duration now) {
        if (now - kLooks < story.path_here_ends) book_.on_data(at(now - kLooks), at(now), kAlice, kPublic);
        book_.on_traffic(at(now), kAlice);
    }
    /// What we sent arrives, and is answered.
    void hear(const Story& story, Duration now) {
        take();
        bool answers = lives(story, now) && now < story.path_there_ends && now < story.path_here_ends &&
                       (now < story.agent_ends || now >= story.new_agent_hears);
        if (!answers) return;
        for (const SendPing& ping : std::vector{pings_})
            if (ping.to == kPublic) book_.on_pong(at(now + 2 * kWay), disco_, ping.id, ping.to);
        take();
    }
    DiscoKey disco_;
};

TEST_F(SilentAgent, NothingIsLeftWhenItEndsWheneverThatIs) {
    int turn = 0;
    for (Duration end = kBegin; end < kBegin + 3100ms; end += 100ms)
        for (int number = 2 * (turn++ % 2); number < 60; number += 4) { // other phases each time
            Story story = phase(number);
            story.agent_ends = end;
            EXPECT_EQ(left(story, end + 20s), std::nullopt)
                << "ends at " << end.count() << ", beats at " << story.beats_at.count();
        }
}

TEST_F(SilentAgent, NothingIsLeftWhenItBeginsAnewWheneverThatIs) {
    int turn = 0;
    for (Duration away = 500ms; away < 12s; away += 400ms)
        for (int number = 3 * (turn++ % 2); number < 60; number += 6) {
            Story story = phase(number);
            story.agent_ends = kBegin + number * kStep;
            story.new_agent = story.agent_ends + away;
            story.new_agent_hears = story.new_agent + 2s;
            EXPECT_EQ(left(story, story.new_agent + 15s), std::nullopt)
                << "away for " << away.count() << ", ends at " << story.agent_ends.count();
        }
}

TEST_F(SilentAgent, APathThatIsDeadInOurDirectionIsLeftInTime) {
    int turn = 0;
    for (Duration late : {0ms, 200ms, 700ms, 1500ms})
        for (Duration end = kBegin; end < kBegin + 3100ms; end += 100ms)
            for (int number = 6 * (turn++ % 2); number < 60; number += 12) {
                Story story = phase(number);
                story.path_there_ends = end;
                story.late = late;
                auto when = left(story, end + 20s);
                ASSERT_TRUE(when) << end.count() << " " << story.beats_at.count();
                EXPECT_LE(*when - end, PathBook::kTrustFor + late + kStep) << end.count() << " " << number;
            }
}

TEST_F(SilentAgent, APathThatIsDeadInBothIsLeftInTime) {
    int turn = 0;
    for (Duration end = kBegin; end < kBegin + 3100ms; end += 100ms)
        for (int number = 2 * (turn++ % 2); number < 60; number += 4) {
            Story story = phase(number);
            story.path_there_ends = story.path_here_ends = end;
            auto when = left(story, end + 20s);
            ASSERT_TRUE(when);
            EXPECT_LE(*when - end, PathBook::kTrustFor + kStep);
            story.agent_ends = end - 10s; // only WireGuard was there
            when = left(story, end + 20s);
            ASSERT_TRUE(when);
            EXPECT_LE(*when - end, PathBook::kTrustFor + kStep);
        }
}

TEST_F(SilentAgent, ARelayedPacketIsAWordToo) {
    for (bool relayed : {false, true}) {
        Story story = phase(3);
        story.agent_ends = kBegin;
        ASSERT_EQ(left(story, kBegin + 10s), std::nullopt);
        if (relayed) book_.on_relayed_arrival(at(kBegin + 10s), kAlice);
        EXPECT_TRUE(book_.state(at(kBegin + 10s + 200ms), kAlice).trusted) << "it may answer a ping now";
        EXPECT_EQ(book_.state(at(kBegin + 10s + 400ms), kAlice).trusted, !relayed);
    }
}

TEST_F(SilentAgent, OneThatWasOnlyHeldUpAnswersAndKeepsThePath) {
    Story story = phase(3);
    story.agent_ends = kBegin;
    ASSERT_EQ(left(story, kBegin + 10s), std::nullopt);
    book_.on_ping(at(kBegin + 10s), kAliceDisco, kAlice, DiscoTxId{std::byte{9}}, kPublic);
    take();
    ASSERT_THAT(pinged(), ElementsAre(kPublic)) << "at once, whenever the last ping was";
    pong_all(kBegin + 10s + 20ms);
    EXPECT_TRUE(book_.state(at(kBegin + 16s), kAlice).trusted);
}

} // namespace
} // namespace tailrace
