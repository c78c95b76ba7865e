#include "agent/dataplane/xdp_link.hpp"

#include "agent/dataplane/attachment.hpp"

#include <bpf/bpf.h>
#include <linux/if_link.h>

#include <cerrno>
#include <chrono>
#include <thread>

namespace tailrace {
namespace {

bool read_link(int link, bpf_link_info& info) {
    info = {};
    std::uint32_t bytes = sizeof info;
    return ::bpf_obj_get_info_by_fd(link, &info, &bytes) == 0 && info.type == BPF_LINK_TYPE_XDP;
}

/// The pinned link; none when it hangs elsewhere, or nowhere since the interface went.
Fd link_on(const PinDirectory& pins, const XdpHook& hook) {
    bpf_link_info info;
    Fd link = pins.get(hook.pin);
    if (link && read_link(link.get(), info) && info.xdp.ifindex == hook.interface_index) return link;
    return {};
}

Result<void> exchange(int link, const XdpHook& hook, int program) {
    bpf_link_info info;
    auto wanted = program_id(program);
    if (wanted && read_link(link, info) && info.prog_id == *wanted) return {};
    if (::bpf_link_update(link, program, nullptr) == 0) return {};
    return Error::from_errno(errno, "exchange the XDP program on interface {}", hook.interface_index);
}

} // namespace

bool is_attached_xdp(const PinDirectory& pins, const XdpHook& hook, int program) {
    bpf_link_info info;
    auto wanted = program_id(program);
    Fd link = link_on(pins, hook);
    return wanted && link && read_link(link.get(), info) && info.prog_id == *wanted;
}

Result<void> attach_xdp(const PinDirectory& pins, const XdpHook& hook, int program,
                        std::span<const PinDirectory> older) {
    if (Fd ours = link_on(pins, hook)) return exchange(ours.get(), hook, program);
    for (const PinDirectory& other : older)
        if (Fd theirs = link_on(other, hook)) {
            if (auto exchanged = exchange(theirs.get(), hook, program); !exchanged) return exchanged;
            return pins.pin(theirs.get(), hook.pin);
        }
    if (auto gone = pins.unpin(hook.pin); !gone) return gone; // of an interface that is no more
    bpf_link_create_opts options{};
    options.sz = sizeof options;
    options.flags = XDP_FLAGS_DRV_MODE;
    auto create = [&] {
        return Fd{::bpf_link_create(program, static_cast<int>(hook.interface_index), BPF_XDP, &options)};
    };
    Fd link = create();
    // A link whose pin was taken away goes a moment later, and holds its place until then.
    for (int tries = 0; !link && errno == EBUSY && tries < 25; ++tries) {
        std::this_thread::sleep_for(std::chrono::milliseconds{2});
        link = create();
    }
    if (!link) return Error::from_errno(errno, "attach to interface {}", hook.interface_index);
    return pins.pin(link.get(), hook.pin);
}

} // namespace tailrace
