#include "netlink/wireguard.hpp"

#include "netlink/link.hpp"
#include "netlink/wireguard_kernel.hpp"
#include "netlink/wireguard_uapi.hpp"

#include <cerrno>
#include <linux/netlink.h>

namespace tailrace {

std::string_view text(WireGuardKind kind) {
    return kind == WireGuardKind::Kernel ? "kernel" : "uapi";
}

Result<WireGuardChoice> parse_wireguard_choice(std::string_view text) {
    if (text == "auto") return WireGuardChoice::Auto;
    if (text == "kernel") return WireGuardChoice::Kernel;
    if (text == "uapi") return WireGuardChoice::Uapi;
    return Error::make("\"{}\" is none of auto, kernel, uapi", text);
}

Result<WireGuardChanges> WireGuardDevice::reconcile(const WireGuardConfig& wanted) {
    auto before = read();
    if (!before) return before.error();
    auto changes = diff(*before, wanted);
    if (changes.empty()) return changes;
    if (auto applied = apply(changes); !applied) return applied.error();
    auto after = read();
    if (!after) return after.error();
    auto left = diff(*after, wanted);
    // A peer may roam between two looks at it: its endpoint is not ours alone.
    for (auto& peer : left.peers) peer.endpoint.reset();
    std::erase_if(left.peers, [](const WireGuardPeerChange& peer) {
        return peer.kind == WireGuardPeerChange::Kind::Update && !peer.keepalive_seconds && !peer.clear_preshared_key &&
               peer.add_allowed_ips.empty();
    });
    if (!left.empty())
        return Error::make("WireGuard device {} does not take what it was told ({} peers differ)", name(),
                           left.peers.size());
    return changes;
}

WireGuardSupport probe_wireguard() {
    WireGuardSupport support;
    if (auto socket = NetlinkSocket::open(NETLINK_GENERIC); !socket) {
        support.kernel_reason = socket.error().message();
    } else if (auto family = KernelWireGuard::family(*socket); !family) {
        support.kernel_reason =
            family.error().code() == ENOENT ? "the kernel has no WireGuard module" : family.error().message();
    } else {
        support.kernel = true;
    }
    support.uapi_reason = UapiWireGuard::obstacle();
    support.uapi = support.uapi_reason.empty();
    return support;
}

Result<std::unique_ptr<WireGuardDevice>> find_wireguard(const std::string& name) {
    auto links = Links::open();
    if (!links) return links.error();
    auto link = links->find(name);
    if (!link) return link.error();
    if (!*link) return std::unique_ptr<WireGuardDevice>{};
    if ((*link)->kind == "wireguard") return KernelWireGuard::open(name);
    if ((*link)->kind != "tun")
        return Error::make("{} exists and is no WireGuard device{}{}", name, (*link)->kind.empty() ? "" : " but a ",
                           (*link)->kind);
    auto device = UapiWireGuard::open(name);
    if (!device) return device.error().with("{} is a tun device, but no userspace WireGuard answers for it", name);
    return device;
}

Result<OpenedWireGuard> open_wireguard(const std::string& name, WireGuardChoice choice) {
    auto existing = find_wireguard(name);
    if (!existing) return existing.error();
    if (*existing) {
        const auto kind = (*existing)->kind();
        if ((choice == WireGuardChoice::Kernel && kind != WireGuardKind::Kernel) ||
            (choice == WireGuardChoice::Uapi && kind != WireGuardKind::Uapi))
            return Error::make(
                "{} exists already, as a device of the other kind ({}): take it down first, or choose auto", name,
                text(kind));
        return OpenedWireGuard{std::move(*existing), OpenedWireGuard::How::Adopted};
    }

    const auto support = probe_wireguard();
    if (choice == WireGuardChoice::Kernel && !support.kernel)
        return Error::make("create {}: {}", name, support.kernel_reason);
    if (choice == WireGuardChoice::Uapi && !support.uapi)
        return Error::make("create {}: {}", name, support.uapi_reason);
    if (!support.kernel && !support.uapi)
        return Error::make("create {}: {}, and for a userspace one: {}", name, support.kernel_reason,
                           support.uapi_reason);

    if (support.kernel && choice != WireGuardChoice::Uapi) {
        auto links = Links::open();
        if (!links) return links.error();
        if (auto made = links->create(name, "wireguard"); !made) return made.error();
        auto device = KernelWireGuard::open(name);
        if (!device) return device.error();
        return OpenedWireGuard{std::move(*device), OpenedWireGuard::How::Created};
    }
    if (auto started = UapiWireGuard::start(name); !started) return started.error();
    auto device = UapiWireGuard::open(name);
    if (!device) return device.error();
    return OpenedWireGuard{std::move(*device), OpenedWireGuard::How::Created};
}

} // namespace tailrace
