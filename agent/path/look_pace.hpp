// agent/path/look_pace.hpp - how soon and how often the host's addresses are looked at anew. Pure.
#pragma once
#include "base/time.hpp"

#include <algorithm>
#include <cstdint>
#include <optional>

namespace tailrace {

/// An interface that flaps must not cost a look, a report to control and a measurement each time. What came and went
/// before anybody looked never was. Source of the second: tailscale net/netmon/netmon.go, which waits as long.
class LookPace {
public:
    static constexpr auto kSettle = std::chrono::milliseconds{250}; ///< until the events of one change are all there
    static constexpr auto kApart = std::chrono::seconds{1};         ///< from one look to the next

    /// Something has changed: how long to wait before the look. Nothing: one is to come anyway.
    std::optional<Duration> on_change(TimePoint now) {
        if (awaited_) return std::nullopt;
        awaited_ = true;
        Duration wait = kSettle;
        if (looked_) wait = std::max<Duration>(wait, *looked_ + kApart - now);
        return wait;
    }
    void on_look(TimePoint now) {
        awaited_ = false;
        looked_ = now;
        ++looks_;
    }
    std::uint64_t looks() const { return looks_; }

private:
    bool awaited_ = false;
    std::optional<TimePoint> looked_;
    std::uint64_t looks_ = 0;
};

} // namespace tailrace
