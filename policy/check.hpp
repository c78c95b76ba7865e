// policy/check.hpp - everything that can be wrong with a policy, also in view of the tailnet: what `policy check` says.
#pragma once
#include "policy/document.hpp"
#include "policy/policy_tests.hpp"
#include "policy/tailnet.hpp"

#include <string_view>
#include <vector>

namespace tailrace {

/// The document if it is in order for this tailnet and passes its own tests, else the first problem with its place.
/// `failures` receives every test that does not hold.
Result<Document> check(std::string_view text, const Tailnet& tailnet, PolicyProblem* problem = nullptr,
                       std::vector<TestFailure>* failures = nullptr);
/// The same for what is read already.
Result<void> check(const Document& document, const Tailnet& tailnet, Strangers strangers,
                   PolicyProblem* problem = nullptr, std::vector<TestFailure>* failures = nullptr);

} // namespace tailrace
