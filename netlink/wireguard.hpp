// The WireGuard device: one interface, two implementations with one meaning.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/net.hpp"
#include "base/result.hpp"
#include "base/secret.hpp"
#include "base/time.hpp"

namespace tailrace {

using WireGuardKey = std::array<std::byte, 32>; ///< a public key, as on the wire

/// A peer as we want it.
struct WireGuardPeer {
    WireGuardKey public_key{};
    std::optional<Endpoint> endpoint; ///< empty: leave it where the peer roamed to
    std::vector<IpPrefix> allowed_ips;
    std::uint16_t keepalive_seconds = 0; ///< 0: off
};

/// The device as we want it. Peers that are not named here do not stay.
struct WireGuardConfig {
    Secret<32> private_key;        ///< all zero: leave the one that is there
    std::uint16_t listen_port = 0; ///< 0: the kernel picks one, and keeps it for as long as nothing else is asked
    std::uint32_t fwmark = 0;      ///< mark of the encrypted packets; 0: none
    std::vector<WireGuardPeer> peers;
};

/// A peer as it is.
struct WireGuardPeerState {
    WireGuardKey public_key{};
    std::optional<Endpoint> endpoint;
    std::vector<IpPrefix> allowed_ips; ///< canonical: masked, sorted
    std::uint16_t keepalive_seconds = 0;
    bool has_preshared_key = false;
    std::uint64_t rx_bytes = 0;
    std::uint64_t tx_bytes = 0;
    std::optional<WallTime> last_handshake;
};

/// The device as it is.
struct WireGuardState {
    Secret<32> private_key; ///< all zero: none set
    std::uint16_t listen_port = 0;
    std::uint32_t fwmark = 0;
    std::vector<WireGuardPeerState> peers;
};

/// What happens to one peer. Whatever is empty stays as it is, its session above all.
struct WireGuardPeerChange {
    enum class Kind {
        Add,    ///< make it if it is missing
        Update, ///< touch it only if it is there
        Remove,
    };
    Kind kind = Kind::Update;
    WireGuardKey public_key{};
    std::optional<Endpoint> endpoint;
    std::optional<std::uint16_t> keepalive_seconds;
    bool replace_allowed_ips =
        false; ///< take all it has first; packets are lost in between, so `diff` never asks for it
    std::vector<IpPrefix> add_allowed_ips; ///< they leave the peer that had them
    bool clear_preshared_key = false;
};

/// A step from one state of the device to another; carried out in this order.
struct WireGuardChanges {
    std::optional<Secret<32>> private_key;
    std::optional<std::uint16_t> listen_port;
    std::optional<std::uint32_t> fwmark;
    std::vector<WireGuardPeerChange> peers;
    /// Allowed IPs that nobody shall have any more although their peer stays. Both devices carry this out by giving
    /// them to a peer with a random key that is made and removed within the same request: neither kernels before 6.16
    /// nor Debian's wireguard-go can take a single allowed IP away, and replacing a peer's whole list loses packets.
    std::vector<IpPrefix> orphaned_allowed_ips;

    bool empty() const;
};

/// The least that leads from `current` to `wanted`. Sessions survive: a peer that is right does not appear. An allowed
/// IP that two wanted peers name belongs to the first of them, so that the answer does not depend on what is there.
/// Afterwards `diff(new state, wanted)` is empty.
WireGuardChanges diff(const WireGuardState& current, const WireGuardConfig& wanted);

enum class WireGuardKind {
    Kernel, ///< the module, over generic netlink
    Uapi,   ///< a userspace implementation behind /var/run/wireguard/NAME.sock
};
std::string_view text(WireGuardKind kind);

/// A WireGuard device that exists. Both implementations mean the same by every call:
///  - the device outlives this object, and the process; only remove() ends it;
///  - read() is the truth, including what peers did (roaming, handshakes, bytes);
///  - apply() is not a transaction (the kernel's SET is not): when it fails, some of it may have happened. Every
///    change can be repeated: read again, diff again, apply again;
///  - unknown peers in an Update or Remove are ignored; a peer with our own public key is ignored.
/// Link state, MTU and addresses are not WireGuard's: see link.hpp and router.hpp.
class WireGuardDevice {
public:
    virtual ~WireGuardDevice() = default;

    virtual const std::string& name() const = 0;
    virtual WireGuardKind kind() const = 0;
    virtual Result<WireGuardState> read() = 0;
    virtual Result<void> apply(const WireGuardChanges& changes) = 0;
    virtual Result<void> remove() = 0;

    /// read, diff, apply, read again; an error when the device still differs. Returns what was done, empty when nothing
    /// had to be.
    Result<WireGuardChanges> reconcile(const WireGuardConfig& wanted);
};

/// What this machine can do, and why not. Leaves nothing behind.
struct WireGuardSupport {
    bool kernel = false;
    std::string kernel_reason; ///< one sentence, when not
    bool uapi = false;
    std::string uapi_reason;
};
WireGuardSupport probe_wireguard();

enum class WireGuardChoice { Auto, Kernel, Uapi };
Result<WireGuardChoice> parse_wireguard_choice(std::string_view text); ///< "auto", "kernel", "uapi"

struct OpenedWireGuard {
    std::unique_ptr<WireGuardDevice> device;
    enum class How { Adopted, Created } how = How::Created;
};

/// The device called `name`: adopted when it is there (of whichever kind it is, if `choice` allows that kind), made
/// when not. Auto prefers the kernel. A link of that name that is no WireGuard device is an error, never replaced.
Result<OpenedWireGuard> open_wireguard(const std::string& name, WireGuardChoice choice);

/// The same without making one: empty when there is no such device.
Result<std::unique_ptr<WireGuardDevice>> find_wireguard(const std::string& name);

} // namespace tailrace
