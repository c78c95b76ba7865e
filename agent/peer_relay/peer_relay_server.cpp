#include "agent/peer_relay/peer_relay_server.hpp"

#include "base/log.hpp"

#include <algorithm>
#include <cerrno>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

namespace tailrace {
namespace {

constexpr int kReadsInARow = 64; // then others of this thread have their turn
constexpr std::size_t kLargest = 65535;
constexpr int kBufferBytes = 4 << 20;     // of the sockets: a relay's peaks come from many clients at once
constexpr std::size_t kMostSegments = 64; // of one send. Source: Linux include/linux/udp.h, UDP_MAX_SEGMENTS
constexpr std::size_t kMostSeen = 16;

/// What the kernel tells beside a datagram, or we tell it.
union Control {
    cmsghdr align;
    std::byte room[128];
};

Result<void> set_options(const UdpSocket& socket, bool v6) {
    int one = 1, buffer = kBufferBytes;
    bool done = v6 ? ::setsockopt(socket.fd(), IPPROTO_IPV6, IPV6_RECVPKTINFO, &one, sizeof one) == 0
                   : ::setsockopt(socket.fd(), IPPROTO_IP, IP_PKTINFO, &one, sizeof one) == 0;
    if (!done) return Error::from_errno(errno, "ask for the addresses of datagrams");
    (void)::setsockopt(socket.fd(), SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer);
    (void)::setsockopt(socket.fd(), SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer);
    (void)::setsockopt(socket.fd(), SOL_UDP, UDP_GRO, &one, sizeof one); // else one by one
    return {};
}

/// Appends a control message.
template <typename T>
void tell(msghdr& message, int level, int type, const T& value) {
    auto* at = reinterpret_cast<cmsghdr*>(static_cast<std::byte*>(message.msg_control) + message.msg_controllen);
    at->cmsg_level = level;
    at->cmsg_type = type;
    at->cmsg_len = CMSG_LEN(sizeof value);
    std::copy_n(reinterpret_cast<const unsigned char*>(&value), sizeof value, CMSG_DATA(at));
    message.msg_controllen += CMSG_SPACE(sizeof value);
}

template <typename T>
T told(const cmsghdr* at) {
    T value{};
    std::copy_n(CMSG_DATA(at), sizeof value, reinterpret_cast<unsigned char*>(&value));
    return value;
}

IpAddress address_of(const in6_addr& address) {
    return IpAddress::from_bytes(std::as_bytes(std::span{address.s6_addr}));
}

} // namespace

Result<std::unique_ptr<PeerRelayServer>> PeerRelayServer::open(Reactor& reactor, std::uint16_t port, std::uint32_t mark,
                                                               std::uint16_t avoid, StunServers stun_servers) {
    std::unique_ptr<PeerRelayServer> server{new PeerRelayServer(reactor)};
    UdpSocket::Options options;
    options.mark = mark;
    options.avoid = avoid;
    auto v4 = UdpSocket::bind(reactor, {IpAddress::v4(0), port}, options);
    if (!v4 && v4.error().code() != EAFNOSUPPORT) return v4.error();
    if (v4) {
        if (auto set = set_options(*v4, false); !set) return set.error();
        if (port == 0) port = v4->local().port;
        server->v4_.emplace(std::move(*v4));
    }
    auto v6 = UdpSocket::bind(reactor, {IpAddress::v6({}), port}, options);
    if (!v6 && (!server->v4_ || v6.error().code() == EADDRINUSE)) return v6.error();
    if (v6) {
        if (auto set = set_options(*v6, true); !set) return set.error();
        server->v6_.emplace(std::move(*v6));
    }
    for (auto* socket : {&server->v4_, &server->v6_})
        if (*socket) spawn(reactor, "peer relay", receive(server->alive_, server.get(), &**socket));
    spawn(reactor, "where the peer relay is seen", keep_looking(server->alive_, server.get(), std::move(stun_servers)));
    server->tidy();
    return server;
}

PeerRelayServer::~PeerRelayServer() {
    *alive_ = false;
    if (v4_) v4_->close();
    if (v6_) v6_->close();
}

void PeerRelayServer::tidy() {
    sessions_.expire(reactor_.now());
    tidy_.after(RelaySessions::kBindLifetime, [this] { tidy(); });
}

void PeerRelayServer::set_addresses(std::vector<IpAddress> local, std::vector<Endpoint> named) {
    local_ = std::move(local);
    named_ = std::move(named);
}

Task<void> PeerRelayServer::keep_looking(std::shared_ptr<bool> alive, PeerRelayServer* self, StunServers servers) {
    while (*alive) {
        auto found = co_await servers();
        if (!*alive) co_return;
        self->look(found);
        co_await self->reactor_.sleep(kLookEvery);
    }
}

void PeerRelayServer::look(const std::vector<Endpoint>& stun_servers) {
    if (!seen_now_.empty()) seen_ = std::exchange(seen_now_, {}); // what was seen stays while nobody answers
    asked_.clear();
    for (const Endpoint& server : stun_servers) {
        auto& socket = server.address.is_v6() ? v6_ : v4_;
        if (!socket) continue;
        auto id = random_array<12>();
        if (socket->send(server, stun::write_request(id))) asked_.insert(id);
    }
}

void PeerRelayServer::on_stun(BytesView datagram) {
    auto answer = stun::parse_response(datagram);
    if (answer && asked_.erase(answer->id) != 0 && seen_now_.size() < kMostSeen) seen_now_.insert(answer->seen_from);
}

std::vector<Endpoint> PeerRelayServer::addresses() const {
    std::vector<Endpoint> out = named_;
    auto add = [&out](const Endpoint& endpoint) {
        if (endpoint.port != 0 && std::ranges::find(out, endpoint) == out.end()) out.push_back(endpoint);
    };
    for (const IpAddress& address : local_) add({address, address.is_v6() ? port6() : port4()});
    for (const auto* seen : {&seen_now_, &seen_}) std::ranges::for_each(*seen, add);
    return out;
}

std::optional<DiscoAllocateResponse> PeerRelayServer::allocate(const DiscoAllocateRequest& request,
                                                               const DiscoKey& asking) {
    auto known = addresses();
    if (known.empty()) return std::nullopt; // it asks again
    auto endpoint = sessions_.allocate(reactor_.now(), request, asking);
    if (!endpoint) return std::nullopt;
    endpoint->addresses = std::move(known);
    log::debug("a pair of peers may use our relay", {{"vni", endpoint->vni}});
    return DiscoAllocateResponse{request.generation, std::move(*endpoint)};
}

Task<void> PeerRelayServer::receive(std::shared_ptr<bool> alive, PeerRelayServer* self, UdpSocket* socket) {
    Bytes buffer(kLargest);
    for (;;) {
        auto ready = co_await socket->readable();
        if (!*alive || !ready) co_return;
        for (int i = 0; i < kReadsInARow && self->take(*socket, buffer); ++i) continue;
    }
}

/// False when there is nothing left.
bool PeerRelayServer::take(const UdpSocket& socket, Bytes& buffer) {
    sockaddr_storage sender{};
    Control control{};
    iovec part{buffer.data(), buffer.size()};
    msghdr message{};
    message.msg_name = &sender;
    message.msg_namelen = sizeof sender;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.room;
    message.msg_controllen = sizeof control.room;
    ssize_t got = ::recvmsg(socket.fd(), &message, 0);
    if (got < 0) return errno != EAGAIN && errno != EBADF; // an ICMP error of an earlier datagram
    if (got == 0) return true;
    BytesView data = BytesView{buffer}.first(static_cast<std::size_t>(got));
    RelayedPlace from;
    from.client = Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&sender));
    std::size_t each = data.size();
    for (auto* at = CMSG_FIRSTHDR(&message); at != nullptr; at = CMSG_NXTHDR(&message, at)) {
        if (at->cmsg_level == IPPROTO_IP && at->cmsg_type == IP_PKTINFO)
            from.ours = IpAddress::v4(ntohl(told<in_pktinfo>(at).ipi_spec_dst.s_addr));
        else if (at->cmsg_level == IPPROTO_IPV6 && at->cmsg_type == IPV6_PKTINFO)
            from.ours = address_of(told<in6_pktinfo>(at).ipi6_addr);
        else if (at->cmsg_level == SOL_UDP && at->cmsg_type == UDP_GRO)
            each = static_cast<std::size_t>(std::max(1, told<int>(at)));
    }
    on_datagrams(data, each, from);
    return true;
}

void PeerRelayServer::on_datagrams(BytesView data, std::size_t each, const RelayedPlace& from) {
    while (!data.empty()) {
        BytesView first = data.first(std::min(each, data.size()));
        if (stun::looks_like_stun(first)) {
            on_stun(first);
            data = data.subspan(first.size());
            continue;
        }
        auto packet = parse_geneve(first);
        if (!packet || packet->control) {
            if (packet && packet->protocol == GenevePacket::Protocol::Disco) {
                Bytes answer = sessions_.on_control(reactor_.now(), packet->vni, packet->payload, from);
                if (!answer.empty()) {
                    Bytes whole = write_geneve({GenevePacket::Protocol::Disco, true, packet->vni, answer});
                    send(whole, whole.size(), from);
                }
            }
            data = data.subspan(first.size());
            continue;
        }
        // The kernel hands over many of one size at once; those of one session go on as they came.
        std::size_t bytes = first.size(), packets = 1;
        while (bytes < data.size() && packets < kMostSegments) {
            auto next = parse_geneve(data.subspan(bytes, std::min(each, data.size() - bytes)));
            if (!next || next->control || next->vni != packet->vni) break;
            bytes += std::min(each, data.size() - bytes);
            ++packets;
        }
        if (auto to = sessions_.on_data(reactor_.now(), packet->vni, from, packets, bytes)) {
            Traffic& traffic = forwarded_[from.client.address.is_v6()][to->client.address.is_v6()];
            traffic.packets += packets;
            traffic.bytes += bytes;
            send(data.first(bytes), each, *to);
        }
        data = data.subspan(bytes);
    }
}

/// What does not fit into the socket's buffer is lost, as it would be on a busy link.
void PeerRelayServer::send(BytesView data, std::size_t each, const RelayedPlace& to) {
    auto& socket = to.client.address.is_v6() ? v6_ : v4_;
    if (!socket) return;
    sockaddr_storage address{};
    Control control{};
    iovec part{const_cast<std::byte*>(data.data()), data.size()};
    msghdr message{};
    message.msg_name = &address;
    message.msg_namelen = to.client.to_sockaddr(address);
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.room;
    if (to.ours.is_v6()) {
        in6_pktinfo info{};
        std::ranges::copy(to.ours.bytes(), reinterpret_cast<std::byte*>(&info.ipi6_addr));
        tell(message, IPPROTO_IPV6, IPV6_PKTINFO, info);
    } else {
        in_pktinfo info{};
        info.ipi_spec_dst.s_addr = htonl(to.ours.v4_value());
        tell(message, IPPROTO_IP, IP_PKTINFO, info);
    }
    bool several = data.size() > each;
    if (several) tell(message, SOL_UDP, UDP_SEGMENT, static_cast<std::uint16_t>(each));
    if (::sendmsg(socket->fd(), &message, 0) >= 0 || !several || errno == EAGAIN) return;
    for (; !data.empty(); data = data.subspan(std::min(each, data.size()))) // larger than the way bears in one piece
        send(data.first(std::min(each, data.size())), each, to);
}

} // namespace tailrace
