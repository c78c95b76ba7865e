#include "agent/dns/server.hpp"

#include "base/log.hpp"
#include "proto/dns_query.hpp"

#include <algorithm>
#include <cerrno>

namespace tailrace {

struct DnsServer::Sockets {
    UdpSocket udp;
    Listener tcp;
    void close() {
        udp.close();
        tcp.close();
    }
};

DnsServer::DnsServer(Reactor& reactor, Answer answer, IsOurs is_ours, std::uint16_t port)
    : reactor_(reactor), answer_(std::move(answer)), is_ours_(std::move(is_ours)), port_(port) {}

DnsServer::~DnsServer() {
    *alive_ = false;
    for (auto& [address, sockets] : sockets_) sockets->close();
}

Result<std::shared_ptr<DnsServer::Sockets>> DnsServer::open(const IpAddress& address) {
    auto tcp = Listener::tcp(reactor_, {address, port_});
    if (!tcp) return tcp.error();
    auto udp = UdpSocket::bind(reactor_, tcp->local(), {});
    if (!udp) return udp.error();
    return std::make_shared<Sockets>(Sockets{std::move(*udp), std::move(*tcp)});
}

void DnsServer::set_addresses(const std::vector<IpAddress>& addresses) {
    std::erase_if(sockets_, [&](auto& entry) {
        bool gone = std::ranges::find(addresses, entry.first) == addresses.end();
        if (gone) entry.second->close();
        return gone;
    });
    trouble_.clear();
    for (const IpAddress& address : addresses) {
        if (sockets_.contains(address)) continue;
        auto sockets = open(address);
        if (!sockets) {
            trouble_ = sockets.error().message();
            if (sockets.error().code() == EADDRINUSE)
                trouble_ += fmt::format(": tell the resolver that listens at all addresses to leave {} to tailraced",
                                        address.text());
            continue;
        }
        sockets_[address] = *sockets;
        spawn(reactor_, "DNS over UDP", hear(alive_, this, *sockets));
        spawn(reactor_, "DNS over TCP", accept(alive_, this, *sockets));
    }
}

std::vector<Endpoint> DnsServer::endpoints() const {
    std::vector<Endpoint> out;
    for (const auto& [address, sockets] : sockets_) out.push_back(sockets->udp.local());
    return out;
}

Task<void> DnsServer::hear(std::shared_ptr<bool> alive, DnsServer* self, std::shared_ptr<Sockets> sockets) {
    for (;;) {
        auto question = co_await sockets->udp.receive();
        if (!*alive || !question) co_return;
        if (self->queries_ >= kMostQueries || !self->is_ours_(question->from.address.unmapped())) continue;
        ++self->queries_;
        spawn(self->reactor_, "a question about a name", reply(alive, self, sockets, std::move(*question)));
    }
}

Task<void> DnsServer::reply(std::shared_ptr<bool> alive, DnsServer* self, std::shared_ptr<Sockets> sockets,
                            Datagram question) {
    auto answer = co_await self->answer_(question.data, DnsTransport::Udp);
    if (!*alive) co_return;
    --self->queries_;
    if (!answer || answer->empty()) co_return;
    (void)sockets->udp.send(question.from, fit_udp_answer(question.data, std::move(*answer))); // who asked asks again
}

Task<void> DnsServer::accept(std::shared_ptr<bool> alive, DnsServer* self, std::shared_ptr<Sockets> sockets) {
    for (;;) {
        auto stream = co_await sockets->tcp.accept();
        if (!*alive || !stream) co_return;
        if (self->connections_ >= kMostConnections || !self->is_ours_((*stream)->peer().address.unmapped())) continue;
        ++self->connections_;
        spawn(self->reactor_, "questions about names", serve(alive, self, std::move(*stream)));
    }
}

Task<void> DnsServer::serve(std::shared_ptr<bool> alive, DnsServer* self, std::unique_ptr<Stream> stream) {
    Timer idle{self->reactor_};
    for (;;) {
        idle.after(kIdle, [&] { stream->close(); });
        std::array<std::byte, 2> head{};
        if (auto read = co_await stream->read_exactly(head); !read) break;
        std::size_t size = Reader{head}.be16();
        if (size > kMostTcpQuery) break;
        Bytes query(size);
        if (auto read = co_await stream->read_exactly(query); !read) break;
        if (!*alive) co_return;
        idle.cancel(); // the answer has a time of its own
        if (self->queries_ >= kMostQueries) continue;
        ++self->queries_;
        auto answer = co_await self->answer_(std::move(query), DnsTransport::Tcp);
        if (!*alive) co_return;
        --self->queries_;
        if (!answer || answer->empty() || answer->size() > kMostDnsMessage) continue;
        Writer out; // RFC 1035 4.2.2
        out.be16(static_cast<std::uint16_t>(answer->size()));
        out.bytes(*answer);
        idle.after(kIdle, [&] { stream->close(); });
        if (auto sent = co_await stream->write_all(out.view()); !sent) break;
    }
    if (*alive) --self->connections_;
}

Bytes fit_udp_answer(BytesView query, Bytes answer) {
    auto asked = parse_dns_query(query);
    if (answer.size() > (asked ? asked->udp_size : 512)) set_dns_truncated(answer);
    return answer;
}

} // namespace tailrace
