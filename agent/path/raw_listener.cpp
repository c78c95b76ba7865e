#include "agent/path/raw_listener.hpp"

#include <cerrno>
#include <linux/filter.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace tailrace {
namespace {

constexpr std::size_t kUdpHeader = 8;
constexpr std::size_t kLargest = 65535;
// Where in the payload, and what: proto/disco.hpp, proto/geneve.hpp, proto/stun.hpp.
constexpr std::uint32_t kDiscoMagic = 0x5453f09f, kDiscoMagicRest = 0x92ac;
constexpr std::uint32_t kGeneveMask = 0xff3fffff, kGeneveDisco = 0x7a11, kGeneveWireGuard = 0x7a12;
constexpr std::uint32_t kStunCookie = 0x2112a442, kStunTypeBits = 0xc0;

sock_filter statement(int code, std::uint32_t operand) {
    return {static_cast<std::uint16_t>(code), 0, 0, operand};
}
sock_filter jump(int code, std::uint32_t operand, std::uint8_t if_true, std::uint8_t if_false) {
    return {static_cast<std::uint16_t>(code), if_true, if_false, operand};
}

/// Passes datagrams to the port that begin like disco, Geneve or STUN. X is the length of the IP header that is seen.
Result<void> attach_filter(int fd, bool v6, std::uint16_t port) {
    sock_filter program[] = {
        v6 ? statement(BPF_LDX | BPF_IMM, 0) : statement(BPF_LDX | BPF_B | BPF_MSH, 0),
        statement(BPF_LD | BPF_H | BPF_IND, 2),
        jump(BPF_JMP | BPF_JEQ | BPF_K, port, 0, 14),
        statement(BPF_LD | BPF_W | BPF_IND, kUdpHeader),
        jump(BPF_JMP | BPF_JEQ | BPF_K, kDiscoMagic, 0, 2),
        statement(BPF_LD | BPF_H | BPF_IND, kUdpHeader + 4),
        jump(BPF_JMP | BPF_JEQ | BPF_K, kDiscoMagicRest, 9, 10),
        statement(BPF_ALU | BPF_AND | BPF_K, kGeneveMask),
        jump(BPF_JMP | BPF_JEQ | BPF_K, kGeneveDisco, 1, 0),
        jump(BPF_JMP | BPF_JEQ | BPF_K, kGeneveWireGuard, 0, 2),
        statement(BPF_LD | BPF_B | BPF_IND, kUdpHeader + 7),
        jump(BPF_JMP | BPF_JEQ | BPF_K, 0, 4, 5),
        statement(BPF_LD | BPF_B | BPF_IND, kUdpHeader),
        jump(BPF_JMP | BPF_JSET | BPF_K, kStunTypeBits, 3, 0),
        statement(BPF_LD | BPF_W | BPF_IND, kUdpHeader + 4),
        jump(BPF_JMP | BPF_JEQ | BPF_K, kStunCookie, 0, 1),
        statement(BPF_RET | BPF_K, kLargest),
        statement(BPF_RET | BPF_K, 0),
    };
    sock_fprog filter{static_cast<unsigned short>(std::size(program)), program};
    if (::setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) != 0)
        return Error::from_errno(errno, "filter a raw socket");
    return {};
}

Result<Fd> open_raw(bool v6, std::uint16_t port) {
    Fd fd{::socket(v6 ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_UDP)};
    if (!fd) return Error::from_errno(errno, "open a raw socket for UDP");
    if (auto filtered = attach_filter(fd.get(), v6, port); !filtered) return filtered.error();
    std::byte before[1];
    while (::recv(fd.get(), before, sizeof before, MSG_TRUNC) >= 0) continue; // what came before the filter
    return fd;
}

} // namespace

std::optional<Datagram> parse_raw_udp(BytesView packet, bool v6, const IpAddress& from, std::uint16_t port) {
    std::size_t header = 0;
    if (!v6) {
        if (packet.empty()) return std::nullopt;
        header = (static_cast<unsigned>(packet[0]) & 15u) * 4;
        if (header < 20) return std::nullopt;
    }
    if (packet.size() < header + kUdpHeader) return std::nullopt;
    Reader in{packet.subspan(header)};
    Datagram datagram;
    datagram.from = {from, in.be16()};
    std::uint16_t to = in.be16();
    std::size_t length = in.be16();
    in.be16(); // the checksum: disco, STUN and WireGuard have better ones of their own
    if (!in.ok() || to != port || length < kUdpHeader || length > packet.size() - header) return std::nullopt;
    datagram.data = to_bytes(packet.subspan(header + kUdpHeader, length - kUdpHeader));
    return datagram;
}

Result<std::unique_ptr<RawListener>> RawListener::open(Reactor& reactor, std::uint16_t port, Received received) {
    std::unique_ptr<RawListener> listener{new RawListener(port, std::move(received))};
    auto v4 = open_raw(false, port), v6 = open_raw(true, port);
    if (!v4 && !v6) return v4.error();
    if (v4) listener->v4_ = std::make_unique<Descriptor>(reactor, std::move(*v4));
    if (v6) listener->v6_ = std::make_unique<Descriptor>(reactor, std::move(*v6));
    for (Descriptor* socket : {listener->v4_.get(), listener->v6_.get()})
        if (socket != nullptr)
            spawn(reactor, "raw listener",
                  receive(listener->alive_, listener.get(), socket, socket == listener->v6_.get()));
    return listener;
}

RawListener::~RawListener() {
    *alive_ = false;
    if (v4_) v4_->close();
    if (v6_) v6_->close();
}

Task<void> RawListener::receive(std::shared_ptr<bool> alive, RawListener* self, Descriptor* socket, bool v6) {
    Bytes buffer(kLargest);
    for (;;) {
        auto ready = co_await socket->readable();
        if (!*alive || !ready) co_return;
        sockaddr_storage from{};
        socklen_t length = sizeof from;
        ssize_t got =
            ::recvfrom(socket->fd(), buffer.data(), buffer.size(), 0, reinterpret_cast<sockaddr*>(&from), &length);
        if (got < 0) continue; // an ICMP error, or somebody else's wake-up
        IpAddress sender = Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&from)).address;
        auto datagram = parse_raw_udp(BytesView{buffer}.first(static_cast<std::size_t>(got)), v6, sender, self->port_);
        if (datagram) self->received_(*datagram);
        if (!*alive) co_return;
    }
}

} // namespace tailrace
