// agent/dataplane/xdp_link.hpp - an XDP program in the driver of an interface, in a way that outlives the agent.
#pragma once
#include "agent/dataplane/bpffs.hpp"
#include "base/result.hpp"

#include <span>
#include <string>

namespace tailrace {

/// Where a program shall hang: an interface, and what the pin of the link is called.
struct XdpHook {
    unsigned interface_index = 0;
    std::string pin;
};

/// Is exactly this program there, by our link?
bool is_attached_xdp(const PinDirectory& pins, const XdpHook& hook, int program);

/// Makes it so, in native mode only; an older program of ours is replaced without a gap, also one of the links pinned
/// in `older`. An interface has room for one: another program there is an error (EBUSY).
Result<void> attach_xdp(const PinDirectory& pins, const XdpHook& hook, int program,
                        std::span<const PinDirectory> older = {});

} // namespace tailrace
