// agent/doctor/ruleset.hpp - what `nft -j list ruleset` says of other people's firewalls.
#pragma once
#include "agent/doctor/facts.hpp"
#include "base/result.hpp"

#include <string_view>

namespace tailrace {

/// Fills base_chains and masquerades_all, by device and port, which are known before; tables of ours (tailrace-*) are
/// left out.
Result<void> read_ruleset(std::string_view json, DoctorFacts& facts);

} // namespace tailrace
