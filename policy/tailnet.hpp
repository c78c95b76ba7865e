// policy/tailnet.hpp - what a policy is compiled against: who is in the tailnet, as plain values.
#pragma once
#include "base/net.hpp"
#include "base/result.hpp"
#include "policy/filter_rule.hpp"

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace tailrace {

using PolicyUserId = std::int64_t;
using PolicyNodeId = std::int64_t;

/// What a user may administer. Autogroups are named after them; `autogroup:admin` includes the owner.
enum class UserRole : std::uint8_t { Member, Auditor, BillingAdmin, NetworkAdmin, ItAdmin, Admin, Owner };
/// "member", "it-admin" and so on: as the autogroups are called.
std::string_view role_name(UserRole role);
Result<UserRole> parse_role(std::string_view name);

struct TailnetUser {
    PolicyUserId id = 0;
    std::string login; ///< as it stands in policies: alice@example.com
    UserRole role = UserRole::Member;
};

/// A posture attribute of a device, such as node:os or custom:tier.
using PostureValue = std::variant<std::string, double, bool>;

/// A name with addresses of its own, "svc:web", behind which stand the nodes that host it: each of these has both
/// addresses among its `routes`, as single prefixes, and who is primary is chosen as for any route.
struct TailnetService {
    std::string name;
    std::vector<IpAddress> addresses; ///< IPv4 first; never those of a node
    std::vector<PortRange> ports;     ///< that there are; empty: any

    friend bool operator==(const TailnetService&, const TailnetService&) = default;
};

struct TailnetNode {
    PolicyNodeId id = 0;
    PolicyUserId user = 0;            ///< of an untagged node; ignored when there are tags
    std::vector<std::string> tags;    ///< "tag:server"
    std::vector<IpAddress> addresses; ///< IPv4 first
    std::vector<IpPrefix> routes;     ///< approved: offered and enabled; exit routes and hosted services included
    std::vector<IpPrefix> primaries;  ///< those of `routes` that this node is the primary of; see choose_primaries()
    bool online = true;               ///< whether it can be primary of a route
    bool steady = true;               ///< of one online: else it becomes primary only where nobody else can
    std::int64_t router_since = 0;    ///< in a group of routers the least leads: nobody who comes back takes over
    bool app_connector = false;       ///< it offers to be one; the policy says whether it is
    int region = 0;                   ///< that its routers are chosen by, see Tailnet; 0: not known
    std::map<std::string, PostureValue> attributes;
    std::string name; ///< for people and messages; policies do not know it

    bool is_tagged() const { return !tags.empty(); }
};

/// Nodes and users in ID order.
struct Tailnet {
    std::string domain; ///< mail domain of the tailnet, for user:*@domain; empty: the one of the first user
    std::vector<TailnetUser> users;
    std::vector<TailnetNode> nodes;
    std::vector<TailnetService> services; ///< what "svc:web" stands for
    /// Who is the primary of a subnet route for viewers of a region, where that is chosen by region. What is missing
    /// here is as `primaries` say.
    std::map<IpPrefix, std::map<int, PolicyNodeId>> regional;
};

/// 0.0.0.0/0 or ::/0. Every other approved route is a subnet route.
inline bool is_exit_route(const IpPrefix& route) {
    return route.is_default();
}

/// Fills `primaries`: each exact subnet route has one primary, the node that already is (while it is online), else the
/// online node, a steady one rather, that is a router for longest, else whoever was. Equals: the lowest ID.
void choose_primaries(Tailnet& tailnet);

} // namespace tailrace
