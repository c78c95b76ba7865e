// tests/fakes/fake_clock.hpp - a clock that moves when told.
#pragma once
#include "base/time.hpp"

namespace tailrace {

class FakeClock final : public Clock {
public:
    TimePoint now() const override { return now_; }
    WallTime wall() const override { return wall_; }
    void advance(Duration by) {
        now_ += by;
        wall_ = wall_.plus(by);
    }

private:
    TimePoint now_{std::chrono::hours{1}};
    WallTime wall_ = WallTime::from_unix(1'790'000'000);
};

} // namespace tailrace
