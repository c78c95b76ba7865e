// control/tailnet/credential.hpp - the texts that prove something to this server: shown once, kept as a hash.
#pragma once
#include "base/result.hpp"

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

namespace tailrace {

enum class Credential {
    AuthKey,     ///< "trkey-auth-": lets nodes in
    OAuthClient, ///< "tskey-client-": makes access tokens; by this beginning stock clients know it
    AccessToken, ///< "tskey-api-": asks the API for an hour
};

/// "<beginning><12 hex digits>-<48 hex digits>": a public part that finds it, and the secret.
struct CredentialText {
    Credential kind = Credential::AuthKey;
    std::string prefix;
    std::string secret;

    static CredentialText generate(Credential kind);
    static Result<CredentialText> parse(Credential kind, std::string_view text);
    std::string text() const;
    std::array<std::byte, 32> hash() const; ///< SHA-256 of the secret; it is random, so no slow hash is needed
    /// Takes the same time whatever differs.
    bool has_hash(const std::array<std::byte, 32>& stored) const;
};

} // namespace tailrace
