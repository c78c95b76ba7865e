#include "netlink/wireguard_kernel.hpp"

#include "base/random.hpp"
#include "netlink/attributes.hpp"
#include "netlink/link.hpp"

#include <linux/genetlink.h>
#include <linux/time_types.h>
#include <linux/wireguard.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace tailrace {
namespace {

constexpr std::size_t kMessageBytes = 60'000;           // the length of a nest has 16 bits
constexpr std::size_t kAllowedIpBytes = 4 + 8 + 20 + 8; // nest, family, address, mask

/// Writes peers into as many messages as it takes.
class SetWriter {
public:
    SetWriter(std::uint16_t family, const std::string& device, std::vector<NetlinkMessage>& out)
        : family_(family), device_(device), out_(out) {}

    void peer(const WireGuardPeerChange& change) {
        using Kind = WireGuardPeerChange::Kind;
        std::uint32_t flags = 0;
        if (change.kind == Kind::Remove) flags |= WGPEER_F_REMOVE_ME;
        if (change.kind == Kind::Update) flags |= WGPEER_F_UPDATE_ONLY;
        if (change.replace_allowed_ips) flags |= WGPEER_F_REPLACE_ALLOWEDIPS;

        begin_peer(change.public_key, flags);
        if (change.endpoint) {
            sockaddr_storage address{};
            const unsigned length = change.endpoint->to_sockaddr(address);
            message_->put(WGPEER_A_ENDPOINT, &address, length);
        }
        if (change.keepalive_seconds)
            message_->put_u16(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, *change.keepalive_seconds);
        if (change.clear_preshared_key) {
            const WireGuardKey none{};
            message_->put(WGPEER_A_PRESHARED_KEY, none.data(), none.size());
        }
        std::size_t list = 0;
        for (const auto& prefix : change.add_allowed_ips) {
            if (message_->size_bytes() + kAllowedIpBytes > kMessageBytes) { // goes on in the next message
                if (list != 0) message_->end_nest(list);
                list = 0;
                end_peer();
                end_message();
                begin_peer(change.public_key, WGPEER_F_UPDATE_ONLY);
            }
            if (list == 0) list = message_->begin_nest(WGPEER_A_ALLOWEDIPS);
            auto entry = message_->begin_nest(0);
            message_->put_u16(WGALLOWEDIP_A_FAMILY, prefix.address().is_v4() ? AF_INET : AF_INET6);
            message_->put_address(WGALLOWEDIP_A_IPADDR, prefix.address());
            message_->put_u8(WGALLOWEDIP_A_CIDR_MASK, static_cast<std::uint8_t>(prefix.bits()));
            message_->end_nest(entry);
        }
        if (list != 0) message_->end_nest(list);
        end_peer();
    }

    void finish() {
        if (message_) end_message();
    }

    NetlinkMessage begin_message() const {
        NetlinkMessage message{family_, 0};
        message.header(genlmsghdr{.cmd = WG_CMD_SET_DEVICE, .version = WG_GENL_VERSION, .reserved = 0});
        message.put_text(WGDEVICE_A_IFNAME, device_);
        return message;
    }

private:
    void begin_peer(const WireGuardKey& key, std::uint32_t flags) {
        if (message_ && message_->size_bytes() + 256 > kMessageBytes) end_message();
        if (!message_) {
            message_ = begin_message();
            peers_ = message_->begin_nest(WGDEVICE_A_PEERS);
        }
        peer_ = message_->begin_nest(0);
        message_->put(WGPEER_A_PUBLIC_KEY, key.data(), key.size());
        if (flags != 0) message_->put_u32(WGPEER_A_FLAGS, flags);
    }
    void end_peer() { message_->end_nest(peer_); }
    void end_message() {
        message_->end_nest(peers_);
        out_.push_back(std::move(*message_));
        message_.reset();
    }

    std::uint16_t family_;
    const std::string& device_;
    std::vector<NetlinkMessage>& out_;
    std::optional<NetlinkMessage> message_;
    std::size_t peers_ = 0;
    std::size_t peer_ = 0;
};

WireGuardKey key_from(BytesView bytes) {
    WireGuardKey key{};
    if (bytes.size() == key.size()) std::copy(bytes.begin(), bytes.end(), key.begin());
    return key;
}

void read_allowed_ips(const nlattr* list, std::vector<IpPrefix>& allowed_ips) {
    for_each_attribute(payload_of(list), [&](const nlattr* entry) {
        auto attributes = Attributes::of_nest(entry);
        auto address = attributes.address(WGALLOWEDIP_A_IPADDR);
        if (address.valid())
            allowed_ips.emplace_back(address, attributes.value<std::uint8_t>(WGALLOWEDIP_A_CIDR_MASK).value_or(0));
    });
}

WireGuardPeerState read_peer(const Attributes& attributes) {
    WireGuardPeerState peer;
    peer.public_key = key_from(attributes.bytes(WGPEER_A_PUBLIC_KEY));
    sockaddr_storage address{};
    auto endpoint = attributes.bytes(WGPEER_A_ENDPOINT);
    if (!endpoint.empty() && endpoint.size() <= sizeof address) {
        std::memcpy(&address, endpoint.data(), endpoint.size());
        auto parsed = Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&address));
        if (parsed.valid()) peer.endpoint = parsed;
    }
    peer.keepalive_seconds = attributes.value<std::uint16_t>(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL).value_or(0);
    peer.has_preshared_key = key_from(attributes.bytes(WGPEER_A_PRESHARED_KEY)) != WireGuardKey{};
    peer.rx_bytes = attributes.value<std::uint64_t>(WGPEER_A_RX_BYTES).value_or(0);
    peer.tx_bytes = attributes.value<std::uint64_t>(WGPEER_A_TX_BYTES).value_or(0);
    auto handshake = attributes.value<__kernel_timespec>(WGPEER_A_LAST_HANDSHAKE_TIME);
    if (handshake && (handshake->tv_sec != 0 || handshake->tv_nsec != 0))
        peer.last_handshake = WallTime::from_unix(handshake->tv_sec, static_cast<std::int32_t>(handshake->tv_nsec));
    return peer;
}

} // namespace

std::vector<NetlinkMessage> kernel_set_messages(std::uint16_t family, const std::string& device,
                                                const WireGuardChanges& changes) {
    std::vector<NetlinkMessage> messages;
    SetWriter writer{family, device, messages};
    if (changes.private_key || changes.listen_port || changes.fwmark) {
        auto message = writer.begin_message();
        if (changes.private_key)
            message.put(WGDEVICE_A_PRIVATE_KEY, changes.private_key->view().data(), Secret<32>::kSize);
        if (changes.listen_port) message.put_u16(WGDEVICE_A_LISTEN_PORT, *changes.listen_port);
        if (changes.fwmark) message.put_u32(WGDEVICE_A_FWMARK, *changes.fwmark);
        messages.push_back(std::move(message));
    }
    for (const auto& peer : changes.peers) writer.peer(peer);
    if (!changes.orphaned_allowed_ips.empty()) {
        WireGuardPeerChange nobody;
        nobody.kind = WireGuardPeerChange::Kind::Add;
        nobody.public_key = random_array<32>();
        nobody.add_allowed_ips = changes.orphaned_allowed_ips;
        writer.peer(nobody);
        writer.peer({.kind = WireGuardPeerChange::Kind::Remove, .public_key = nobody.public_key});
    }
    writer.finish();
    return messages;
}

Result<void> read_kernel_device(const nlmsghdr& message, WireGuardState& state) {
    auto device = Attributes::of_message(message, sizeof(genlmsghdr));
    // Every message of the dump has the list of peers, only the first has the rest.
    if (device.has(WGDEVICE_A_LISTEN_PORT)) {
        auto key = device.bytes(WGDEVICE_A_PRIVATE_KEY);
        if (key.size() == Secret<32>::kSize)
            std::copy(key.begin(), key.end(), state.private_key.mutable_view().begin());
        state.listen_port = device.value<std::uint16_t>(WGDEVICE_A_LISTEN_PORT).value_or(0);
        state.fwmark = device.u32(WGDEVICE_A_FWMARK);
    }
    for_each_attribute(device.bytes(WGDEVICE_A_PEERS), [&](const nlattr* entry) {
        auto attributes = Attributes::of_nest(entry);
        auto key = key_from(attributes.bytes(WGPEER_A_PUBLIC_KEY));
        if (state.peers.empty() || state.peers.back().public_key != key) state.peers.push_back(read_peer(attributes));
        read_allowed_ips(attributes.get(WGPEER_A_ALLOWEDIPS), state.peers.back().allowed_ips);
    });
    return {};
}

Result<std::uint16_t> KernelWireGuard::family(NetlinkSocket& socket) {
    NetlinkMessage ask{GENL_ID_CTRL, 0};
    ask.header(genlmsghdr{.cmd = CTRL_CMD_GETFAMILY, .version = 1, .reserved = 0});
    ask.put_text(CTRL_ATTR_FAMILY_NAME, WG_GENL_NAME);
    std::uint16_t family = 0;
    auto asked = socket.query(ask, [&](const nlmsghdr& message) -> Result<void> {
        family =
            Attributes::of_message(message, sizeof(genlmsghdr)).value<std::uint16_t>(CTRL_ATTR_FAMILY_ID).value_or(0);
        return {};
    });
    if (!asked) return asked.error().with("find the WireGuard module");
    if (family == 0) return Error::from_errno(ENOENT, "find the WireGuard module");
    return family;
}

Result<std::unique_ptr<WireGuardDevice>> KernelWireGuard::open(const std::string& name) {
    auto socket = NetlinkSocket::open(NETLINK_GENERIC);
    if (!socket) return socket.error();
    auto number = family(*socket);
    if (!number) return number.error();
    return std::unique_ptr<WireGuardDevice>{new KernelWireGuard{name, std::move(*socket), *number}};
}

Result<WireGuardState> KernelWireGuard::read() {
    for (int attempt = 0;; ++attempt) {
        NetlinkMessage ask{family_, NLM_F_DUMP};
        ask.header(genlmsghdr{.cmd = WG_CMD_GET_DEVICE, .version = WG_GENL_VERSION, .reserved = 0});
        ask.put_text(WGDEVICE_A_IFNAME, name_);
        WireGuardState state;
        auto asked = socket_.query(ask, [&](const nlmsghdr& message) { return read_kernel_device(message, state); });
        socket_.wipe(); // the private key was in there
        if (asked) {
            for (auto& peer : state.peers) std::sort(peer.allowed_ips.begin(), peer.allowed_ips.end());
            return state;
        }
        // The list of peers changed meanwhile.
        if (asked.error().code() != EINTR || attempt == 10)
            return asked.error().with("read WireGuard device {}", name_);
    }
}

Result<void> KernelWireGuard::apply(const WireGuardChanges& changes) {
    auto messages = kernel_set_messages(family_, name_, changes);
    // One after the other, and none after one that failed: what comes later may rely on it.
    for (auto& message : messages) {
        auto done = socket_.request(message);
        message.wipe();
        if (!done) return done.error().with("change WireGuard device {}", name_);
    }
    return {};
}

Result<void> KernelWireGuard::remove() {
    auto links = Links::open();
    if (!links) return links.error();
    return links->remove(name_);
}

} // namespace tailrace
