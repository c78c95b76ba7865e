#include "control/tailnet/auth_key.hpp"

#include "base/random.hpp"
#include "base/text.hpp"

#include <sodium.h>

namespace tailrace {

namespace {
constexpr std::string_view kPrefix = "trkey-auth-";
constexpr std::size_t kPublicDigits = 12;
constexpr std::size_t kSecretDigits = 48;

bool is_hex(std::string_view text) {
    return text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}
} // namespace

AuthKeyText AuthKeyText::generate() {
    return {hex_encode(random_array<kPublicDigits / 2>()), hex_encode(random_array<kSecretDigits / 2>())};
}

Result<AuthKeyText> AuthKeyText::parse(std::string_view text) {
    std::string_view rest = trim(text);
    if (!rest.starts_with(kPrefix) || rest.size() != kPrefix.size() + kPublicDigits + 1 + kSecretDigits)
        return Error::make("not an auth key of this server");
    rest.remove_prefix(kPrefix.size());
    AuthKeyText key{std::string{rest.substr(0, kPublicDigits)}, std::string{rest.substr(kPublicDigits + 1)}};
    if (rest[kPublicDigits] != '-' || !is_hex(key.prefix) || !is_hex(key.secret))
        return Error::make("not an auth key of this server");
    return key;
}

std::string AuthKeyText::text() const {
    return fmt::format("{}{}-{}", kPrefix, prefix, secret);
}

std::array<std::byte, 32> AuthKeyText::hash() const {
    std::array<std::byte, 32> out;
    crypto_hash_sha256(reinterpret_cast<unsigned char*>(out.data()),
                       reinterpret_cast<const unsigned char*>(secret.data()), secret.size());
    return out;
}

std::optional<std::string> problem_of(const AuthKey& key, const WallTime& now) {
    if (!key.revoked.is_zero()) return "authkey revoked";
    if (!key.expires.is_zero() && key.expires <= now) return "authkey expired";
    if (!key.reusable && !key.used.is_zero()) return "authkey already used";
    return std::nullopt;
}

} // namespace tailrace
