#include "base/io/socket.hpp"

#include "base/text.hpp"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>

namespace tailrace {
namespace {

Result<sockaddr_un> unix_address(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path)
        return Error::make("socket path {} is longer than {} bytes", path, sizeof address.sun_path - 1);
    path.copy(address.sun_path, path.size());
    return address;
}

Result<void> set_option(int fd, int level, int name, int value, const char* what) {
    if (::setsockopt(fd, level, name, &value, sizeof value) != 0) return Error::from_errno(errno, "set {}", what);
    return {};
}

// Small writes go at once, and a peer that vanished is noticed within a minute and a half. Best effort.
void tune_tcp(int fd) {
    (void)set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1, "TCP_NODELAY");
    (void)set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1, "SO_KEEPALIVE");
    (void)set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 30, "TCP_KEEPIDLE");
    (void)set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 10, "TCP_KEEPINTVL");
    (void)set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 4, "TCP_KEEPCNT");
    (void)set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 60000, "TCP_USER_TIMEOUT");
}

Endpoint local_of(int fd) {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return {};
    return Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&address));
}

// Waits for a connect() under way and says how it ended.
Task<Result<void>> finish_connect(Descriptor& descriptor) {
    auto ready = co_await descriptor.writable();
    if (!ready) co_return ready.error();
    int problem = 0;
    socklen_t length = sizeof problem;
    ::getsockopt(descriptor.fd(), SOL_SOCKET, SO_ERROR, &problem, &length);
    if (problem != 0) co_return Error::from_errno(problem, "connect");
    co_return Result<void>{};
}

} // namespace

Result<PeerCredentials> peer_credentials(int unix_socket) {
    ucred credentials{};
    socklen_t length = sizeof credentials;
    if (::getsockopt(unix_socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0)
        return Error::from_errno(errno, "ask who is at the other end of the socket");
    return PeerCredentials{credentials.pid, credentials.uid, credentials.gid};
}

Result<Listener> Listener::tcp(Reactor& reactor, const Endpoint& at) {
    int family = at.address.is_v6() ? AF_INET6 : AF_INET;
    Fd fd{::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (!fd) return Error::from_errno(errno, "create a TCP socket");
    (void)set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR");                         // best effort
    if (family == AF_INET6) (void)set_option(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 0, "IPV6_V6ONLY"); // best effort
    sockaddr_storage address{};
    socklen_t length = at.to_sockaddr(address);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 || ::listen(fd.get(), 4096) != 0)
        return Error::from_errno(errno, "listen on {}", at.text());
    return Listener{reactor, std::move(fd), ""};
}

Result<Listener> Listener::unix_socket(Reactor& reactor, const std::string& path, mode_t mode) {
    auto address = unix_address(path);
    if (!address) return address.error();
    auto* generic = reinterpret_cast<const sockaddr*>(&*address);
    Fd probe{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (::connect(probe.get(), generic, sizeof *address) == 0 || errno == EAGAIN)
        return Error::from_errno(EADDRINUSE, "listen on {}", path);
    if (errno == ECONNREFUSED) (void)::unlink(path.c_str()); // left behind by a server that died
    Fd fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (!fd) return Error::from_errno(errno, "create a Unix socket");
    if (::bind(fd.get(), generic, sizeof *address) != 0) return Error::from_errno(errno, "listen on {}", path);
    if (::chmod(path.c_str(), mode) != 0 || ::listen(fd.get(), 128) != 0)
        return Error::from_errno(errno, "listen on {}", path);
    return Listener{reactor, std::move(fd), path};
}

Listener::~Listener() {
    if (!path_.empty()) (void)::unlink(path_.c_str());
}

Task<Result<std::unique_ptr<Stream>>> Listener::accept() {
    for (;;) {
        Fd fd{::accept4(descriptor_.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)};
        if (fd) {
            if (path_.empty()) tune_tcp(fd.get());
            std::unique_ptr<Stream> stream = std::make_unique<SocketStream>(descriptor_.reactor(), std::move(fd));
            co_return stream;
        }
        int problem = errno;
        if (problem == EMFILE || problem == ENFILE || problem == ENOBUFS || problem == ENOMEM) {
            co_await descriptor_.reactor().sleep(std::chrono::milliseconds{100});
            continue;
        }
        if (problem == EINTR || problem == ECONNABORTED || problem == EPROTO) continue;
        if (problem != EAGAIN) co_return Error::from_errno(problem, "accept");
        auto ready = co_await descriptor_.readable();
        if (!ready) co_return ready.error();
    }
}

Endpoint Listener::local() const {
    return local_of(descriptor_.fd());
}

Result<Endpoint> parse_listen_address(std::string_view text) {
    std::string_view port_text = text;
    if (!text.empty() && text.front() == ':') port_text = text.substr(1);
    if (port_text.find(':') == std::string_view::npos) {
        auto port = parse_number<std::uint16_t>(port_text);
        if (!port)
            return Error::make("\"{}\" is not an address to listen on (examples: \":8080\", \"127.0.0.1:8080\")", text);
        return Endpoint{IpAddress::v6({}), *port};
    }
    auto endpoint = Endpoint::parse(text);
    if (!endpoint || !endpoint->valid())
        return Error::make("\"{}\" is not an address to listen on (examples: \":8080\", \"127.0.0.1:8080\")", text);
    return endpoint;
}

Task<Result<std::vector<IpAddress>>> resolve(Reactor& reactor, std::string host) {
    if (auto literal = IpAddress::parse(host); literal && literal->valid()) co_return std::vector<IpAddress>{*literal};
    auto look_up = [host]() -> Result<std::vector<IpAddress>> {
        addrinfo hints{};
        hints.ai_socktype = SOCK_STREAM;
        hints.ai_flags = AI_ADDRCONFIG;
        addrinfo* found = nullptr;
        int problem = ::getaddrinfo(host.c_str(), nullptr, &hints, &found);
        if (problem != 0) return Error::make("look up {}: {}", host, ::gai_strerror(problem));
        std::vector<IpAddress> out;
        for (auto* at = found; at != nullptr; at = at->ai_next) {
            auto address = Endpoint::from_sockaddr(at->ai_addr).address;
            if (address.valid() && std::find(out.begin(), out.end(), address) == out.end()) out.push_back(address);
        }
        ::freeaddrinfo(found);
        return out;
    };
    auto found = co_await reactor.worker(look_up, Reactor::Lane::Names);
    co_return found;
}

Task<Result<std::unique_ptr<Stream>>> dial_tcp(Reactor& reactor, std::string host, std::uint16_t port,
                                               DialOptions options) {
    TimePoint deadline = reactor.now() + options.timeout;
    auto addresses = co_await resolve(reactor, host);
    if (!addresses) co_return addresses.error();
    auto outcome = Error::make("{} has no address", host);
    for (std::size_t i = 0; i < addresses->size(); ++i) {
        Endpoint to{(*addresses)[i], port};
        auto left = deadline - reactor.now();
        auto share = left / static_cast<std::int64_t>(addresses->size() -
                                                      i); // a silent address must not eat the time of the next
        if (share <= Duration{0}) co_return Error::from_errno(ETIMEDOUT, "connect to {}", to.text());
        Fd fd{::socket(to.address.is_v6() ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
        if (!fd) co_return Error::from_errno(errno, "create a TCP socket");
        tune_tcp(fd.get());
        if (options.mark != 0) {
            auto marked = set_option(fd.get(), SOL_SOCKET, SO_MARK, static_cast<int>(options.mark), "SO_MARK");
            if (!marked) co_return marked.error();
        }
        sockaddr_storage address{};
        socklen_t length = to.to_sockaddr(address);
        int started = ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length);
        int problem = started == 0 ? 0 : errno;
        auto stream = std::make_unique<SocketStream>(reactor, std::move(fd));
        if (problem == EINPROGRESS) {
            Timer timer{reactor};
            bool timed_out = false;
            timer.after(share, [&] {
                timed_out = true;
                stream->close();
            });
            auto connected = co_await finish_connect(stream->descriptor());
            problem = connected ? 0 : timed_out ? ETIMEDOUT : connected.error().code();
        }
        if (problem == 0) {
            std::unique_ptr<Stream> done = std::move(stream);
            co_return done;
        }
        outcome = Error::from_errno(problem, "connect to {}", to.text());
    }
    co_return outcome;
}

Task<Result<std::unique_ptr<Stream>>> dial_unix(Reactor& reactor, std::string path) {
    auto address = unix_address(path);
    if (!address) co_return address.error();
    Fd fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (!fd) co_return Error::from_errno(errno, "create a Unix socket");
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0)
        co_return Error::from_errno(errno, "connect to {}", path);
    std::unique_ptr<Stream> stream = std::make_unique<SocketStream>(reactor, std::move(fd));
    co_return stream;
}

// ---- UDP

Result<UdpSocket> UdpSocket::bind(Reactor& reactor, const Endpoint& at, Options options) {
    bool v6 = at.address.is_v6();
    Fd fd{::socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (!fd) return Error::from_errno(errno, "create a UDP socket");
    Result<void> done;
    if (v6) done = set_option(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1, "IPV6_V6ONLY");
    if (done && options.mark != 0)
        done = set_option(fd.get(), SOL_SOCKET, SO_MARK, static_cast<int>(options.mark), "SO_MARK");
    if (done && options.reuse_address) done = set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR");
    if (done && options.original_destination)
        done = v6 ? set_option(fd.get(), IPPROTO_IPV6, IPV6_RECVORIGDSTADDR, 1, "IPV6_RECVORIGDSTADDR")
                  : set_option(fd.get(), IPPROTO_IP, IP_RECVORIGDSTADDR, 1, "IP_RECVORIGDSTADDR");
    if (done && options.transparent)
        done = v6 ? set_option(fd.get(), IPPROTO_IPV6, IPV6_TRANSPARENT, 1, "IPV6_TRANSPARENT")
                  : set_option(fd.get(), IPPROTO_IP, IP_TRANSPARENT, 1, "IP_TRANSPARENT");
    if (!done) return done.error();
    if (!options.device.empty() && ::setsockopt(fd.get(), SOL_SOCKET, SO_BINDTODEVICE, options.device.c_str(),
                                                static_cast<socklen_t>(options.device.size())) != 0)
        return Error::from_errno(errno, "bind UDP to {}", options.device);
    sockaddr_storage address{};
    socklen_t length = at.to_sockaddr(address);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0)
        return Error::from_errno(errno, "bind UDP {}", at.text());
    UdpSocket socket{reactor, std::move(fd)};
    // The next one cannot be given the same port, for this one holds it until then.
    if (at.port == 0 && options.avoid != 0 && socket.local().port == options.avoid)
        return bind(reactor, at, std::move(options));
    return socket;
}

// Not a coroutine, so that the buffer lives on the stack only while it is needed.
Result<Datagram> UdpSocket::try_receive() {
    std::byte buffer[65536];
    char control[256];
    sockaddr_storage from{};
    iovec part{buffer, sizeof buffer};
    msghdr message{};
    message.msg_name = &from;
    message.msg_namelen = sizeof from;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    ssize_t count = ::recvmsg(descriptor_.fd(), &message, 0);
    if (count < 0) return Error::from_errno(errno, "receive UDP");
    Datagram out;
    out.from = Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&from));
    for (auto* at = CMSG_FIRSTHDR(&message); at != nullptr; at = CMSG_NXTHDR(&message, at)) {
        bool v4 = at->cmsg_level == IPPROTO_IP && at->cmsg_type == IP_ORIGDSTADDR;
        bool v6 = at->cmsg_level == IPPROTO_IPV6 && at->cmsg_type == IPV6_ORIGDSTADDR;
        if (v4 || v6) out.to = Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(CMSG_DATA(at)));
    }
    out.data.assign(buffer, buffer + count);
    return out;
}

Task<Result<Datagram>> UdpSocket::receive() {
    for (;;) {
        auto datagram = try_receive();
        if (datagram) co_return datagram;
        // Errors of earlier sends (a peer's ICMP) are no reason to stop listening.
        int problem = datagram.error().code();
        const bool passing = problem == ECONNREFUSED || problem == EHOSTUNREACH || problem == ENETUNREACH;
        if (problem == EINTR || (passing && !connected_)) continue;
        if (problem != EAGAIN) co_return datagram.error();
        auto ready = co_await descriptor_.readable();
        if (!ready) co_return ready.error();
    }
}

Result<void> UdpSocket::connect(const Endpoint& to) {
    sockaddr_storage address{};
    socklen_t length = to.to_sockaddr(address);
    if (::connect(descriptor_.fd(), reinterpret_cast<const sockaddr*>(&address), length) != 0)
        return Error::from_errno(errno, "connect UDP to {}", to.text());
    connected_ = true;
    return {};
}

Result<void> UdpSocket::send_from(const IpAddress& from, const Endpoint& to, BytesView data) {
    sockaddr_storage address{};
    socklen_t length = to.to_sockaddr(address);
    iovec part{const_cast<std::byte*>(data.data()), data.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(in_pktinfo))] = {};
    msghdr message{};
    message.msg_name = &address;
    message.msg_namelen = length;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = IPPROTO_IP;
    head->cmsg_type = IP_PKTINFO;
    head->cmsg_len = CMSG_LEN(sizeof(in_pktinfo));
    in_pktinfo info{};
    info.ipi_spec_dst.s_addr = htonl(from.v4_value());
    std::memcpy(CMSG_DATA(head), &info, sizeof info);
    if (::sendmsg(descriptor_.fd(), &message, MSG_NOSIGNAL) < 0)
        return Error::from_errno(errno, "send UDP to {}", to.text());
    return {};
}

Result<void> UdpSocket::send(const Endpoint& to, BytesView data) {
    sockaddr_storage address{};
    socklen_t length = to.to_sockaddr(address);
    if (::sendto(descriptor_.fd(), data.data(), data.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&address),
                 length) < 0)
        return Error::from_errno(errno, "send UDP to {}", to.text());
    return {};
}

Endpoint UdpSocket::local() const {
    return local_of(descriptor_.fd());
}

} // namespace tailrace
