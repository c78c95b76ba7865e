#include "agent/path/inner_ping.hpp"
#include "agent/path/udp_packet.hpp"
#include "base/log.hpp"
#include "base/random.hpp"

#include <cerrno>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace tailrace {
namespace {

constexpr std::uint64_t kIcmpBit = std::uint64_t{1} << 63; // of a question's id

std::uint64_t number_of(const TsmpData& data) {
    Reader in{data};
    return in.be64();
}
TsmpData data_of(std::uint64_t number) {
    Writer out;
    out.be64(number);
    TsmpData data{};
    std::copy(out.view().begin(), out.view().end(), data.begin());
    return data;
}

} // namespace

Result<std::unique_ptr<InnerPing>> InnerPing::create(Reactor& reactor, const std::string& device, std::uint32_t mark,
                                                     Callbacks callbacks) {
    std::unique_ptr<InnerPing> ping{new InnerPing(reactor, std::move(callbacks))};
    Result<void> first = ping->open(Kind::Tsmp4, device, mark);
    if (!first) return first.error();
    for (Kind kind : {Kind::Tsmp6, Kind::Icmp4, Kind::Icmp6})
        if (auto opened = ping->open(kind, device, mark); !opened)
            log::debug("a raw socket is missing", {{"error", opened.error()}});
    for (auto& [kind, socket] : ping->sockets_) spawn(reactor, "inner ping", receive(ping->alive_, ping.get(), kind));
    return ping;
}

InnerPing::~InnerPing() {
    *alive_ = false;
    for (auto& [kind, socket] : sockets_) socket->close();
    for (auto& [id, question] : questions_) question->answered.notify();
}

Result<void> InnerPing::open(Kind kind, const std::string& device, std::uint32_t mark) {
    bool v6 = kind == Kind::Tsmp6 || kind == Kind::Icmp6;
    int protocol = kind == Kind::Icmp4   ? static_cast<int>(IPPROTO_ICMP)
                   : kind == Kind::Icmp6 ? static_cast<int>(IPPROTO_ICMPV6)
                                         : static_cast<int>(kIpProtoTsmp);
    Fd fd{::socket(v6 ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol)};
    if (!fd) return Error::from_errno(errno, "open a raw socket for protocol {}", protocol);
    if (::setsockopt(fd.get(), SOL_SOCKET, SO_BINDTODEVICE, device.c_str(), static_cast<socklen_t>(device.size())) != 0)
        return Error::from_errno(errno, "bind a raw socket to {}", device);
    bool tsmp = kind == Kind::Tsmp4 || kind == Kind::Tsmp6;
    if (tsmp &&
        ::setsockopt(fd.get(), SOL_SOCKET, SO_MARK, &mark, sizeof mark) != 0) // egress lets only marked TSMP out
        return Error::from_errno(errno, "SO_MARK on a raw socket");
    if (kind == Kind::Icmp6) {
        struct icmp6_filter only_replies {};
        ICMP6_FILTER_SETBLOCKALL(&only_replies);
        ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &only_replies);
        (void)::setsockopt(fd.get(), IPPROTO_ICMPV6, ICMP6_FILTER, &only_replies, sizeof only_replies);
    }
    sockets_[kind] = std::make_unique<Descriptor>(reactor_, std::move(fd));
    return {};
}

Task<void> InnerPing::receive(std::shared_ptr<bool> alive, InnerPing* self, Kind kind) {
    Descriptor* socket = self->sockets_[kind].get();
    for (;;) {
        auto ready = co_await socket->readable();
        if (!*alive || !ready) co_return;
        for (;;) {
            std::byte buffer[2048];
            sockaddr_storage from{};
            socklen_t length = sizeof from;
            ssize_t got =
                ::recvfrom(socket->fd(), buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&from), &length);
            if (got < 0) break;
            Endpoint sender = Endpoint::from_sockaddr(reinterpret_cast<const sockaddr*>(&from));
            self->handle(kind, BytesView{buffer, static_cast<std::size_t>(got)}, sender.address);
        }
    }
}

void InnerPing::handle(Kind kind, BytesView packet, const IpAddress& from) {
    if (kind == Kind::Tsmp4 || kind == Kind::Icmp4) { // IPv4 comes with its header
        if (packet.size() < 20) return;
        std::size_t header = (static_cast<unsigned>(packet[0]) & 15u) * 4;
        if (header < 20 || packet.size() < header) return;
        packet = packet.subspan(header);
    }
    auto answer = [&](std::uint64_t id, std::uint16_t port) {
        auto found = questions_.find(id);
        if (found == questions_.end() || found->second->pong) return;
        found->second->pong = InnerPong{reactor_.now() - found->second->sent, port};
        found->second->answered.notify();
    };
    if (kind == Kind::Icmp4 || kind == Kind::Icmp6) {
        Reader in{packet};
        std::uint8_t type = in.u8(), code = in.u8();
        in.be16();
        in.be32();
        std::uint64_t id = in.be64();
        bool reply = code == 0 && type == (kind == Kind::Icmp4 ? 0 : 129);
        if (in.ok() && reply) answer(id, 0);
        return;
    }
    auto message = parse_tsmp(packet);
    if (!message) return;
    if (const auto* ping = std::get_if<TsmpPing>(&*message)) {
        TsmpPong pong;
        pong.data = ping->data;
        pong.peer_api_port = callbacks_.peer_api_port(from.is_v6());
        if (auto sent = send_tsmp(from, pong); !sent) log::debug("TSMP pong not sent", {{"error", sent.error()}});
    } else if (const auto* pong = std::get_if<TsmpPong>(&*message)) {
        answer(number_of(pong->data), pong->peer_api_port);
    } else if (const auto* disco = std::get_if<TsmpDiscoKey>(&*message)) {
        callbacks_.disco_key(from, disco->key);
    }
}

Result<void> InnerPing::send_tsmp(const IpAddress& to, const TsmpMessage& message) {
    auto socket = sockets_.find(to.is_v6() ? Kind::Tsmp6 : Kind::Tsmp4);
    auto own = callbacks_.own_address(to.is_v6());
    if (socket == sockets_.end() || !own) return Error::from_errno(EAFNOSUPPORT, "send to {}", to.text());
    Bytes payload = write_tsmp(message);
    sockaddr_storage address{};
    Endpoint target{to, 0};
    socklen_t length = target.to_sockaddr(address);
    sockaddr_storage source{};
    socklen_t source_length = Endpoint{*own, 0}.to_sockaddr(source);
    (void)::bind(socket->second->fd(), reinterpret_cast<const sockaddr*>(&source),
                 source_length); // the kernel's choice else
    if (::sendto(socket->second->fd(), payload.data(), payload.size(), MSG_NOSIGNAL,
                 reinterpret_cast<const sockaddr*>(&address), length) < 0)
        return Error::from_errno(errno, "send TSMP to {}", to.text());
    return {};
}

Result<void> InnerPing::announce(const IpAddress& to, const DiscoKey& key) {
    return send_tsmp(to, TsmpDiscoKey{key});
}

Task<Result<InnerPong>> InnerPing::wait(std::uint64_t id, Duration timeout) {
    auto alive = alive_;
    auto question = questions_[id];
    TimePoint end = reactor_.now() + timeout;
    while (!question->pong && reactor_.now() < end) {
        (void)co_await question->answered.wait_for(end - reactor_.now());
        if (!*alive) co_return Error::make("the tunnel was taken down");
    }
    questions_.erase(id);
    if (!question->pong) co_return Error::from_errno(ETIMEDOUT, "ping");
    co_return *question->pong;
}

Task<Result<InnerPong>> InnerPing::tsmp(IpAddress to, Duration timeout) {
    std::uint64_t id = random_u64() & ~kIcmpBit;
    auto question = std::make_shared<Question>(reactor_);
    question->sent = reactor_.now();
    questions_[id] = question;
    TsmpPing ping;
    ping.data = data_of(id);
    TsmpMessage message = ping;
    if (auto sent = send_tsmp(to, message); !sent) {
        questions_.erase(id);
        co_return sent.error();
    }
    co_return co_await wait(id, timeout);
}

Task<Result<InnerPong>> InnerPing::icmp(IpAddress to, Duration timeout) {
    auto socket = sockets_.find(to.is_v6() ? Kind::Icmp6 : Kind::Icmp4);
    if (socket == sockets_.end()) co_return Error::from_errno(EAFNOSUPPORT, "ping {}", to.text());
    std::uint64_t id = random_u64() | kIcmpBit;
    Writer body;
    body.u8(to.is_v6() ? 128 : 8);
    body.u8(0);
    body.be16(0);
    body.be16(static_cast<std::uint16_t>(id));
    body.be16(1);
    body.be64(id);
    Bytes packet = body.take();
    if (!to.is_v6()) { // for ICMPv6 the kernel does it
        std::uint16_t sum = checksum_finish(checksum_add(0, packet));
        packet[2] = static_cast<std::byte>(sum >> 8);
        packet[3] = static_cast<std::byte>(sum & 255);
    }
    auto question = std::make_shared<Question>(reactor_);
    question->sent = reactor_.now();
    questions_[id] = question;
    sockaddr_storage address{};
    Endpoint target{to, 0};
    socklen_t length = target.to_sockaddr(address);
    if (::sendto(socket->second->fd(), packet.data(), packet.size(), MSG_NOSIGNAL,
                 reinterpret_cast<const sockaddr*>(&address), length) < 0) {
        int problem = errno;
        questions_.erase(id);
        co_return Error::from_errno(problem, "ping {}", to.text());
    }
    co_return co_await wait(id, timeout);
}

} // namespace tailrace
