#include "agent/path/raw_listener.hpp"
#include "agent/path/udp_packet.hpp"
#include "proto/geneve.hpp"
#include "proto/stun.hpp"
#include "tests/fakes/run_task.hpp"

#include <gmock/gmock.h>

#include <cerrno>

using namespace tailrace;

namespace {

const IpAddress kPeer = *IpAddress::parse("203.0.113.7");
const IpAddress kOwn = *IpAddress::parse("192.0.2.1");

Bytes packet_of(std::string_view payload, std::uint16_t port = 41641) {
    return build_udp_packet({kPeer, 4000}, {kOwn, port}, as_bytes(payload));
}

TEST(RawUdpTest, GivesThePayloadAndWhereItCameFrom) {
    Bytes packet = packet_of("hello");
    auto whole = parse_raw_udp(packet, false, kPeer, 41641);
    ASSERT_TRUE(whole);
    EXPECT_EQ(as_chars(whole->data), "hello");
    EXPECT_EQ(whole->from, (Endpoint{kPeer, 4000}));
    auto without_header = parse_raw_udp(BytesView{packet}.subspan(20), true, kPeer, 41641);
    ASSERT_TRUE(without_header);
    EXPECT_EQ(as_chars(without_header->data), "hello");
}

TEST(RawUdpTest, LeavesOutWhatIsBehindTheDatagram) {
    Bytes packet = packet_of("hello");
    packet.push_back(std::byte{9});
    EXPECT_EQ(as_chars(parse_raw_udp(packet, false, kPeer, 41641)->data), "hello");
}

TEST(RawUdpTest, RefusesWhatIsCutShortOrForSomebodyElse) {
    Bytes packet = packet_of("hello");
    for (std::size_t size = 0; size < packet.size(); ++size) {
        EXPECT_FALSE(parse_raw_udp(BytesView{packet}.first(size), false, kPeer, 41641)) << size;
    }
    EXPECT_FALSE(parse_raw_udp(packet, false, kPeer, 41642));
    packet[0] = std::byte{0x44}; // a header of 16 bytes
    EXPECT_FALSE(parse_raw_udp(packet, false, kPeer, 41641));
}

/// WireGuard's part is played by a socket that has the port.
TEST(RawListenerTest, HearsDiscoStunAndGeneveOfBothFamiliesAndNothingElse) {
    run_task([](Reactor& reactor) -> Task<void> {
        for (const char* host : {"127.0.0.1", "::1"}) {
            IpAddress address = *IpAddress::parse(host);
            auto holder = UdpSocket::bind(reactor, {address, 0}, {});
            if (!holder && address.is_v6()) co_return; // a machine without IPv6
            std::vector<Bytes> heard;
            Event news{reactor};
            auto listener = RawListener::open(reactor, holder->local().port, [&](const Datagram& datagram) {
                heard.push_back(datagram.data);
                news.notify();
            });
            if (!listener && listener.error().code() == EPERM) {
                []() { GTEST_SKIP() << "raw sockets need CAP_NET_RAW"; }();
                co_return;
            }
            EXPECT_TRUE(listener);
            auto sender = UdpSocket::bind(reactor, {address, 0}, {});
            Bytes disco = to_bytes(as_bytes("TS\xf0\x9f\x92\xac and the rest"));
            Bytes wireguard(148);
            wireguard[0] = std::byte{1};
            auto request = stun::write_request({});
            Bytes stun_request = to_bytes(request);
            Bytes nearly = to_bytes(as_bytes("TS\xf0\x9f\x92\xad and the rest"));
            Bytes relayed = write_geneve({GenevePacket::Protocol::WireGuard, false, 7, wireguard});
            Bytes challenge = write_geneve({GenevePacket::Protocol::Disco, true, 7, disco});
            Bytes with_options = relayed, of_others = relayed, with_flags = relayed;
            with_options[0] |= std::byte{1};
            of_others[3] = std::byte{0x13};
            with_flags[7] = std::byte{1};
            for (const Bytes& data : {wireguard, nearly, disco, Bytes(1), with_options, relayed, of_others, with_flags,
                                      challenge, stun_request})
                EXPECT_TRUE(sender->send(holder->local(), data));
            for (int i = 0; i < 200 && heard.size() < 4; ++i)
                (void)co_await news.wait_for(std::chrono::milliseconds{50});
            EXPECT_THAT(heard, ::testing::ElementsAre(disco, relayed, challenge, stun_request)) << host;
        }
    });
}

} // namespace
