#include "tests/fakes/udp_nat.hpp"

#include <gtest/gtest.h>
#include <netinet/in.h>

namespace tailrace::fakes {
namespace {

using namespace std::chrono_literals;

Endpoint at(const char* text) {
    return *Endpoint::parse(text);
}

const Endpoint kAlice = at("192.168.1.10:41641"), kBob = at("192.168.2.10:41641");
const Endpoint kServer = at("203.0.113.2:3478"), kOther = at("203.0.113.2:3479"), kStranger = at("203.0.113.3:3478");
constexpr TimePoint kStart{std::chrono::hours{1}};

struct UdpNatTest : testing::Test {
    UdpNat nat{*IpAddress::parse("203.0.113.9"),
               {*IpPrefix::parse("192.168.1.0/24"), *IpPrefix::parse("192.168.2.0/24")}};
    TimePoint now = kStart;

    /// Where others see the sender; an invalid endpoint when it is dropped.
    Endpoint seen(const Endpoint& from, const Endpoint& to) {
        auto flow = nat.translate(now, {from, to});
        return flow ? flow->from : Endpoint{};
    }
    /// Whom it reaches.
    Endpoint reached(const Endpoint& from, const Endpoint& to) {
        auto flow = nat.translate(now, {from, to});
        return flow ? flow->to : Endpoint{};
    }
};

TEST_F(UdpNatTest, KeepsOnePortForAnInsideSocket) {
    Endpoint outside = seen(kAlice, kServer);
    EXPECT_EQ(outside, at("203.0.113.9:41641"));
    EXPECT_EQ(seen(kAlice, kStranger), outside);
    EXPECT_NE(seen(kBob, kServer), outside);
    EXPECT_EQ(seen(kBob, kServer).address, outside.address);
}

TEST_F(UdpNatTest, LetsInWhomTheSocketHasWrittenTo) {
    Endpoint outside = seen(kAlice, kServer);
    EXPECT_EQ(reached(kServer, outside), kAlice);
    EXPECT_FALSE(reached(kOther, outside).valid());
    EXPECT_FALSE(reached(kStranger, outside).valid());
    EXPECT_FALSE(reached(kServer, at("203.0.113.9:41642")).valid());
    EXPECT_FALSE(reached(kServer, kAlice).valid()) << "inside addresses mean nothing outside";
}

TEST_F(UdpNatTest, HairpinsWithTheOutsideSource) {
    Endpoint alice = seen(kAlice, kServer), bob = seen(kBob, kServer);
    EXPECT_FALSE(reached(kAlice, bob).valid()) << "bob has not written to alice";
    EXPECT_EQ(nat.translate(now, {kBob, alice}), (Flow{bob, kAlice}));
    EXPECT_EQ(nat.translate(now, {kAlice, bob}), (Flow{alice, kBob}));
    EXPECT_FALSE(reached(kAlice, kBob).valid()) << "only by outside addresses";
}

TEST_F(UdpNatTest, AMappingLivesAsLongAsTheSocketWrites) {
    Endpoint outside = seen(kAlice, kServer);
    now += UdpNat::kLifetime - 1s;
    EXPECT_EQ(reached(kServer, outside), kAlice);
    seen(kAlice, kServer);
    now += UdpNat::kLifetime - 1s;
    EXPECT_EQ(reached(kServer, outside), kAlice);
    now += 1s; // what came in does not count
    EXPECT_FALSE(reached(kServer, outside).valid());
    EXPECT_EQ(seen(kBob, kServer), outside) << "the port is free again";
}

TEST_F(UdpNatTest, WhomASocketNoLongerWritesToIsForgotten) {
    Endpoint outside = seen(kAlice, kServer);
    for (int i = 0; i < 4; ++i) {
        now += UdpNat::kLifetime - 1s;
        seen(kAlice, kStranger);
    }
    EXPECT_FALSE(reached(kServer, outside).valid());
    EXPECT_EQ(reached(kStranger, outside), kAlice);
}

TEST_F(UdpNatTest, ManyRemotesPushOutTheOldest) {
    Endpoint outside = seen(kAlice, kServer);
    Endpoint remote = kStranger;
    for (std::size_t i = 0; i < 2 * UdpNat::kRemotes; ++i)
        remote.port = static_cast<std::uint16_t>(i + 1), seen(kAlice, remote);
    EXPECT_FALSE(reached(kServer, outside).valid());
    EXPECT_EQ(reached(remote, outside), kAlice);
}

TEST_F(UdpNatTest, AFullTableRefusesNewSocketsUntilOldOnesEnd) {
    Endpoint inside = kAlice;
    for (std::size_t i = 0; i < UdpNat::kMappings; ++i) {
        inside.port = static_cast<std::uint16_t>(i); // the lowest get other ports
        ASSERT_TRUE(seen(inside, kServer).valid()) << i;
    }
    EXPECT_FALSE(seen(kBob, kServer).valid());
    EXPECT_TRUE(seen(inside, kServer).valid());
    now += UdpNat::kLifetime;
    EXPECT_EQ(seen(kBob, kServer), at("203.0.113.9:41641"));
}

/// Any IPv4 packet of UDP, its checksums right or none.
Bytes packet_of(const Flow& flow, std::string_view payload, bool with_options = false, bool with_checksum = true) {
    Bytes options(with_options ? 4 : 0, std::byte{1}); // no operation
    auto checksum_of = [](const Bytes& data) {
        std::uint32_t sum = 0;
        for (std::size_t i = 0; i < data.size(); i += 2) {
            sum += static_cast<unsigned>(data[i]) << 8;
            if (i + 1 < data.size()) sum += static_cast<unsigned>(data[i + 1]);
        }
        while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
        return static_cast<std::uint16_t>(~sum);
    };
    auto udp_length = static_cast<std::uint16_t>(8 + payload.size());
    auto ip_header = [&](std::uint16_t checksum) {
        Writer out;
        out.u8(static_cast<std::uint8_t>(0x45 + options.size() / 4));
        out.u8(0);
        out.be16(static_cast<std::uint16_t>(20 + options.size() + udp_length));
        out.be16(7);
        out.be16(0x4000);
        out.u8(63);
        out.u8(IPPROTO_UDP);
        out.be16(checksum);
        out.bytes(flow.from.address.bytes());
        out.bytes(flow.to.address.bytes());
        out.bytes(options);
        return out.take();
    };
    auto udp = [&](std::uint16_t checksum) {
        Writer out;
        out.be16(flow.from.port);
        out.be16(flow.to.port);
        out.be16(udp_length);
        out.be16(checksum);
        out.text(payload);
        return out.take();
    };
    Writer pseudo;
    pseudo.bytes(flow.from.address.bytes());
    pseudo.bytes(flow.to.address.bytes());
    pseudo.be32(IPPROTO_UDP << 16 | udp_length);
    pseudo.bytes(udp(0));
    std::uint16_t checksum = checksum_of(pseudo.view());
    Writer out;
    out.bytes(ip_header(checksum_of(ip_header(0))));
    out.bytes(udp(!with_checksum ? 0 : checksum == 0 ? 0xffff : checksum));
    return out.take();
}

TEST(NatPacket, HasOtherEndsAndRightChecksums) {
    for (std::string_view payload : {"", "x", "abcd", "an odd number of bytes."})
        for (bool with_options : {false, true})
            for (bool with_checksum : {false, true}) {
                Flow before{kAlice, kServer}, after{at("203.0.113.9:20000"), kBob};
                Bytes packet = packet_of(before, payload, with_options, with_checksum);
                EXPECT_EQ(flow_of(packet), before);
                readdress(packet, after);
                EXPECT_EQ(packet, packet_of(after, payload, with_options, with_checksum)) << payload;
            }
}

TEST(NatPacket, IsOnlyAWholeDatagram) {
    Bytes packet = packet_of({kAlice, kServer}, "payload");
    for (std::size_t size = 0; size < packet.size(); ++size)
        EXPECT_FALSE(flow_of(BytesView{packet}.first(size))) << size;
    auto changed = [&](std::size_t at, unsigned value) {
        Bytes other = packet;
        other[at] = static_cast<std::byte>(value);
        return flow_of(other);
    };
    EXPECT_TRUE(changed(1, 0xb8));
    EXPECT_FALSE(changed(0, 0x65)) << "IPv6";
    EXPECT_FALSE(changed(0, 0x44)) << "a header of 16 bytes";
    EXPECT_FALSE(changed(0, 0x4f)) << "a header that takes all";
    EXPECT_FALSE(changed(3, 27)) << "no room for UDP";
    EXPECT_FALSE(changed(6, 0x20)) << "more fragments";
    EXPECT_FALSE(changed(7, 1)) << "a later fragment";
    EXPECT_FALSE(changed(9, IPPROTO_TCP));
}

} // namespace
} // namespace tailrace::fakes
