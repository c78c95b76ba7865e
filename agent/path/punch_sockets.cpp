#include "agent/path/punch_sockets.hpp"

#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace tailrace {
namespace {

constexpr std::size_t kMostBytes = 2048; // of a disco packet that we care for

Result<Fd> open_socket(const Endpoint& remote, std::uint32_t mark) {
    Fd fd{::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (!fd) return Error::from_errno(errno, "create a UDP socket");
    int on = 1;
    // Without IP_RECVERR "host unreachable" is not told.
    if (::setsockopt(fd.get(), SOL_SOCKET, SO_MARK, &mark, sizeof mark) != 0 ||
        ::setsockopt(fd.get(), IPPROTO_IP, IP_RECVERR, &on, sizeof on) != 0)
        return Error::from_errno(errno, "prepare a UDP socket");
    sockaddr_storage address{};
    socklen_t length = remote.to_sockaddr(address);
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0) // binds it too
        return Error::from_errno(errno, "connect UDP to {}", remote.text());
    return fd;
}

std::uint16_t port_of(const Fd& fd) {
    sockaddr_in address{};
    socklen_t length = sizeof address;
    if (::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &length) != 0) return 0;
    return ntohs(address.sin_port);
}

} // namespace

Result<std::unique_ptr<PunchSockets>> PunchSockets::open(Reactor& reactor, const Endpoint& remote, std::size_t count,
                                                         std::uint32_t mark) {
    Fd ready{::epoll_create1(EPOLL_CLOEXEC)};
    if (!ready) return Error::from_errno(errno, "watch many sockets");
    std::unique_ptr<PunchSockets> out{new PunchSockets(reactor, std::move(ready))};
    for (std::size_t i = 0; i < count; ++i) {
        auto fd = open_socket(remote, mark);
        if (!fd && out->sockets_.empty()) return fd.error();
        if (!fd) break; // no more descriptors
        std::uint16_t port = port_of(*fd);
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.u32 = port;
        if (port == 0 || ::epoll_ctl(out->ready_.fd(), EPOLL_CTL_ADD, fd->get(), &event) != 0) continue;
        out->sockets_.emplace(port, std::move(*fd));
    }
    return out;
}

Fd PunchSockets::hold(std::uint16_t port) {
    Fd fd{::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    if (fd && ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) fd.reset();
    return fd;
}

Result<void> PunchSockets::send(BytesView datagram) {
    for (const auto& [port, fd] : sockets_) {
        if (::send(fd.get(), datagram.data(), datagram.size(), MSG_NOSIGNAL) >= 0) continue;
        if (errno == EAGAIN || errno == ENOBUFS) continue; // lost, as datagrams are
        return Error::from_errno(errno, "send from port {}", port);
    }
    return {};
}

std::vector<PunchSockets::Arrival> PunchSockets::read_all() {
    std::vector<Arrival> out;
    epoll_event events[64];
    int count = 0;
    while ((count = ::epoll_wait(ready_.fd(), events, std::size(events), 0)) > 0) {
        for (int i = 0; i < count; ++i) {
            auto port = static_cast<std::uint16_t>(events[i].data.u32);
            auto found = sockets_.find(port);
            if (found == sockets_.end()) continue;
            Bytes buffer(kMostBytes);
            ssize_t bytes = ::recv(found->second.get(), buffer.data(), buffer.size(), 0);
            if (bytes >= 0) {
                buffer.resize(static_cast<std::size_t>(bytes));
                out.push_back({port, std::move(buffer)});
            } else if (errno != EAGAIN && errno != EINTR) {
                out.push_back({port, Error::from_errno(errno, "receive on port {}", port)});
                sockets_.erase(found);
            } else if ((events[i].events & EPOLLERR) != 0) { // an error queue that nothing else speaks of
                sockets_.erase(found);
            }
        }
    }
    return out;
}

Task<Result<std::vector<PunchSockets::Arrival>>> PunchSockets::receive() {
    for (;;) {
        auto ready = co_await ready_.readable();
        if (!ready) co_return ready.error();
        auto arrivals = read_all();
        if (!arrivals.empty()) co_return arrivals;
    }
}

Fd PunchSockets::take(std::uint16_t port) {
    auto found = sockets_.find(port);
    if (found == sockets_.end()) return {};
    Fd out = std::move(found->second);
    sockets_.erase(found);
    if (ready_.fd() >= 0) (void)::epoll_ctl(ready_.fd(), EPOLL_CTL_DEL, out.get(), nullptr); // unread from now on
    return out;
}

} // namespace tailrace
