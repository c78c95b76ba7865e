// A relay for peers on loopback: what comes in many at once goes on as it came.
#include "agent/peer_relay/peer_relay_server.hpp"
#include "tests/fakes/run_task.hpp"

#include <gmock/gmock.h>

#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

namespace tailrace {
namespace {

using testing::ElementsAre;

const IpAddress kLoopback = IpAddress::v4(0x7f000001);

struct Client {
    DiscoPrivateKey key = DiscoPrivateKey::generate();
    DiscoKey disco = key.public_key();
    std::optional<UdpSocket> socket;
};

Task<std::optional<Bytes>> next(Reactor& reactor, UdpSocket& socket) {
    for (int i = 0; i < 200; ++i) {
        if (auto got = socket.try_receive()) co_return std::move(got->data);
        co_await reactor.sleep(std::chrono::milliseconds{5});
    }
    co_return std::nullopt;
}

/// Tells the relay where this client is.
Task<bool> shake(Reactor& reactor, Client& client, const DiscoRelayEndpoint& at) {
    auto box = DiscoBox::between(client.key, at.server);
    DiscoRelayHandshake message;
    message.vni = at.vni;
    message.generation = 1;
    message.remote = at.clients[at.clients[0] == client.disco ? 1 : 0];
    for (auto step : {DiscoRelayHandshake::Step::Bind, DiscoRelayHandshake::Step::Answer}) {
        message.step = step;
        Bytes sealed = box->seal(message);
        if (!client.socket->send(at.addresses[0], write_geneve({GenevePacket::Protocol::Disco, true, at.vni, sealed})))
            co_return false;
        if (step == DiscoRelayHandshake::Step::Answer) co_return true;
        auto reply = co_await next(reactor, *client.socket);
        auto packet = reply ? parse_geneve(*reply) : std::nullopt;
        if (!packet || !packet->control) co_return false;
        auto opened = box->open(packet->payload);
        if (!opened || !std::holds_alternative<DiscoRelayHandshake>(*opened)) co_return false;
        message = std::get<DiscoRelayHandshake>(*opened);
    }
    co_return true;
}

Bytes data_for(std::uint32_t vni, char what, std::size_t bytes) {
    return write_geneve({GenevePacket::Protocol::WireGuard, false, vni, Bytes(bytes, static_cast<std::byte>(what))});
}

/// All of one size but the last, in one system call, as a busy client does.
void send_at_once(const UdpSocket& socket, const Endpoint& to, const std::vector<Bytes>& datagrams) {
    Bytes all;
    for (const Bytes& datagram : datagrams) all.insert(all.end(), datagram.begin(), datagram.end());
    int size = static_cast<int>(datagrams[0].size());
    ASSERT_EQ(::setsockopt(socket.fd(), SOL_UDP, UDP_SEGMENT, &size, sizeof size), 0);
    EXPECT_TRUE(const_cast<UdpSocket&>(socket).send(to, all));
    size = 0;
    ASSERT_EQ(::setsockopt(socket.fd(), SOL_UDP, UDP_SEGMENT, &size, sizeof size), 0);
}

Bytes stun_answer(const stun::TxId& id, const Endpoint& seen_from) {
    std::array<std::byte, stun::kMaxResponseSize> room{};
    return to_bytes(BytesView{room}.first(stun::write_response(room, id, seen_from)));
}

std::function<Task<std::vector<Endpoint>>()> asking(std::vector<Endpoint> servers) {
    return [servers]() -> Task<std::vector<Endpoint>> { co_return servers; };
}

TEST(PeerRelayServerTest, ManyAtOnceOfSeveralSessionsGoOnAsTheyCame) {
    run_task([](Reactor& reactor) -> Task<void> {
        auto server = PeerRelayServer::open(reactor, 0, 0, 0, asking({}));
        EXPECT_TRUE(server) << server.error().message();
        (*server)->set_addresses({kLoopback}, {});
        Client anna, bert, carl;
        for (Client* client : {&anna, &bert, &carl}) {
            auto bound = UdpSocket::bind(reactor, {kLoopback, 0}, {});
            client->socket.emplace(std::move(*bound));
        }
        std::vector<DiscoRelayEndpoint> at;
        for (Client* other : {&bert, &carl}) {
            auto answer = (*server)->allocate({{anna.disco, other->disco}, 9}, anna.disco);
            EXPECT_TRUE(answer && answer->generation == 9);
            at.push_back(answer->endpoint);
            EXPECT_THAT(at.back().addresses, ElementsAre(Endpoint{kLoopback, (*server)->port4()}));
            EXPECT_TRUE(co_await shake(reactor, anna, at.back()));
            EXPECT_TRUE(co_await shake(reactor, *other, at.back()));
        }
        Endpoint relay = at[0].addresses[0];
        Bytes a = data_for(at[0].vni, 'a', 200), b = data_for(at[0].vni, 'b', 200), c = data_for(at[1].vni, 'c', 200),
              d = data_for(at[0].vni, 'd', 200), stray = data_for(at[1].vni + 1, 'x', 200),
              e = data_for(at[0].vni, 'e', 90);
        send_at_once(*anna.socket, relay, {a, b, c, d, stray, e});
        for (const Bytes& expected : {a, b, d, e}) EXPECT_EQ(co_await next(reactor, *bert.socket), expected);
        EXPECT_EQ(co_await next(reactor, *carl.socket), c);
        EXPECT_TRUE(bert.socket->send(relay, data_for(at[0].vni, 'z', 1200)));
        EXPECT_EQ(co_await next(reactor, *anna.socket), data_for(at[0].vni, 'z', 1200));
        EXPECT_EQ((*server)->forwarded(false, false).packets, 6u);
        EXPECT_EQ((*server)->forwarded(false, false).bytes, 4 * 208u + 98 + 1208);
        EXPECT_FALSE(bert.socket->try_receive()) << "and nothing else";
    });
}

TEST(PeerRelayServerTest, LearnsWhereItIsSeenFromWhomItAskedOnly) {
    run_task([](Reactor& reactor) -> Task<void> {
        auto stun_server = UdpSocket::bind(reactor, {kLoopback, 0}, {});
        auto server = PeerRelayServer::open(reactor, 0, 0, 0, asking({stun_server->local()}));
        EXPECT_TRUE(server);
        EXPECT_TRUE((*server)->addresses().empty());
        DiscoKey one = DiscoPrivateKey::generate().public_key(), other = DiscoPrivateKey::generate().public_key();
        EXPECT_FALSE((*server)->allocate({{one, other}, 1}, one)) << "nobody would find it";
        auto request = co_await next(reactor, *stun_server);
        EXPECT_TRUE(request);
        auto id = stun::parse_request(*request);
        EXPECT_TRUE(id);
        Endpoint relay{kLoopback, (*server)->port4()}, seen = *Endpoint::parse("203.0.113.9:777"),
                                                       lie = *Endpoint::parse("203.0.113.66:666");
        auto unknown = *id;
        unknown[3] ^= std::byte{1};
        EXPECT_TRUE(stun_server->send(relay, stun_answer(unknown, lie)));
        EXPECT_TRUE(stun_server->send(relay, stun_answer(*id, seen)));
        EXPECT_TRUE(stun_server->send(relay, stun_answer(*id, lie))); // a second answer
        for (int i = 0; i < 200 && (*server)->addresses().empty(); ++i)
            co_await reactor.sleep(std::chrono::milliseconds{5});
        co_await reactor.sleep(std::chrono::milliseconds{20});
        EXPECT_THAT((*server)->addresses(), ElementsAre(seen));
    });
}

} // namespace
} // namespace tailrace
