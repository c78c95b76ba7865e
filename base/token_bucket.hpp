// base/token_bucket.hpp - a rate with a burst.
#pragma once
#include "base/time.hpp"

#include <algorithm>

namespace tailrace {

/// Holds at most `burst` tokens and gains `per_second`. Pure: it is told the time. The zero value never has any.
class TokenBucket {
public:
    TokenBucket() = default;
    TokenBucket(double per_second, double burst, TimePoint now)
        : per_second_(per_second), burst_(burst), tokens_(burst), at_(now) {}

    /// Takes `count` when they are there.
    bool try_take(TimePoint now, double count = 1) {
        gain(now);
        if (tokens_ < count) return false;
        tokens_ -= count;
        return true;
    }
    /// Takes them in any case; the bucket may owe afterwards. Returns how long until it owes nothing.
    Duration take(TimePoint now, double count) {
        gain(now);
        tokens_ -= count;
        if (tokens_ >= 0 || per_second_ <= 0) return Duration::zero();
        return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(-tokens_ / per_second_));
    }

private:
    void gain(TimePoint now) {
        if (now <= at_) return;
        tokens_ = std::min(burst_, tokens_ + per_second_ * std::chrono::duration<double>(now - at_).count());
        at_ = now;
    }

    double per_second_ = 0, burst_ = 0, tokens_ = 0;
    TimePoint at_{};
};

} // namespace tailrace
