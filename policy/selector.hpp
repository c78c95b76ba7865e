// policy/selector.hpp - one word of a policy that stands for devices: alice@example.com, tag:web, 10.0.0.0/8, ...
#pragma once
#include "base/net.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// The part of a selector that a policy leaves to the tailnet.
enum class Autogroup : std::uint8_t {
    None,
    Member,
    Tagged,
    Self,
    Internet,
    DangerAll,
    Shared,
    Owner,
    Admin,
    ItAdmin,
    NetworkAdmin,
    BillingAdmin,
    Auditor,
    Nonroot
};

/// By the name behind "autogroup:"; `members` is the old spelling of `member`.
std::optional<Autogroup> autogroup_named(std::string_view name);
/// owner, admin, ...: users by what they may administer.
bool is_role(Autogroup autogroup);

struct Selector {
    enum class Kind : std::uint8_t {
        Everything,    ///< *
        User,          ///< alice@example.com
        UserDomain,    ///< user:*@example.com; `name` is the domain
        Group,         ///< group:ops
        Tag,           ///< tag:web
        AutogroupKind, ///< autogroup:member
        Prefix,        ///< 10.0.0.0/8, 100.64.0.7, or a host alias for one
        IpSet,         ///< ipset:prod
        Service        ///< svc:web
    };

    Kind kind = Kind::Everything;
    Autogroup autogroup = Autogroup::None;
    std::string text;         ///< as written, trimmed
    std::string name;         ///< the data of it where that is shorter than `text`
    IpPrefix prefix;          ///< of a Prefix, without host bits
    std::uint32_t offset = 0; ///< of its string in the policy text

    bool is(Autogroup wanted) const { return kind == Kind::AutogroupKind && autogroup == wanted; }
};

} // namespace tailrace
