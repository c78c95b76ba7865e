#include "agent/path/raw_sender.hpp"

#include <cerrno>
#include <netinet/in.h>
#include <sys/socket.h>

namespace tailrace {
namespace {

constexpr std::size_t kMostRemembered = 4096;

Result<Fd> open_raw(int family, std::uint32_t mark) {
    Fd fd{::socket(family, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_RAW)}; // sends only, headers are ours
    if (!fd) return Error::from_errno(errno, "open a raw socket");
    if (::setsockopt(fd.get(), SOL_SOCKET, SO_MARK, &mark, sizeof mark) != 0)
        return Error::from_errno(errno, "SO_MARK on a raw socket");
    return fd;
}

} // namespace

Result<RawSender> RawSender::open(std::uint16_t port, std::uint32_t mark) {
    auto lookup = RouteLookup::open();
    if (!lookup) return lookup.error();
    RawSender sender{port, mark, std::move(*lookup)};
    auto v4 = open_raw(AF_INET, mark);
    if (v4) sender.v4_ = std::move(*v4);
    auto v6 = open_raw(AF_INET6, mark);
    if (v6) sender.v6_ = std::move(*v6);
    if (!v4 && !v6) return v4.error();
    return sender;
}

Result<IpAddress> RawSender::source_towards(const IpAddress& to) {
    auto known = sources_.find(to);
    if (known == sources_.end()) {
        auto route = lookup_.find(to, mark_);
        if (!route) return route.error();
        if (!route->source) return Error::from_errno(ENETUNREACH, "reach {}", to.text());
        if (sources_.size() >= kMostRemembered) sources_.clear();
        known = sources_.emplace(to, *route->source).first;
    }
    return known->second;
}

Result<void> RawSender::write(const Endpoint& from, const Endpoint& to, BytesView payload, Fragments fragments) {
    bool is_v6 = to.address.is_v6();
    const Fd& fd = is_v6 ? v6_ : v4_;
    if (!fd) return Error::from_errno(EAFNOSUPPORT, "send to {}", to.text());
    Bytes packet = build_udp_packet(from, to, payload, fragments);
    sockaddr_storage address{};
    Endpoint target = to;
    if (is_v6) target.port = 0; // raw IPv6 sockets want none
    socklen_t length = target.to_sockaddr(address);
    if (::sendto(fd.get(), packet.data(), packet.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&address),
                 length) < 0)
        return Error::from_errno(errno, "send to {}", to.text());
    return {};
}

Result<void> RawSender::send(const Endpoint& to, BytesView payload, Fragments fragments) {
    auto source = source_towards(to.address);
    if (!source) return source.error();
    auto sent = write({*source, port_}, to, payload, fragments);
    if (!sent) sources_.erase(to.address);
    return sent;
}

Result<void> RawSender::inject(const Endpoint& from, BytesView payload) {
    auto own = source_towards(from.address);
    if (!own) return own.error();
    return write(from, {*own, port_}, payload, Fragments::IfNeedBe);
}

} // namespace tailrace
