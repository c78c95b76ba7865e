// control/tailnet/auth_key.hpp - what a pre-authentication key is checked against. Its text: credential.hpp.
#pragma once
#include "control/model/model.hpp"

#include <optional>
#include <string>

namespace tailrace {

/// Why this key can't be used now, in words for the user of the client; nothing when it can.
std::optional<std::string> problem_of(const AuthKey& key, const WallTime& now);

} // namespace tailrace
