// control/tailnet/auth_key.hpp - the text of a pre-authentication key, and what it is checked against.
#pragma once
#include "control/model/model.hpp"

#include <optional>
#include <string>
#include <string_view>

namespace tailrace {

/// "trkey-auth-<12 hex digits>-<48 hex digits>": a public part that finds the key, and the secret.
struct AuthKeyText {
    std::string prefix;
    std::string secret;

    static AuthKeyText generate();
    static Result<AuthKeyText> parse(std::string_view text);
    std::string text() const;
    std::array<std::byte, 32> hash() const; ///< SHA-256 of the secret; it is random, so no slow hash is needed
};

/// Why this key can't be used now, in words for the user of the client; nothing when it can.
std::optional<std::string> problem_of(const AuthKey& key, const WallTime& now);

} // namespace tailrace
