// tests/fakes/run_task.hpp - runs one coroutine on a reactor of its own until it ends. For tests of waiting code.
#pragma once
#include "base/io/reactor.hpp"

#include <gtest/gtest.h>

namespace tailrace {

/// Fails the test when the coroutine has not ended within `limit`.
template <typename Make>
void run_task(Make make, Duration limit = std::chrono::seconds{20}) {
    Reactor reactor;
    bool ended = false;
    Timer timer{reactor};
    timer.after(limit, [&] { reactor.stop(); });
    auto wrapped = [](Reactor& r, Make body, bool& flag) -> Task<void> {
        co_await body(r);
        flag = true;
        r.stop();
    };
    spawn(reactor, "test", wrapped(reactor, make, ended));
    reactor.run();
    EXPECT_TRUE(ended) << "the coroutine did not end in time";
}

} // namespace tailrace
