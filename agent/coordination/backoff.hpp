// agent/coordination/backoff.hpp - how long to wait before the next try.
#pragma once
#include "base/random.hpp"
#include "base/time.hpp"

#include <algorithm>

namespace tailrace {

/// n^2 * 10 ms, at most `longest`, and that times 0.5 to 1.5. Source: tailscale util/backoff,
/// control/controlclient/auto.go (30 s), wgengine/magicsock/derp.go (5 s).
class Backoff {
public:
    static constexpr auto kLongest = std::chrono::seconds{30};

    explicit Backoff(Duration longest = kLongest) : longest_(longest) {}
    /// After one more failure.
    Duration next() {
        ++failures_;
        return jittered(unjittered(failures_, longest_), random_below(1001));
    }
    void reset() { failures_ = 0; }
    int failures() const { return failures_; }

    static Duration unjittered(int failures, Duration longest = kLongest) {
        std::int64_t n = std::min(failures, 1000);
        return std::min<Duration>(std::chrono::milliseconds{n * n * 10}, longest);
    }
    /// `thousandth` 0 gives half, 1000 one and a half.
    static Duration jittered(Duration duration, std::uint32_t thousandth) {
        return duration / 2 + duration / 1000 * static_cast<std::int64_t>(thousandth);
    }

private:
    Duration longest_;
    int failures_ = 0;
};

} // namespace tailrace
