// base/time.hpp - two clocks: one that only goes forward (TimePoint) and one that people read (WallTime).
#pragma once
#include "base/result.hpp"

#include <chrono>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

namespace tailrace {

using Duration = std::chrono::nanoseconds;
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;

/// A moment in UTC with nanoseconds. The zero value is Go's zero time, 0001-01-01T00:00:00Z.
struct WallTime {
    static constexpr std::int64_t kZeroSeconds = -62135596800; // 0001-01-01T00:00:00Z
    std::int64_t seconds = kZeroSeconds;                       // since 1970-01-01T00:00:00Z
    std::int32_t nanos = 0;                                    // 0 to 999,999,999

    static WallTime from_unix(std::int64_t seconds, std::int32_t nanos = 0) { return {seconds, nanos}; }
    static WallTime now();
    /// RFC 3339 with up to nine fractional digits and any offset.
    static Result<WallTime> parse(std::string_view text);
    bool is_zero() const { return seconds == kZeroSeconds && nanos == 0; }
    WallTime plus(Duration duration) const;
    Duration minus(const WallTime& other) const; ///< saturates at about 292 years
    /// RFC 3339 in UTC, as Go writes it: "2026-01-02T03:04:05.123456789Z", trailing zeros dropped.
    std::string text() const;
    auto operator<=>(const WallTime&) const = default;
};

/// Where a class that must ask for the time gets it. Pure classes take the time as a parameter instead.
class Clock {
public:
    virtual ~Clock() = default;
    virtual TimePoint now() const = 0;
    virtual WallTime wall() const = 0;
};

class SystemClock final : public Clock {
public:
    TimePoint now() const override { return std::chrono::time_point_cast<Duration>(std::chrono::steady_clock::now()); }
    WallTime wall() const override { return WallTime::now(); }
};

/// Go's duration text: "90s", "1h30m", "250ms"; also days "7d" and weeks "2w". Source: Go time.ParseDuration.
Result<Duration> parse_duration(std::string_view text);

} // namespace tailrace
