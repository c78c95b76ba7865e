#include "netlink/router.hpp"

#include "base/file.hpp"
#include "base/text.hpp"
#include "netlink/attributes.hpp"
#include "netlink/decode.hpp"

#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <cerrno>

namespace tailrace {
namespace {

unsigned char family_of(const IpPrefix& prefix) {
    return prefix.address().is_v4() ? AF_INET : AF_INET6;
}

enum class AddressUse { Usual, Quiet };

NetlinkMessage address_message(std::uint16_t type, std::uint16_t flags, const IpPrefix& address, int device_index,
                               AddressUse use = AddressUse::Usual) {
    NetlinkMessage message{type, flags};
    ifaddrmsg header{};
    header.ifa_family = family_of(address);
    header.ifa_prefixlen = static_cast<unsigned char>(address.bits());
    header.ifa_index = static_cast<unsigned>(device_index);
    if (address.address().is_v6()) header.ifa_flags = IFA_F_NODAD; // nobody to ask on this device
    if (use == AddressUse::Quiet && address.address().is_v4()) header.ifa_scope = RT_SCOPE_HOST;
    message.header(header);
    message.put_address(IFA_LOCAL, address.address());
    message.put_address(IFA_ADDRESS, address.address());
    if (use == AddressUse::Quiet && address.address().is_v6()) {
        ifa_cacheinfo lifetime{};
        lifetime.ifa_prefered = 0;
        lifetime.ifa_valid = 0xffffffff; // for ever
        message.put(IFA_CACHEINFO, &lifetime, sizeof lifetime);
    }
    return message;
}

NetlinkMessage route_message(std::uint16_t type, std::uint16_t flags, const Route& route) {
    NetlinkMessage message{type, flags};
    rtmsg header{};
    header.rtm_family = family_of(route.destination);
    header.rtm_dst_len = static_cast<unsigned char>(route.destination.bits());
    header.rtm_table = kRoutingTable;
    header.rtm_scope = RT_SCOPE_UNIVERSE;
    switch (route.type) {
    case RouteType::Unicast:
        header.rtm_type = RTN_UNICAST;
        break;
    case RouteType::Throw:
        header.rtm_type = RTN_THROW;
        break;
    case RouteType::Unreachable:
        header.rtm_type = RTN_UNREACHABLE;
        break;
    case RouteType::Blackhole:
        header.rtm_type = RTN_BLACKHOLE;
        break;
    case RouteType::Prohibit:
        header.rtm_type = RTN_PROHIBIT;
        break;
    }
    if (type == RTM_NEWROUTE) {
        header.rtm_protocol = RTPROT_STATIC;
        // Of scope "link" a route into the tunnel would be where the kernel looks for the gateway of a new route, and
        // with an exit node in use the host's own default route would lead there.
    } else {
        header.rtm_scope = RT_SCOPE_NOWHERE; // any
    }
    message.header(header);
    message.put_address(RTA_DST, route.destination.address());
    if (route.device_index != 0) message.put_u32(RTA_OIF, static_cast<std::uint32_t>(route.device_index));
    // Without a metric IPv6 would remove a route of any.
    const std::uint32_t metric = route.metric == 0 && header.rtm_family == AF_INET6 ? kIpv6Metric : route.metric;
    if (metric != 0) message.put_u32(RTA_PRIORITY, metric);
    return message;
}

NetlinkMessage rule_message(std::uint16_t type, std::uint16_t flags, const PolicyRule& rule) {
    NetlinkMessage message{type, flags};
    fib_rule_hdr header{};
    header.family = rule.v6 ? AF_INET6 : AF_INET;
    header.action = rule.unreachable ? FR_ACT_UNREACHABLE : FR_ACT_TO_TBL;
    header.table = static_cast<unsigned char>(rule.table < 256 ? rule.table : RT_TABLE_UNSPEC);
    message.header(header);
    message.put_u32(FRA_PRIORITY, rule.priority);
    if (rule.mask != 0) {
        message.put_u32(FRA_FWMARK, rule.mark);
        message.put_u32(FRA_FWMASK, rule.mask);
    }
    if (!rule.unreachable) message.put_u32(FRA_TABLE, rule.table);
    return message;
}

/// Collects what went wrong, and lets the rest go on.
class Troubles {
public:
    /// Sends all; answers whether all of them held. `fine` are errno values that mean "it is so already".
    bool send(NetlinkSocket& socket, std::vector<NetlinkMessage> messages, const std::vector<std::string>& names,
              std::initializer_list<int> fine) {
        bool held = true;
        auto outcomes = socket.request_all(messages);
        for (std::size_t i = 0; i < outcomes.size(); ++i) {
            if (outcomes[i]) continue;
            const int code = outcomes[i].error().code();
            if (std::find(fine.begin(), fine.end(), code) != fine.end()) continue;
            held = false;
            if (first_code_ == 0) first_code_ = code;
            ++count_;
            if (texts_.size() < 5) texts_.push_back(outcomes[i].error().with("{}", names[i]).message());
        }
        return held;
    }
    Result<void> outcome() const {
        if (count_ == 0) return {};
        std::string more = count_ > texts_.size() ? fmt::format(" (and {} more)", count_ - texts_.size()) : "";
        return Error::make("{}{}", join(texts_, "; "), more);
    }

private:
    std::vector<std::string> texts_;
    std::size_t count_ = 0;
    int first_code_ = 0;
};

template <typename T, typename MakeMessage, typename Describe>
bool send_each(Troubles& troubles, NetlinkSocket& socket, const std::vector<T>& items, MakeMessage make_message,
               Describe describe, std::initializer_list<int> fine) {
    std::vector<NetlinkMessage> messages;
    std::vector<std::string> names;
    messages.reserve(items.size());
    names.reserve(items.size());
    for (const auto& item : items) {
        messages.push_back(make_message(item));
        names.push_back(describe(item));
    }
    return messages.empty() || troubles.send(socket, std::move(messages), names, fine);
}

Result<void> read_rules(NetlinkSocket& socket, unsigned char family, std::vector<PolicyRule>& rules) {
    NetlinkMessage ask{RTM_GETRULE, NLM_F_DUMP};
    fib_rule_hdr header{};
    header.family = family;
    ask.header(header);
    return socket.query(ask, [&](const nlmsghdr& message) -> Result<void> {
        if (auto rule = decode_rule(message)) rules.push_back(*rule);
        return {};
    });
}

Result<void> read_routes(NetlinkSocket& socket, unsigned char family, std::vector<Route>& routes) {
    NetlinkMessage ask{RTM_GETROUTE, NLM_F_DUMP};
    rtmsg header{};
    header.rtm_family = family;
    ask.header(header);
    ask.put_u32(RTA_TABLE, kRoutingTable); // kernels before 4.20 send all tables
    auto asked = socket.query(ask, [&](const nlmsghdr& message) -> Result<void> {
        auto route = decode_route(message);
        if (route && route->table == kRoutingTable && !route->local) routes.push_back(route->route);
        return {};
    });
    if (!asked && asked.error().code() == ENOENT) return {}; // nobody has used the table yet
    return asked;
}

/// The content of a file below /proc/sys; empty when there is none.
std::string sysctl(const std::string& path) {
    auto content = read_file("/proc/sys/" + path, 256);
    return content ? std::string{trim(*content)} : std::string{};
}

} // namespace

Result<Ipv6Support> probe_ipv6(const std::string& device) {
    const std::string everywhere = sysctl("net/ipv6/conf/all/disable_ipv6");
    if (everywhere.empty()) return Ipv6Support{false, "the kernel has no IPv6"};
    auto socket = NetlinkSocket::open(NETLINK_ROUTE);
    if (!socket) return socket.error();
    std::vector<PolicyRule> rules;
    auto listed = read_rules(*socket, AF_INET6, rules);
    if (!listed && listed.error().code() != EOPNOTSUPP && listed.error().code() != EAFNOSUPPORT) return listed.error();
    if (!listed || rules.empty()) return Ipv6Support{false, "the kernel has no IPv6 policy routing"};
    if (everywhere != "0") return Ipv6Support{false, "net.ipv6.conf.all.disable_ipv6 is set", true};
    const std::string here = sysctl("net/ipv6/conf/" + device + "/disable_ipv6");
    if (here.empty()) return Ipv6Support{false, fmt::format("{} has no IPv6: is its MTU below 1280?", device), true};
    if (here != "0") return Ipv6Support{false, fmt::format("net.ipv6.conf.{}.disable_ipv6 is set", device), true};
    return Ipv6Support{true, {}, true};
}

Router::Router(std::string device, Links links, NetlinkSocket socket)
    : device_(std::move(device)), links_(std::move(links)), socket_(std::move(socket)) {}

Result<Router> Router::create(std::string device) {
    auto links = Links::open();
    if (!links) return links.error();
    auto socket = NetlinkSocket::open(NETLINK_ROUTE);
    if (!socket) return socket.error();
    return Router{std::move(device), std::move(*links), std::move(*socket)};
}

Result<RouterState> Router::read() {
    for (int attempt = 0;; ++attempt) {
        RouterState state;
        auto link = links_.find(device_);
        if (!link) return link.error();
        if (*link)
            for (const auto& address : (*link)->addresses) state.addresses.push_back(address.prefix);
        // No word of IPv6 where the kernel has none: it would answer with IPv4's.
        Result<void> done;
        for (unsigned char family : {AF_INET, AF_INET6}) {
            if (family == AF_INET6 && sysctl("net/ipv6/conf/all/disable_ipv6").empty()) continue;
            if (done) done = read_routes(socket_, family, state.routes);
            if (done) done = read_rules(socket_, family, state.rules);
        }
        if (done) return state;
        if (done.error().code() != EINTR || attempt == 10) return done.error().with("read routes and rules");
    }
}

Result<void> Router::apply(const RouterChanges& changes, int device_index) {
    Troubles troubles;
    auto prefix_text = [](const char* doing) {
        return [doing](const IpPrefix& prefix) { return fmt::format("{} address {}", doing, prefix.text()); };
    };
    auto text_of = [](const char* doing) {
        return [doing](const auto& item) { return fmt::format("{} {}", doing, item.text()); };
    };

    // Rules first: an exit node's default route must find the way out for our own packets in place.
    bool held =
        send_each(troubles, socket_, changes.add_rules,
                  [](const PolicyRule& rule) { return rule_message(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, rule); },
                  text_of("add"), {EEXIST});
    if (held)
        send_each(troubles, socket_, changes.remove_rules,
                  [](const PolicyRule& rule) { return rule_message(RTM_DELRULE, 0, rule); }, text_of("remove"),
                  {ENOENT});

    held = send_each(troubles, socket_, changes.add_addresses,
                     [&](const IpPrefix& address) {
                         return address_message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, address, device_index);
                     },
                     prefix_text("add"), {EEXIST});
    const bool quiet_held = send_each(troubles, socket_, changes.add_quiet_addresses,
                                      [&](const IpPrefix& address) {
                                          return address_message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, address,
                                                                 device_index, AddressUse::Quiet);
                                      },
                                      prefix_text("add"), {EEXIST});
    const bool addresses_held = held && quiet_held;

    held =
        send_each(troubles, socket_, changes.add_routes,
                  [](const Route& route) { return route_message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, route); },
                  text_of("add route"), {});
    if (held)
        send_each(troubles, socket_, changes.remove_routes,
                  [](const Route& route) { return route_message(RTM_DELROUTE, 0, route); }, text_of("remove route"),
                  {ESRCH});
    if (addresses_held)
        send_each(troubles, socket_, changes.remove_addresses,
                  [&](const IpPrefix& address) { return address_message(RTM_DELADDR, 0, address, device_index); },
                  prefix_text("remove"), {EADDRNOTAVAIL});
    return troubles.outcome();
}

Result<RouterChanges> Router::reconcile(const RouterConfig& wanted) {
    auto link = links_.find(device_);
    if (!link) return link.error();
    if (!*link) return Error::from_errno(ENODEV, "routes of {}", device_);
    const int index = (*link)->index;
    if (!(*link)->up && !wanted.routes.empty()) return Error::from_errno(ENETDOWN, "routes of {}", device_);

    const auto ipv6 = probe_ipv6(device_);
    if (!ipv6) return ipv6.error();
    RouterChanges done;
    // Once is the rule. A second round is for what the kernel's loose matching takes along: asked to remove a rule
    // without a mark it may choose ours, which has one.
    for (int round = 0;; ++round) {
        auto current = read();
        if (!current) return current.error();
        auto changes = diff(*current, wanted, index, *ipv6);
        if (changes.empty()) return done;
        if (round == 3)
            return Error::make("{} changes to addresses, routes and rules of {} do not stay", changes.size(), device_);
        if (auto applied = apply(changes, index); !applied) return applied.error().with("set up {}", device_);
        if (round == 0) done = std::move(changes);
    }
}

Result<void> Router::close(const std::vector<IpPrefix>& throw_routes) {
    auto current = read();
    if (!current) return current.error();
    RouterConfig wanted;
    wanted.throw_routes = throw_routes;
    wanted.closed = true;
    auto ipv6 = probe_ipv6(device_);
    if (!ipv6) return ipv6.error();
    auto changes = diff(*current, wanted, -1, *ipv6);
    changes.remove_addresses.clear();
    changes.remove_routes.clear();
    changes.remove_rules.clear();
    // A route that is there, by the device or never by it, is known better by whoever put it there.
    std::erase_if(changes.add_routes, [&](const Route& route) {
        return std::ranges::any_of(current->routes, [&](const Route& there) {
            return there.destination == route.destination && there.metric == route.metric;
        });
    });
    if (auto applied = apply(changes, 0); !applied) return applied.error().with("close the way past the tunnel");
    return {};
}

Result<void> Router::remove(const std::vector<IpPrefix>& throw_routes, bool closed) {
    auto link = links_.find(device_);
    if (!link) return link.error();
    const int index = *link ? (*link)->index : -1;
    auto current = read();
    if (!current) return current.error();

    RouterConfig remaining;
    remaining.throw_routes = throw_routes;
    remaining.closed = closed;
    auto changes = diff(*current, remaining, index, Ipv6Support{true, {}, true});
    changes.add_rules.clear();
    changes.add_routes.clear();
    if (closed) return apply(changes, index);
    for (const auto& rule : current->rules)
        for (const auto& ours : tailnet_rules(rule.v6))
            if (rule == ours) changes.remove_rules.push_back(rule);
    return apply(changes, index);
}

} // namespace tailrace
