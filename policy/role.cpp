#include "policy/tailnet.hpp"

#include <algorithm>
#include <iterator>

namespace tailrace {

namespace {

struct RoleName {
    std::string_view name;
    UserRole role;
};
constexpr RoleName kRoles[] = {{"member", UserRole::Member},
                               {"auditor", UserRole::Auditor},
                               {"billing-admin", UserRole::BillingAdmin},
                               {"network-admin", UserRole::NetworkAdmin},
                               {"it-admin", UserRole::ItAdmin},
                               {"admin", UserRole::Admin},
                               {"owner", UserRole::Owner}};

} // namespace

std::string_view role_name(UserRole role) {
    const auto* found =
        std::find_if(std::begin(kRoles), std::end(kRoles), [&](const RoleName& known) { return known.role == role; });
    return found->name;
}

Result<UserRole> parse_role(std::string_view name) {
    const auto* found =
        std::find_if(std::begin(kRoles), std::end(kRoles), [&](const RoleName& known) { return known.name == name; });
    if (found == std::end(kRoles))
        return Error::make("role \"{}\": want member, auditor, billing-admin, network-admin, it-admin, admin or owner",
                           name.substr(0, 40));
    return found->role;
}

} // namespace tailrace
