#include "agent/path/echo.hpp"
#include "agent/path/udp_packet.hpp"
#include "base/random.hpp"

#include <cerrno>
#include <net/if.h> // first: linux/icmp.h brings a header of the kernel that gives way to it

#include <linux/icmp.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace tailrace {
namespace {

Bytes request_of(std::uint64_t number, bool v6) {
    Writer out;
    out.u8(v6 ? ICMP6_ECHO_REQUEST : ICMP_ECHO);
    out.u8(0);
    out.be16(0);
    out.be16(static_cast<std::uint16_t>(number)); // identifier
    out.be16(1);                                  // sequence
    out.be64(number);
    Bytes packet = out.take();
    if (v6) return packet; // the kernel writes the sum of ICMPv6, which covers the addresses
    std::uint16_t sum = checksum_finish(checksum_add(0, packet));
    packet[2] = static_cast<std::byte>(sum >> 8);
    packet[3] = static_cast<std::byte>(sum & 255);
    return packet;
}

bool answers(Reader in, std::uint8_t wanted_type, std::uint64_t number) {
    std::uint8_t type = in.u8(), code = in.u8();
    in.be16();
    std::uint16_t id = in.be16();
    in.be16();
    std::uint64_t data = in.be64();
    return in.ok() && type == wanted_type && code == 0 && id == static_cast<std::uint16_t>(number) && data == number;
}

/// Answers to echoes only.
bool set_filter(const Fd& fd, bool v6) {
    if (v6) {
        icmp6_filter filter{};
        ICMP6_FILTER_SETBLOCKALL(&filter);
        ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &filter);
        return ::setsockopt(fd.get(), IPPROTO_ICMPV6, ICMP6_FILTER, &filter, sizeof filter) == 0;
    }
    std::uint32_t all_but_replies = ~(1u << ICMP_ECHOREPLY);
    return ::setsockopt(fd.get(), SOL_RAW, ICMP_FILTER, &all_but_replies, sizeof all_but_replies) == 0;
}

} // namespace

bool is_echo_reply(BytesView packet, std::uint64_t number) {
    if (packet.empty()) return false;
    std::size_t header = (static_cast<unsigned>(packet[0]) & 15u) * 4;
    if (header < 20 || packet.size() < header) return false;
    return answers(Reader{packet.subspan(header)}, ICMP_ECHOREPLY, number);
}

bool is_echo_reply6(BytesView message, std::uint64_t number) {
    return answers(Reader{message}, ICMP6_ECHO_REPLY, number);
}

Task<Result<Duration>> measure_echo(Reactor& reactor, IpAddress to, std::uint32_t mark, Duration timeout) {
    const bool v6 = to.is_v6();
    Fd fd{::socket(v6 ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK,
                   v6 ? static_cast<int>(IPPROTO_ICMPV6) : static_cast<int>(IPPROTO_ICMP))};
    if (!fd) co_return Error::from_errno(errno, "open a raw socket for ICMP");
    sockaddr_storage address{};
    socklen_t length = Endpoint{to, 0}.to_sockaddr(address);
    if (!set_filter(fd, v6) || (mark != 0 && ::setsockopt(fd.get(), SOL_SOCKET, SO_MARK, &mark, sizeof mark) != 0) ||
        ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0) // hears this host only
        co_return Error::from_errno(errno, "ping {}", to.text());
    std::uint64_t number = random_u64();
    Bytes request = request_of(number, v6);
    TimePoint sent = reactor.now();
    if (::send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL) < 0)
        co_return Error::from_errno(errno, "ping {}", to.text());
    Descriptor socket{reactor, std::move(fd)};
    Timer timer{reactor};
    timer.after(timeout, [&socket] { socket.close(); });
    for (;;) {
        auto ready = co_await socket.readable();
        if (!ready) co_return Error::from_errno(ETIMEDOUT, "ping {}", to.text());
        std::byte packet[1500];
        ssize_t got = ::recv(socket.fd(), packet, sizeof packet, 0);
        if (got <= 0) continue;
        BytesView received{packet, static_cast<std::size_t>(got)};
        if (v6 ? is_echo_reply6(received, number) : is_echo_reply(received, number)) co_return reactor.now() - sent;
    }
}

} // namespace tailrace
