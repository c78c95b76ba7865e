#include "netlink/link.hpp"

#include "netlink/attributes.hpp"
#include "netlink/decode.hpp"

#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>

#include <algorithm>
#include <cerrno>

namespace tailrace {

Result<Links> Links::open() {
    auto socket = NetlinkSocket::open(NETLINK_ROUTE);
    if (!socket) return socket.error().with("links");
    return Links{std::move(*socket)};
}

Result<std::vector<Link>> Links::links(const std::string& only) {
    NetlinkMessage ask{RTM_GETLINK, static_cast<std::uint16_t>(only.empty() ? NLM_F_DUMP : 0)};
    ask.header(ifinfomsg{});
    if (!only.empty()) ask.put_text(IFLA_IFNAME, only);
    ask.put_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    std::vector<Link> found;
    auto asked = socket_.query(ask, [&](const nlmsghdr& message) -> Result<void> {
        if (auto link = decode_link(message)) found.push_back(std::move(*link));
        return {};
    });
    if (!asked) return asked.error();
    return found;
}

Result<void> Links::add_addresses(std::vector<Link>& links, int only) {
    NetlinkMessage ask{RTM_GETADDR, NLM_F_DUMP};
    ifaddrmsg header{};
    header.ifa_index = static_cast<std::uint32_t>(only);
    ask.header(header);
    return socket_.query(ask, [&](const nlmsghdr& message) -> Result<void> {
        auto address = decode_address(message);
        if (!address) return {};
        auto link = std::find_if(links.begin(), links.end(),
                                 [&](const Link& candidate) { return candidate.index == address->link_index; });
        if (link != links.end()) link->addresses.push_back(address->address);
        return {};
    });
}

Result<std::vector<Link>> Links::list() {
    for (int attempt = 0;; ++attempt) {
        auto found = links("");
        auto complete = found ? add_addresses(*found, 0) : Result<void>{found.error()};
        if (complete) return found;
        if (complete.error().code() != EINTR || attempt == 10) return complete.error().with("list interfaces");
    }
}

Result<std::optional<Link>> Links::find(const std::string& name) {
    if (name.empty() || name.size() >= IFNAMSIZ) return std::optional<Link>{};
    for (int attempt = 0;; ++attempt) {
        auto found = links(name);
        if (!found && found.error().code() == ENODEV) return std::optional<Link>{};
        if (found && found->empty()) return std::optional<Link>{};
        auto complete = found ? add_addresses(*found, found->front().index) : Result<void>{found.error()};
        if (complete) return std::optional<Link>{std::move(found->front())};
        if (complete.error().code() == ENODEV) return std::optional<Link>{};
        if (complete.error().code() != EINTR || attempt == 10) return complete.error().with("find {}", name);
    }
}

Result<Link> Links::create(const std::string& name, const std::string& kind) {
    if (name.empty() || name.size() >= IFNAMSIZ)
        return Error::make("create {}: an interface name has 1 to {} characters", name, IFNAMSIZ - 1);
    NetlinkMessage make{RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL};
    make.header(ifinfomsg{});
    make.put_text(IFLA_IFNAME, name);
    auto nest = make.begin_nest(IFLA_LINKINFO);
    make.put_text(IFLA_INFO_KIND, kind);
    make.end_nest(nest);
    if (auto made = socket_.request(make); !made) return made.error().with("create {} link {}", kind, name);
    auto found = find(name);
    if (!found) return found.error();
    if (!*found) return Error::from_errno(ENODEV, "create {} link {}", kind, name);
    return std::move(**found);
}

Result<void> Links::remove(const std::string& name) {
    if (name.empty() || name.size() >= IFNAMSIZ) return {};
    NetlinkMessage drop{RTM_DELLINK, 0};
    drop.header(ifinfomsg{});
    drop.put_text(IFLA_IFNAME, name);
    auto dropped = socket_.request(drop);
    if (!dropped && dropped.error().code() != ENODEV) return dropped.error().with("remove link {}", name);
    return {};
}

Result<void> Links::set_state(int index, LinkState state) {
    NetlinkMessage change{RTM_NEWLINK, 0};
    ifinfomsg header{};
    header.ifi_index = index;
    header.ifi_flags = state == LinkState::Up ? IFF_UP : 0;
    header.ifi_change = IFF_UP;
    change.header(header);
    auto changed = socket_.request(change);
    if (!changed) return changed.error().with("set link {} {}", index, state == LinkState::Up ? "up" : "down");
    return {};
}

Result<void> Links::set_mtu(int index, std::uint32_t mtu) {
    NetlinkMessage change{RTM_NEWLINK, 0};
    ifinfomsg header{};
    header.ifi_index = index;
    change.header(header);
    change.put_u32(IFLA_MTU, mtu);
    auto changed = socket_.request(change);
    if (!changed) return changed.error().with("set MTU {} of link {}", mtu, index);
    return {};
}

} // namespace tailrace
