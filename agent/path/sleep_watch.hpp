// agent/path/sleep_watch.hpp - notices that the machine was asleep. Pure.
#pragma once
#include "base/time.hpp"

#include <ctime>
#include <optional>

namespace tailrace {

/// The boot-time clock runs while the machine sleeps, the monotonic one does not: what lies between them grows by the
/// sleep.
class SleepWatch {
public:
    static constexpr auto kShortest =
        std::chrono::seconds{5}; ///< a sleep that leaves NAT mappings and connections alone

    struct Clocks {
        Duration monotonic{}, boot{};
    };
    static Clocks read() {
        auto of = [](clockid_t id) {
            timespec time{};
            ::clock_gettime(id, &time);
            return std::chrono::duration_cast<Duration>(std::chrono::seconds{time.tv_sec} +
                                                        std::chrono::nanoseconds{time.tv_nsec});
        };
        return {of(CLOCK_MONOTONIC), of(CLOCK_BOOTTIME)};
    }

    /// How long it slept since the last look, if it did.
    std::optional<Duration> look(const Clocks& now) {
        Duration asleep = now.boot - now.monotonic;
        Duration before = before_.value_or(asleep);
        before_ = asleep;
        if (asleep - before < kShortest) return std::nullopt;
        return asleep - before;
    }

private:
    std::optional<Duration> before_;
};

} // namespace tailrace
