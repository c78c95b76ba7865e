#include "control/tailnet/auth_key.hpp"

namespace tailrace {

std::optional<std::string> problem_of(const AuthKey& key, const WallTime& now) {
    if (!key.revoked.is_zero()) return "authkey revoked";
    if (!key.expires.is_zero() && key.expires <= now) return "authkey expired";
    if (!key.reusable && !key.used.is_zero()) return "authkey already used";
    return std::nullopt;
}

} // namespace tailrace
