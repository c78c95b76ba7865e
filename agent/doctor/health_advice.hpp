// agent/doctor/health_advice.hpp - why a sentence of the agent's health matters, and what is to be done about it. Pure.
#pragma once
#include <string>
#include <string_view>

namespace tailrace {

struct HealthAdvice {
    std::string what; ///< the sentence, without what has gone into the other two
    std::string why;
    std::string cure;
};

/// For any sentence there is a reason and a cure: where it is none of ours (the coordination server says it, say), who
/// knows more.
HealthAdvice advice_on(std::string_view message);

} // namespace tailrace
