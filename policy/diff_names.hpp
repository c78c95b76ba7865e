// policy/diff_names.hpp - the part of a difference that is not about packets. Internal to policy/.
#pragma once
#include "policy/diff.hpp"
#include "policy/parties.hpp"

namespace tailrace {

/// Logins by SSH, tags, attributes, approvals, and what postures ask for.
void diff_names(const Document& before, const Document& after, const Tailnet& tailnet,
                const std::vector<Party>& parties, const PartyNames& names, PolicyDiff& out);

} // namespace tailrace
