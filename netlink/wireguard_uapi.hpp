// A userspace WireGuard behind its configuration socket. Protocol: wireguard.com/xplatform, "Cross-platform userspace
// implementation".
#pragma once
#include "base/fd.hpp"
#include "netlink/wireguard.hpp"

namespace tailrace {

/// The text of a `set=1` operation that carries out `changes`, with its empty last line.
std::string uapi_set_text(const WireGuardChanges& changes);
/// Reads the answer of `get=1`, from its first line to "errno=0".
Result<WireGuardState> parse_uapi_state(std::string_view text);

class UapiWireGuard final : public WireGuardDevice {
public:
    /// Where wireguard-go puts its sockets; it cannot be told otherwise. The directory belongs to the mount namespace,
    /// not to the network namespace: hosts simulated by network namespaces need one each, or devices of different
    /// names.
    static constexpr const char* kSocketDirectory = "/var/run/wireguard";

    /// For a device that exists: its socket answers. ENOENT or ECONNREFUSED when nobody is there.
    static Result<std::unique_ptr<WireGuardDevice>> open(const std::string& name);
    /// Starts wireguard-go for a new device and waits until its socket answers. It runs in a session of its own and,
    /// under systemd, in a unit of its own, so that it outlives us.
    static Result<void> start(const std::string& name);
    /// Why start() could not work on this machine; empty when it could.
    static std::string obstacle();

    const std::string& name() const override { return name_; }
    WireGuardKind kind() const override { return WireGuardKind::Uapi; }
    Result<WireGuardState> read() override;
    Result<void> apply(const WireGuardChanges& changes) override;
    Result<void> remove() override;

private:
    explicit UapiWireGuard(std::string name) : name_(std::move(name)) {}
    static std::string socket_path(const std::string& name);
    static Result<Fd> connect(const std::string& name);
    /// One operation on a connection of its own; returns the answer up to the empty line.
    Result<std::string> talk(std::string_view request);

    std::string name_;
};

} // namespace tailrace
