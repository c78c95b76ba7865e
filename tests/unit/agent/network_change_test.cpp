#include "agent/path/look_pace.hpp"
#include "agent/path/sleep_watch.hpp"
#include "agent/relay/derp_link.hpp"
#include "agent/relay/relay_dial.hpp"
#include "base/io/socket.hpp"
#include "base/text.hpp"
#include "tests/fakes/run_task.hpp"

#include <gmock/gmock.h>

#include <sys/socket.h>

#include <utility>

using namespace tailrace;
using namespace std::chrono_literals;

namespace {

TEST(SleepWatchTest, NoticesThatTheBootClockRanOn) {
    SleepWatch watch;
    EXPECT_FALSE(watch.look({100s, 400s})) << "the machine slept before we started";
    EXPECT_FALSE(watch.look({110s, 410s}));
    EXPECT_FALSE(watch.look({112s, 414s})) << "too short to matter";
    EXPECT_EQ(watch.look({113s, 475s}), 60s);
    EXPECT_FALSE(watch.look({115s, 477s})) << "told once";
}

TEST(SleepWatchTest, ReadsClocksThatRun) {
    auto before = SleepWatch::read(), after = SleepWatch::read();
    EXPECT_GT(before.monotonic, 0s);
    EXPECT_GE(before.boot + 1s, before.monotonic);
    EXPECT_GE(after.monotonic, before.monotonic);
}

/// When it looks, where changes come at these times.
std::vector<Duration> looks_at(const std::vector<Duration>& changes) {
    LookPace pace;
    std::optional<Duration> due;
    std::vector<Duration> looks;
    auto look_until = [&](Duration now) {
        if (!due || *due > now) return;
        pace.on_look(TimePoint{*due});
        looks.push_back(*std::exchange(due, std::nullopt));
    };
    for (Duration now : changes) {
        look_until(now);
        if (auto wait = pace.on_change(TimePoint{now})) due = now + *wait;
    }
    look_until(1h);
    EXPECT_EQ(pace.looks(), looks.size());
    return looks;
}

TEST(LookPaceTest, LooksOnceForAnAddressThatComesAndGoes) {
    EXPECT_THAT(looks_at({10s, 10s + 20ms}), testing::ElementsAre(10s + 250ms));
}

TEST(LookPaceTest, LooksOnceASecondWhileAddressesComeAndGo) {
    std::vector<Duration> changes;
    for (int i = 0; i < 500; ++i) changes.push_back(10s + i * 10ms);
    EXPECT_THAT(looks_at(changes),
                testing::ElementsAre(10s + 250ms, 11s + 250ms, 12s + 250ms, 13s + 250ms, 14s + 250ms, 15s + 250ms));
}

TEST(LookPaceTest, LooksAfterTheLastChange) {
    EXPECT_THAT(looks_at({10s, 10s + 300ms}), testing::ElementsAre(10s + 250ms, 11s + 250ms));
    EXPECT_THAT(looks_at({10s, 20s}), testing::ElementsAre(10s + 250ms, 20s + 250ms)) << "later it is soon again";
}

std::string meta_name() {
    return "derpkey" + std::string(62, '0') + "2a";
}

TEST(RelayDialTest, TakesTheRelaysKeyFromItsMetaCertificate) {
    TlsPeer peer{true, {{"203.0.113.2", 77}, {meta_name(), 2}}};
    auto key = key_in_certificates(peer);
    ASSERT_TRUE(key);
    EXPECT_EQ(key->text(), "nodekey:" + std::string(62, '0') + "2a");
    peer.tls13 = false;
    EXPECT_FALSE(key_in_certificates(peer)) << "anybody on the way could have read and replaced it";
    for (const TlsPeer::Certificate& other : {TlsPeer::Certificate{"203.0.113.2", 2},
                                              {meta_name(), 256},
                                              {meta_name(), std::nullopt},
                                              {meta_name() + "00", 2},
                                              {"derpkeyxyz", 2}})
        EXPECT_FALSE(key_in_certificates({true, {other}})) << other.common_name;
}

/// A link, and the relay's end of it.
struct Pair {
    explicit Pair(Reactor& reactor) {
        int ends[2] = {-1, -1};
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
        DerpLink::Callbacks callbacks;
        callbacks.packet = [](const NodeKey&, BytesView) {};
        callbacks.gone = [](const derp::PeerGone&) {};
        callbacks.health = [](std::string) {};
        callbacks.restarting = [](const derp::Restarting&) {};
        DerpLogin login;
        login.stream = std::make_unique<SocketStream>(reactor, Fd{ends[0]});
        link = std::make_shared<DerpLink>(std::move(login), NodePrivateKey::generate(), std::move(callbacks));
        relay = std::make_unique<SocketStream>(reactor, Fd{ends[1]});
    }
    std::shared_ptr<DerpLink> link;
    std::unique_ptr<Stream> relay;
};

TEST(DerpLinkTest, IsKeptWhenTheRelayAnswersAndGivenUpElse) {
    run_task([](Reactor& reactor) -> Task<void> {
        Pair pair{reactor};
        bool ended = false;
        Event end{reactor};
        auto run = [](std::shared_ptr<DerpLink> link, bool& over, Event& told) -> Task<void> {
            (void)co_await link->run();
            over = true;
            told.notify();
        };
        spawn(reactor, "link", run(pair.link, ended, end));
        pair.link->check();
        pair.link->check(); // one question at a time
        std::array<std::byte, 13> ping{};
        EXPECT_TRUE(co_await pair.relay->read_exactly(ping));
        EXPECT_EQ(derp::read_header(BytesView{ping}.first<5>()).type, derp::FrameType::Ping);
        Bytes pong = derp::write_frame(derp::FrameType::Pong, BytesView{ping}.subspan(5));
        EXPECT_TRUE(co_await pair.relay->write_all(pong));
        EXPECT_FALSE(co_await end.wait_for(DerpLink::kAnswer + 500ms)) << "it answered";
        EXPECT_FALSE(ended);
        pair.link->check();
        EXPECT_TRUE(co_await end.wait_for(DerpLink::kAnswer + 10s)) << "nobody answers";
        EXPECT_TRUE(ended);
    });
}

} // namespace
