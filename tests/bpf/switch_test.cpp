// Policy changes: a packet sees the old policy or the new one, and nothing of the old one afterwards.
#include "tests/bpf/packet_room.hpp"

#include <cerrno>
#include <chrono>

namespace tailrace::test {
namespace {

class Switch : public PacketRoom {
protected:
    const Packet a_to_r{kA, kR}, b_to_r{kB, kR};
};

TEST_F(Switch, ARevocationTakesEffectAtOnce) {
    commit(receiver());
    EXPECT_RULE(in(a_to_r.tcp(22, kSyn)), 0);
    commit(receiver_with({}));
    EXPECT_DROP(in(a_to_r.tcp(22, kSyn)), "no-rule");
    EXPECT_DROP(in(a_to_r.udp(53)), "no-rule");
    EXPECT_DROP(in(a_to_r.icmp(8)), "no-rule");
    EXPECT_DROP(in(a_to_r.proto(47, 8)), "no-rule");
    EXPECT_DROP(in(Packet{"192.168.1.7", "10.33.1.5"}.udp(9)), "no-rule");
}

TEST_F(Switch, ARevocationTakesEffectInAPolicyThatDoesNotFit) {
    TableLimits limits;
    limits.hosts = 400;
    std::vector<std::string> crowd;
    for (int i = 0; i < 1000; ++i) crowd.push_back("100.80." + std::to_string(i / 250) + "." + std::to_string(i % 250));
    FilterRule for_a = rule({kA}, {{kR, {22, 22}}}), for_b = rule({kB}, {{kR, {22, 22}}});
    commit(receiver_with({for_a, for_b}), limits);
    EXPECT_RULE(in(a_to_r.tcp(22, kSyn)), 0);
    EXPECT_EQ(warnings().size(), 0u);

    // A is out; the crowd does not fit and is named; B, who stands behind it, stays in.
    commit(receiver_with({rule(crowd, {{kR, {80, 80}}}), for_b}), limits);
    EXPECT_DROP(in(a_to_r.tcp(22, kSyn)), "no-rule");
    EXPECT_RULE(in(b_to_r.tcp(22, kSyn)), 1);
    EXPECT_DROP(in(Packet{"100.80.0.1", kR}.tcp(80, kSyn)), "no-rule");
    ASSERT_EQ(warnings().size(), 1u);
    EXPECT_NE(warnings()[0].find("rule 1 does not fit"), std::string::npos) << warnings()[0];

    // Nothing fits, not even the addresses of the network: nothing passes, and that takes effect, too.
    limits.hosts = 1;
    commit(receiver_with({for_a, for_b}), limits);
    EXPECT_FALSE(in(b_to_r.tcp(22, kSyn)).passed);
    EXPECT_GT(warnings().size(), 0u);
}

TEST_F(Switch, APolicyTooLargeForTheMapsIsRefusedBeforeAnythingIsWritten) {
    commit(receiver());
    TableNumbers numbers;
    PolicyTables tables = compile_tables(receiver_with({}), numbers);
    tables.image.hosts.buckets.resize(1 << 20);
    auto refused = try_commit(tables);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ENOSPC);
    EXPECT_RULE(in(a_to_r.tcp(22, kSyn)), 0);
}

TEST_F(Switch, ManyChangesInARow) {
    for (int round = 0; round < 40; ++round) {
        std::uint16_t port = static_cast<std::uint16_t>(1000 + round * 7 % 50);
        FilterInput input = receiver_with({rule({round % 2 ? kA : kB}, {{kR, {port, port}}})});
        if (round % 3 == 0) input.rules.push_back(rule({"100.64.0.0/10"}, {{"10.33.0.0/16", {80, 90}}}));
        commit(input);
        SCOPED_TRACE(round);
        EXPECT_RULE(in((round % 2 ? a_to_r : b_to_r).tcp(port, kSyn)), 0);
        EXPECT_DROP(in((round % 2 ? b_to_r : a_to_r).tcp(port, kSyn)), "no-rule");
        EXPECT_DROP(in((round % 2 ? a_to_r : b_to_r).tcp(port + 1, kSyn)), "no-rule");
        Packet to_lan = Packet{kA, "10.33.1.1"}.tcp(85, kSyn);
        if (round % 3 == 0)
            EXPECT_RULE(in(to_lan), 1);
        else
            EXPECT_DROP(in(to_lan), "no-rule");
    }
}

TEST_F(Switch, PortRangesOverlapAsTheyLike) {
    commit(receiver_with({
        rule({kA}, {{kR, {100, 200}}, {kR, {150, 300}}, {kR, {65535, 65535}}, {kR, {0, 0}}}, {6}),
        rule({kA}, {{kR, {180, 190}}, {kR, {400, 65534}}}, {6, 17}),
        rule({kB}, {{kR, PortRange::all()}}, {6}),
    }));
    EXPECT_DROP(in(a_to_r.tcp(99, kSyn)), "no-rule");
    EXPECT_RULE(in(a_to_r.tcp(100, kSyn)), 0);
    EXPECT_RULE(in(a_to_r.tcp(185, kSyn)), 0); // the first that matches counts
    EXPECT_RULE(in(a_to_r.udp(185)), 1);
    EXPECT_RULE(in(a_to_r.tcp(300, kSyn)), 0);
    EXPECT_DROP(in(a_to_r.tcp(301, kSyn)), "no-rule");
    EXPECT_RULE(in(a_to_r.tcp(400, kSyn)), 1);
    EXPECT_RULE(in(a_to_r.tcp(65534, kSyn)), 1);
    EXPECT_RULE(in(a_to_r.tcp(65535, kSyn)), 0);
    EXPECT_RULE(in(a_to_r.tcp(0, kSyn)), 0);
    EXPECT_DROP(in(a_to_r.udp(65535)), "no-rule");
    EXPECT_RULE(in(b_to_r.tcp(1, kSyn)), 2);
    EXPECT_DROP(in(b_to_r.udp(1)), "no-rule");
}

TEST_F(Switch, TheFirstMatchingRuleIsTheOneThatCounts) {
    commit(receiver_with({
        rule({kA}, {{kR, {22, 22}}}, {6}),
        rule({"*"}, {{"*", PortRange::all()}}),
        rule({kA}, {{kR, {80, 80}}}, {6}),
    }));
    EXPECT_RULE(in(a_to_r.tcp(22, kSyn)), 0);
    EXPECT_RULE(in(a_to_r.tcp(80, kSyn)), 1);
    EXPECT_RULE(in(b_to_r.tcp(22, kSyn)), 1);
}

TEST_F(Switch, AnAddressBelongsToAllThePrefixesAroundIt) {
    commit(receiver_with({
        rule({"100.64.0.0/10"}, {{kR, {1, 1}}}),
        rule({"100.64.0.0/24"}, {{kR, {2, 2}}}),
        rule({"100.64.0.10-100.64.0.20"}, {{kR, {3, 3}}}),
        rule({"*"}, {{"10.33.0.0/16", {4, 4}}, {"10.33.1.0/24", {5, 5}}, {"10.33.1.5", {6, 6}}}),
    }));
    EXPECT_RULE(in(a_to_r.tcp(1, kSyn)), 0);
    EXPECT_RULE(in(a_to_r.tcp(2, kSyn)), 1);
    EXPECT_RULE(in(a_to_r.tcp(3, kSyn)), 2);
    EXPECT_DROP(in(Packet{"100.64.0.21", kR}.tcp(3, kSyn)), "no-rule");
    EXPECT_RULE(in(Packet{"100.64.0.20", kR}.tcp(3, kSyn)), 2);
    EXPECT_DROP(in(Packet{"100.64.1.1", kR}.tcp(2, kSyn)), "no-rule");
    EXPECT_RULE(in(Packet{"100.64.1.1", kR}.tcp(1, kSyn)), 0);
    for (std::uint16_t port : {4, 5, 6}) {
        EXPECT_RULE(in(Packet{kA, "10.33.1.5"}.tcp(port, kSyn)), 3);
        EXPECT_EQ(in(Packet{kA, "10.33.1.6"}.tcp(port, kSyn)).passed, port <= 5);
        EXPECT_EQ(in(Packet{kA, "10.33.2.6"}.tcp(port, kSyn)).passed, port <= 4);
    }
}

TEST_F(Switch, ASegmentedPacketCountsAsItsSegments) {
    commit(receiver());
    Outcome outcome = in(a_to_r.tcp(22, kAck).bytes(), 40);
    EXPECT_EQ(outcome.reason, "established");
    EXPECT_EQ(outcome.counted_packets, 40u);
}

TEST_F(Switch, SegmentsOfUnknownNumberAreEstimatedOnTheWayOut) {
    commit(receiver());
    auto counted = [&](std::size_t payload_bytes) {
        Bytes packet = Packet{kR6, kA6}.tcp(40000, 0x10, 443).bytes();
        packet[4] = static_cast<std::byte>((20 + payload_bytes) >> 8);
        packet[5] = static_cast<std::byte>(20 + payload_bytes);
        packet.resize(packet.size() + payload_bytes);
        auto count = [&] {
            for (const auto& [name, packets] : reason_counts())
                if (name == "out") return packets;
            return std::uint64_t{0};
        };
        const std::uint64_t before = count();
        EXPECT_EQ(run_program(programs().egress.get(), packet, 0, 0, 400).failed, 0);
        return count() - before;
    };
    EXPECT_EQ(counted(800), 2u);
    EXPECT_EQ(counted(1200), 3u);
    EXPECT_EQ(counted(1000), 3u);
    EXPECT_EQ(counted(300), 1u);
}

TEST_F(Switch, TenThousandRules) {
    FilterInput input = receiver_with({});
    for (int i = 0; i < 10000; ++i) {
        std::string source = "100." + std::to_string(70 + i / 65536) + "." + std::to_string(i / 256 % 256) + "." +
                             std::to_string(i % 256);
        std::uint16_t port = static_cast<std::uint16_t>(1000 + i % 500);
        input.rules.push_back(rule({source}, {{kR, {port, port}}}, {6}));
    }
    auto start = std::chrono::steady_clock::now();
    commit(input);
    auto took = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - start);
    RecordProperty("commit_ms", static_cast<int>(took.count()));
    EXPECT_RULE(in(Packet{"100.70.39.15", kR}.tcp(1499, kSyn)), 9999);
    EXPECT_DROP(in(Packet{"100.70.39.15", kR}.tcp(1498, kSyn)), "no-rule");
    EXPECT_RULE(in(Packet{"100.70.0.0", kR}.tcp(1000, kSyn)), 0);
}

} // namespace
} // namespace tailrace::test
