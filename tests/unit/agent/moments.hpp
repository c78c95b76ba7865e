// tests/unit/agent/moments.hpp - the clock of tests of pure classes.
#pragma once
#include "base/time.hpp"

namespace tailrace {

/// That long after the test began, which is not when the clock did.
inline TimePoint at(Duration since_start) {
    return TimePoint{} + std::chrono::hours{1} + since_start;
}

} // namespace tailrace
