// What changes in the host's network, as it changes.
#pragma once
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "base/fd.hpp"
#include "base/net.hpp"
#include "base/result.hpp"
#include "netlink/link.hpp"
#include "netlink/router.hpp"

namespace tailrace {

enum class Change { Added, Removed }; ///< Added also means "changed": the kernel has one message for both

struct LinkEvent {
    Change change = Change::Added;
    Link link; ///< without addresses
};
struct AddressEvent {
    Change change = Change::Added;
    int link_index = 0;
    InterfaceAddress address;
};
struct RouteEvent {
    Change change = Change::Added;
    std::uint32_t table = 0;
    Route route;
    bool has_gateway = false;
};
struct RuleEvent {
    Change change = Change::Added;
    PolicyRule rule;
};
/// An object that routes name instead of a gateway: what goes by it goes elsewhere, and no route has changed.
struct NexthopEvent {
    Change change = Change::Added;
};
/// IPv6's own view of an interface: also told when `disable_ipv6` of it is set back, of which nobody else speaks.
struct Ipv6LinkEvent {
    int link_index = 0;
};
/// The kernel dropped events because nobody read them: look at everything again.
struct EventsLost {};

using NetworkEvent =
    std::variant<LinkEvent, AddressEvent, RouteEvent, RuleEvent, NexthopEvent, Ipv6LinkEvent, EventsLost>;

/// One non-blocking socket for link, address, route, nexthop and rule events of both families. Wait until fd() is
/// readable, then call read_events() once; it takes all that is there.
class NetworkMonitor {
public:
    static Result<NetworkMonitor> open();

    int fd() const { return fd_.get(); }
    Result<std::vector<NetworkEvent>> read_events();

private:
    explicit NetworkMonitor(Fd fd) : fd_(std::move(fd)) {}
    Fd fd_;
};

} // namespace tailrace
