// relay/core/timer_wheel.hpp - ten thousands of coarse timers that cost nothing until they fire.
#pragma once
#include "base/time.hpp"
#include "relay/table/connection_ref.hpp"

#include <array>
#include <utility>
#include <vector>

namespace tailrace::relay {

/// Fires up to a tick late, never early. Nothing is cancelled: who is fired looks whether it is time, and sets itself
/// again; further than the wheel reaches is fired early for that reason. Pure.
class TimerWheel {
public:
    static constexpr Duration kTick = std::chrono::milliseconds{128};
    static constexpr std::size_t kTicks = 1024; // 131 s

    explicit TimerWheel(TimePoint start) : start_(start) {}

    using Tick = std::uint32_t;
    Tick tick_of(TimePoint time) const {
        return time <= start_ ? now_ + 1 : std::max(now_ + 1, static_cast<Tick>((time - start_) / kTick + 1));
    }
    /// Returns the tick that it will fire at.
    Tick set(TimePoint time, Slot slot, std::uint32_t generation) {
        Tick tick = std::min(tick_of(time), static_cast<Tick>(now_ + kTicks - 1));
        wheel_[tick % kTicks].emplace_back(slot, generation);
        ++waiting_;
        return tick;
    }
    /// Calls on_fire(slot, generation) for all that are due.
    template <typename OnFire>
    void advance(TimePoint now, OnFire on_fire) {
        if (now <= start_) return;
        auto target = static_cast<Tick>((now - start_) / kTick);
        while (now_ < target) {
            ++now_;
            auto due = std::move(wheel_[now_ % kTicks]);
            wheel_[now_ % kTicks].clear();
            waiting_ -= due.size();
            for (auto [slot, generation] : due) on_fire(slot, generation);
        }
    }
    bool empty() const { return waiting_ == 0; }
    Tick now() const { return now_; }

private:
    TimePoint start_;
    Tick now_ = 0;
    std::size_t waiting_ = 0;
    std::array<std::vector<std::pair<Slot, std::uint32_t>>, kTicks> wheel_;
};

} // namespace tailrace::relay
