#include "control/tailnet/credential.hpp"

#include "base/random.hpp"
#include "base/text.hpp"

#include <sodium.h>

namespace tailrace {

namespace {
constexpr std::size_t kPublicDigits = 12;
constexpr std::size_t kSecretDigits = 48;

struct CredentialKind {
    std::string_view beginning, name;
};
CredentialKind kind_of(Credential kind) {
    switch (kind) {
    case Credential::AuthKey:
        return {"trkey-auth-", "auth key"};
    case Credential::OAuthClient:
        return {"tskey-client-", "OAuth client"};
    case Credential::AccessToken:
        return {"tskey-api-", "access token"};
    }
    return {};
}

bool is_hex(std::string_view text) {
    return text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}
} // namespace

CredentialText CredentialText::generate(Credential kind) {
    return {kind, hex_encode(random_array<kPublicDigits / 2>()), hex_encode(random_array<kSecretDigits / 2>())};
}

Result<CredentialText> CredentialText::parse(Credential kind, std::string_view text) {
    const auto [beginning, name] = kind_of(kind);
    std::string_view rest = trim(text);
    if (!rest.starts_with(beginning) || rest.size() != beginning.size() + kPublicDigits + 1 + kSecretDigits)
        return Error::make("not an {} of this server", name);
    rest.remove_prefix(beginning.size());
    CredentialText out{kind, std::string{rest.substr(0, kPublicDigits)}, std::string{rest.substr(kPublicDigits + 1)}};
    if (rest[kPublicDigits] != '-' || !is_hex(out.prefix) || !is_hex(out.secret))
        return Error::make("not an {} of this server", name);
    return out;
}

std::string CredentialText::text() const {
    return fmt::format("{}{}-{}", kind_of(kind).beginning, prefix, secret);
}

std::array<std::byte, 32> CredentialText::hash() const {
    std::array<std::byte, 32> out;
    crypto_hash_sha256(reinterpret_cast<unsigned char*>(out.data()),
                       reinterpret_cast<const unsigned char*>(secret.data()), secret.size());
    return out;
}

bool CredentialText::has_hash(const std::array<std::byte, 32>& stored) const {
    auto own = hash();
    return sodium_memcmp(stored.data(), own.data(), own.size()) == 0;
}

} // namespace tailrace
