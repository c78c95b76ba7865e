#include "base/io/watchdog.hpp"

#include "base/service.hpp"

namespace tailrace {

void feed_watchdog(Reactor& reactor) {
    auto interval = watchdog_interval();
    if (!interval) return;
    auto feed = [](Reactor& loop, Duration pause) -> Task<void> {
        for (;;) {
            notify_service_manager("WATCHDOG=1");
            co_await loop.sleep(pause);
        }
    };
    spawn(reactor, "watchdog", feed(reactor, *interval / 2));
}

} // namespace tailrace
