// policy/policy_tests.hpp - runs the `tests` and `sshTests` that a policy brings along.
#pragma once
#include "policy/document.hpp"
#include "policy/tailnet.hpp"

#include <string>
#include <vector>

namespace tailrace {

/// An expectation that does not hold.
struct TestFailure {
    std::string source;       ///< as written in the test
    std::string message;      ///< address "tag:web:22": want: Accept, got: Drop
    std::uint32_t offset = 0; ///< of the destination or the test in the policy
};

/// Users and tags without a device count as having one, so that a policy may come before the devices.
std::vector<TestFailure> run_policy_tests(const Document& document, const Tailnet& tailnet);

} // namespace tailrace
