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

/// What a test means that speaks of somebody or something without a device in the tailnet, and of no tag, user of the
/// tailnet or service: those count as having one.
enum class Strangers : std::uint8_t {
    AreNobody, ///< nobody reaches anything
    MayCome    ///< it says nothing yet: a tailnet that begins has nobody
};

/// Users and tags without a device count as having one, so that a policy may come before the devices.
std::vector<TestFailure> run_policy_tests(const Document& document, const Tailnet& tailnet,
                                          Strangers strangers = Strangers::AreNobody);

} // namespace tailrace
