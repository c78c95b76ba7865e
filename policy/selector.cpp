// policy/selector.cpp - the names of autogroups.
#include "policy/selector.hpp"

namespace tailrace {

std::optional<Autogroup> autogroup_named(std::string_view name) {
    struct Known {
        std::string_view name;
        Autogroup autogroup;
    };
    static constexpr Known kKnown[] = {
        {"member", Autogroup::Member},
        {"members", Autogroup::Member},
        {"tagged", Autogroup::Tagged},
        {"self", Autogroup::Self},
        {"internet", Autogroup::Internet},
        {"danger-all", Autogroup::DangerAll},
        {"shared", Autogroup::Shared},
        {"owner", Autogroup::Owner},
        {"admin", Autogroup::Admin},
        {"it-admin", Autogroup::ItAdmin},
        {"network-admin", Autogroup::NetworkAdmin},
        {"billing-admin", Autogroup::BillingAdmin},
        {"auditor", Autogroup::Auditor},
        {"nonroot", Autogroup::Nonroot},
    };
    for (const auto& known : kKnown) {
        if (known.name == name) return known.autogroup;
    }
    return std::nullopt;
}

bool is_role(Autogroup autogroup) {
    switch (autogroup) {
    case Autogroup::Owner:
    case Autogroup::Admin:
    case Autogroup::ItAdmin:
    case Autogroup::NetworkAdmin:
    case Autogroup::BillingAdmin:
    case Autogroup::Auditor:
        return true;
    default:
        return false;
    }
}

} // namespace tailrace
