// Addresses of the device, table 52 and the policy rules: what makes the host send tailnet traffic into the tunnel.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/net.hpp"
#include "base/result.hpp"
#include "netlink/link.hpp"
#include "netlink/socket.hpp"

namespace tailrace {

// The same values as the reference client's, so that what people know about one holds for the other (and so that both
// on one host are seen to be in each other's way). Source: tailscale wgengine/router/osrouter/router_linux.go,
// tsconst/linuxfw.go.
inline constexpr std::uint32_t kRoutingTable = 52;
inline constexpr std::uint32_t kRuleBase = 5200;
inline constexpr std::uint32_t kFwmarkMask = 0xff0000;
inline constexpr std::uint32_t kBypassMark = 0x80000; ///< packets of our own programs, never to enter the tunnel

enum class RouteType {
    Unicast,     ///< out by the device
    Throw,       ///< "not in this table": the look-up goes on with the later rules
    Unreachable, ///< refused, with an ICMP error
    Blackhole,   ///< refused in silence
    Prohibit,    ///< refused, as forbidden; never ours
};
std::string_view text(RouteType type);

struct Route {
    IpPrefix destination;
    RouteType type = RouteType::Unicast;
    int device_index = 0;     ///< 0 for all but Unicast
    std::uint32_t metric = 0; ///< the lower is asked first; 0: the kernel's own (which IPv6 shows as 1024)

    auto operator<=>(const Route&) const = default;
    std::string text() const;
};

/// One `ip rule`. An unreachable rule has table 0.
struct PolicyRule {
    bool v6 = false;
    std::uint32_t priority = 0;
    std::uint32_t mark = 0;
    std::uint32_t mask = 0; ///< 0: any mark
    std::uint32_t table = 0;
    bool unreachable = false;
    bool plain = true; ///< has no selector besides the mark; ours never do, others' may

    friend bool operator==(const PolicyRule&, const PolicyRule&) = default;
    std::string text() const;
};

/// The rules 5210, 5230, 5250 and 5270 of one family.
std::vector<PolicyRule> tailnet_rules(bool v6);

/// What "IPv6 is available" means here. Without it no IPv6 address, route or rule is touched, and that is no error.
struct Ipv6Support {
    bool available = false;
    std::string reason;   ///< one sentence, when not
    bool present = false; ///< the kernel has IPv6: other devices than ours may speak it
};
/// Available means: the kernel has IPv6, `all.disable_ipv6` is 0, IPv6 policy rules can be listed, and the device
/// itself has not switched it off (an MTU below 1280 makes its directory in /proc vanish). `disable_policy` (IPsec) is
/// not looked at: it says nothing about routing.
Result<Ipv6Support> probe_ipv6(const std::string& device);

/// Metric of the default routes that refuse. Any that is worse than the kernel's own for IPv6.
inline constexpr std::uint32_t kClosedMetric = 0xffff;

/// What we want.
struct RouterConfig {
    std::vector<IpPrefix> addresses; ///< host bits kept; normally one /32 and one /128
    /// More addresses of the device at which this host answers itself, and which it never chooses as its own: IPv4 ones
    /// have host scope, IPv6 ones, which have no scope of their own, are deprecated from the start.
    std::vector<IpPrefix> quiet_addresses;
    std::vector<IpPrefix> routes;       ///< into the device
    std::vector<IpPrefix> throw_routes; ///< never into the device
    /// Behind the default routes by the device, in both families, stand ones that refuse: whatever becomes of the
    /// device and of us, nothing leaves past the tunnel. For IPv6 also where our device has none.
    bool closed = false;
    /// Addresses in these ranges on the device are ours: those not wanted are removed. Others are left alone.
    std::vector<IpPrefix> own_ranges = default_own_ranges();

    static std::vector<IpPrefix> default_own_ranges(); ///< 100.64.0.0/10 and fd7a:115c:a1e0::/48
};

/// What there is: the device's addresses, all of table 52, all rules.
struct RouterState {
    std::vector<IpPrefix> addresses;
    std::vector<Route> routes;
    std::vector<PolicyRule> rules;
};

struct RouterChanges {
    std::vector<IpPrefix> add_addresses, add_quiet_addresses, remove_addresses;
    std::vector<Route> add_routes, remove_routes; ///< adding replaces a route to the same destination
    std::vector<PolicyRule> add_rules, remove_rules;

    bool empty() const;
    std::size_t size() const;
};

/// Pure: the least that leads from `current` to `wanted`. Routes of other devices in table 52 are not ours and stay;
/// rules at our four priorities with our action but another mark are leftovers and go.
RouterChanges diff(const RouterState& current, const RouterConfig& wanted, int device_index, const Ipv6Support& ipv6);

/// Carries it out. Adds before it deletes; where an add failed nothing of that sort is deleted; errors are collected,
/// a failed step does not stop later ones.
class Router {
public:
    static Result<Router> create(std::string device);

    Result<RouterState> read();
    /// read, diff, apply, read again; an error when something still differs. Returns what was done. The device must be
    /// up.
    Result<RouterChanges> reconcile(const RouterConfig& wanted);
    /// As `closed` in a configuration that is not complete yet, with or without the device: adds the rules, the default
    /// routes that refuse and those that are never into the device, and takes nothing away.
    Result<void> close(const std::vector<IpPrefix>& throw_routes);
    /// Takes back rules, routes and own addresses, but for what close() of the same routes put there where `closed`.
    /// The device stays. A missing device is fine.
    Result<void> remove(const std::vector<IpPrefix>& throw_routes = {}, bool closed = false);

private:
    Router(std::string device, Links links, NetlinkSocket socket);
    Result<void> apply(const RouterChanges& changes, int device_index);

    std::string device_;
    Links links_;
    NetlinkSocket socket_;
};

} // namespace tailrace
