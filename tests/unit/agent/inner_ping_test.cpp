#include "agent/path/inner_ping.hpp"
#include "tests/fakes/run_task.hpp"

#include <gtest/gtest.h>

#include <cerrno>

namespace tailrace {
namespace {

using namespace std::chrono_literals;

TEST(InnerPingTest, WhoWaitsForAnAnswerHearsThatTheTunnelIsGone) {
    bool allowed = true;
    run_task([&](Reactor& reactor) -> Task<void> {
        auto made = InnerPing::create(reactor, "lo", 0, {});
        allowed = made || made.error().code() != EPERM;
        if (!made) {
            EXPECT_FALSE(allowed) << made.error().message();
            co_return;
        }
        auto inner_ping = std::move(*made);
        Result<InnerPong> pong = InnerPong{};
        Event answered{reactor};
        auto ask = [](InnerPing* from, Result<InnerPong>* to, Event* told) -> Task<void> {
            *to = co_await from->icmp(*IpAddress::parse("192.0.2.1"), 1h); // documentation: nobody is there
            told->notify();
        };
        spawn(reactor, "ask", ask(inner_ping.get(), &pong, &answered));
        co_await reactor.sleep(1ms);
        inner_ping.reset();
        const bool in_time = co_await answered.wait_for(5s);
        EXPECT_TRUE(in_time);
        EXPECT_FALSE(pong);
        if (!pong) EXPECT_EQ(pong.error().message(), "the tunnel was taken down");
    });
    if (!allowed) GTEST_SKIP() << "raw sockets need CAP_NET_RAW";
}

} // namespace
} // namespace tailrace
