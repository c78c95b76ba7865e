// base/io/watchdog.hpp - tells the service manager that the reactor turns.
#pragma once
#include "base/io/reactor.hpp"

namespace tailrace {

/// Sends WATCHDOG=1 twice in each interval that the service manager asks for, from the reactor itself: one that hangs
/// falls silent and is started again. Nothing when nobody asks.
void feed_watchdog(Reactor& reactor);

} // namespace tailrace
