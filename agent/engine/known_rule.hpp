// agent/engine/known_rule.hpp - a rule of the filter, and where in the policy it is written. Pure.
#pragma once
#include "policy/filter_rule.hpp"
#include "proto/control/filter.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace tailrace {

struct KnownRule {
    FilterRule rule;
    wire::RuleLines lines; ///< empty where the server does not say
};

/// The lines of all its destinations, each once, in order.
std::vector<std::uint32_t> policy_lines(const KnownRule& rule);
/// Of these destinations, numbers in order; those of all where none is given.
std::vector<std::uint32_t> policy_lines(const KnownRule& rule, const std::vector<std::size_t>& destinations);

/// The member "PolicyLines":[12,40] with a comma after it, or nothing.
std::string policy_lines_member(const std::vector<std::uint32_t>& lines);

} // namespace tailrace
