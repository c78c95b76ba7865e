#include "relay/net/listen.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <optional>

namespace tailrace::relay {
namespace {

constexpr int kBacklog = 4096; // a restart brings all clients at once
constexpr int kUdpBufferBytes = 1 << 20;
// Source: tailscale cmd/derper/derper.go.
constexpr int kKeepAliveSeconds = 600;
constexpr unsigned kUserTimeoutMs = 15000;

bool set(int fd, int level, int name, int value) {
    return ::setsockopt(fd, level, name, &value, sizeof value) == 0;
}

Result<Fd> bound(const Endpoint& at, int type, const char* what) {
    sockaddr_storage address{};
    unsigned size = at.to_sockaddr(address);
    Fd fd{::socket(address.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    if (!fd) return Error::from_errno(errno, "{} socket", what);
    if (type == SOCK_STREAM) set(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
    if (address.ss_family == AF_INET6) set(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, at.address.is_unspecified() ? 0 : 1);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0) return fd;
    int code = errno;
    const char* advice = code == EADDRINUSE ? "; another program has the port: stop it, or choose another port"
                         : code == EACCES   ? "; ports below 1024 need root or CAP_NET_BIND_SERVICE"
                                            : "";
    return Error::make("listen on {} {}: {}{}", what, at.text(), Error::from_errno(code, "bind").message(), advice);
}

void tune(int fd) {
    set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, kKeepAliveSeconds);
    set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(kUserTimeoutMs));
}

} // namespace

Result<Fd> listen_tcp(const Endpoint& at) {
    auto fd = bound(at, SOCK_STREAM, "TCP");
    if (fd && ::listen(fd->get(), kBacklog) != 0) return Error::from_errno(errno, "listen on TCP {}", at.text());
    return fd;
}

Result<Fd> bind_udp(const Endpoint& at) {
    auto fd = bound(at, SOCK_DGRAM, "UDP");
    if (!fd) return fd;
    set(fd->get(), SOL_SOCKET, SO_RCVBUF, kUdpBufferBytes);
    // Each datagram says which of our addresses it came to. A socket of one family refuses the other's option.
    (void)set(fd->get(), IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
    (void)set(fd->get(), IPPROTO_IP, IP_PKTINFO, 1);
    return fd;
}

Endpoint local_endpoint(int fd) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return {};
    return Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&address));
}

Result<Accepted> accept_from(int listener) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    Fd fd{::accept4(listener, reinterpret_cast<sockaddr*>(&address), &size, SOCK_NONBLOCK | SOCK_CLOEXEC)};
    if (!fd) return Error::from_errno(errno, "accept");
    tune(fd.get());
    return Accepted{std::move(fd), Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&address))};
}

Result<Fd> start_connect(const Endpoint& to) {
    sockaddr_storage address{};
    unsigned size = to.to_sockaddr(address);
    Fd fd{::socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    if (!fd) return Error::from_errno(errno, "socket");
    tune(fd.get());
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0 && errno != EINPROGRESS)
        return Error::from_errno(errno, "connect to {}", to.text());
    return fd;
}

Result<void> connect_outcome(int fd) {
    int code = 0;
    socklen_t size = sizeof code;
    if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size) != 0) code = errno;
    if (code != 0) return Error::from_errno(code, "connect");
    return {};
}

} // namespace tailrace::relay
