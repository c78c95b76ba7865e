// The WireGuard module of the kernel, over generic netlink.
#pragma once
#include "netlink/socket.hpp"
#include "netlink/wireguard.hpp"

#include <functional>

namespace tailrace {

/// The messages that carry out `changes`, in order. Pure; a large set of peers takes several messages, and so does a
/// peer with very many allowed IPs. `family` is the generic netlink family's number.
std::vector<NetlinkMessage> kernel_set_messages(std::uint16_t family, const std::string& device,
                                                const WireGuardChanges& changes);

/// Adds what one message of the kernel's dump says. A peer may continue from the message before.
Result<void> read_kernel_device(const nlmsghdr& message, WireGuardState& state);

class KernelWireGuard final : public WireGuardDevice {
public:
    /// The family's number, by which the kernel also loads the module where there is one. ENOENT: there is no module.
    static Result<std::uint16_t> family(NetlinkSocket& socket);
    /// For a link of kind "wireguard" that exists.
    static Result<std::unique_ptr<WireGuardDevice>> open(const std::string& name);

    const std::string& name() const override { return name_; }
    WireGuardKind kind() const override { return WireGuardKind::Kernel; }
    Result<WireGuardState> read() override;
    Result<void> apply(const WireGuardChanges& changes) override;
    Result<void> remove() override;

private:
    KernelWireGuard(std::string name, NetlinkSocket socket, std::uint16_t family)
        : name_(std::move(name)), socket_(std::move(socket)), family_(family) {}

    std::string name_;
    NetlinkSocket socket_;
    std::uint16_t family_;
};

} // namespace tailrace
