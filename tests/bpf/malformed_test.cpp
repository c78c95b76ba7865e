// Packets that no honest stack sends.
#include "tests/bpf/packet_room.hpp"

namespace tailrace::test {
namespace {

class Malformed : public PacketRoom {
protected:
    void SetUp() override {
        PacketRoom::SetUp();
        if (!IsSkipped()) commit(receiver_with({rule({"*"}, {{"*", PortRange::all()}}, {})}));
    }
    const Packet a_to_r{kA, kR}, a6_to_r6{kA6, kR6};
};

TEST_F(Malformed, EveryTruncationOfAnIpv4PacketIsDropped) {
    Bytes whole = a_to_r.tcp(22, kSyn).bytes();
    ASSERT_TRUE(in(whole).passed);
    for (std::size_t length = 1; length < whole.size(); ++length) {
        Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
        SCOPED_TRACE(length);
        EXPECT_DROP(in(cut), length < 20 ? "too-short" : "truncated");
    }
}

TEST_F(Malformed, EveryTruncationOfAnIpv6PacketIsDropped) {
    Bytes whole = a6_to_r6.udp(53).fragment(0, true).bytes();
    ASSERT_TRUE(in(whole).passed);
    for (std::size_t length = 1; length < whole.size(); ++length) {
        Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
        SCOPED_TRACE(length);
        EXPECT_DROP(in(cut), length < 20 ? "too-short" : "truncated");
    }
}

TEST_F(Malformed, TransportsThatEndEarly) {
    EXPECT_DROP(in(a_to_r.tcp(22, kSyn).cut_transport(19)), "truncated");
    EXPECT_DROP(in(a_to_r.tcp(22, kSyn).cut_transport(0)), "truncated");
    EXPECT_DROP(in(a_to_r.udp(53).cut_transport(7)), "truncated");
    EXPECT_DROP(in(a_to_r.sctp(53).cut_transport(11)), "truncated");
    EXPECT_DROP(in(a_to_r.icmp(8).cut_transport(3)), "truncated");
    EXPECT_DROP(in(a6_to_r6.tcp(22, kSyn).cut_transport(19)), "truncated");
    EXPECT_DROP(in(a6_to_r6.icmp(128).cut_transport(3)), "truncated");
    EXPECT_RULE(in(a_to_r.udp(53).cut_transport(8)), 0);
    EXPECT_RULE(in(a_to_r.icmp(8).cut_transport(4)), 0);
}

TEST_F(Malformed, BytesBehindThePacketAreNotPartOfIt) {
    Bytes padded = a_to_r.tcp(22, kSyn).cut_transport(12).bytes();
    padded.resize(60); // the total length says that TCP ends after 12 bytes
    EXPECT_DROP(in(padded), "truncated");
    Bytes behind = a_to_r.udp(53).bytes();
    behind.resize(behind.size() + 6);
    EXPECT_RULE(in(behind), 0);
}

TEST_F(Malformed, HeaderLengthsThatLie) {
    Bytes packet = a_to_r.tcp(22, kSyn).bytes();
    packet[0] = std::byte{0x44}; // four words: shorter than any header
    EXPECT_DROP(in(packet), "bad-header");
    packet[0] = std::byte{0x40};
    EXPECT_DROP(in(packet), "bad-header");
    packet[0] = std::byte{0x4f}; // sixty bytes in a packet of forty
    EXPECT_DROP(in(packet), "bad-header");
    packet = a_to_r.tcp(22, kSyn).bytes();
    packet[2] = packet[3] = std::byte{0}; // total length 0
    EXPECT_DROP(in(packet), "bad-header");
    packet[3] = std::byte{20}; // nothing behind the header
    EXPECT_DROP(in(packet), "truncated");
}

TEST_F(Malformed, VersionsThatDoNotExist) {
    for (unsigned version : {0u, 1u, 3u, 5u, 7u, 15u}) {
        Bytes packet = a_to_r.tcp(22, kSyn).bytes();
        packet[0] = static_cast<std::byte>(version << 4 | 5);
        SCOPED_TRACE(version);
        EXPECT_DROP(in(packet), "bad-version");
    }
}

TEST_F(Malformed, FragmentsOfTsmpAreRefused) {
    EXPECT_DROP(in(a_to_r.proto(99, 16).fragment(0, true)), "bad-fragment");
    EXPECT_PASS(in(a_to_r.proto(99, 16)), "tsmp");
}

TEST_F(Malformed, ChainsOfExtensionHeaders) {
    Packet syn = a6_to_r6.tcp(22, kSyn);
    EXPECT_DROP(in(syn.extension(60).extension(0)), "unknown-protocol");
    EXPECT_DROP(in(syn.extension(43).extension(60)), "no-rule");
    EXPECT_DROP(in(syn.extension(51)), "no-rule");
    EXPECT_DROP(in(syn.extension(50)), "no-rule");
    EXPECT_DROP(in(syn.extension(135)), "no-rule");
    EXPECT_DROP(in(syn.extension(44).extension(44)), "no-rule"); // a fragment header inside one: protocol 44
    EXPECT_DROP(in(syn.extension(0).fragment(0, true)), "unknown-protocol");
    EXPECT_DROP(in(syn.extension(60).fragment(0, true)), "no-rule");
    EXPECT_DROP(in(a6_to_r6.proto(59, 0)), "no-rule");
    EXPECT_DROP(in(a6_to_r6.proto(255, 8).fragment(0, true)), "unknown-protocol");
    EXPECT_RULE(in(syn.fragment(0, false)), 0); // an atomic fragment
}

TEST_F(Malformed, AFragmentHeaderThatIsCut) {
    EXPECT_DROP(in(a6_to_r6.proto(44, 7)), "truncated");
    EXPECT_DROP(in(a6_to_r6.proto(44, 0)), "truncated");
}

TEST_F(Malformed, OutboundToo) {
    EXPECT_EQ(out(Packet{kR, kA}.tcp(22, kSyn).cut_transport(10)).reason, "out-malformed");
    EXPECT_EQ(out(Packet{kR, kA}.proto(0, 10)).reason, "out-malformed");
}

} // namespace
} // namespace tailrace::test
