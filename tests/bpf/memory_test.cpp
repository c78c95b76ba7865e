// What is remembered between packets, and for how long: replies until they are evicted, verdicts never beyond a change.
#include "tests/bpf/packet_room.hpp"

namespace tailrace::test {
namespace {

/// With a small memory, so that a test can overrun it.
class Memory : public PacketRoom {
protected:
    static constexpr std::uint32_t kFlows = 1024;
    static constexpr const char* kLan = "10.33.1.5";

    std::map<std::string, std::uint32_t> map_sizes() const override {
        auto sizes = PacketRoom::map_sizes();
        sizes["tr_flows"] = kFlows / 8;
        return sizes;
    }
    static FilterInput strict(std::vector<FilterRule> rules) {
        FilterInput input = receiver_with(std::move(rules));
        input.strict_forwarded = input.strict_own = true;
        return input;
    }
    /// Many quick packets, without looking at the counters.
    void flood_in(const Packet& packet) { run_program(programs().policy.get(), packet.bytes()); }
    void flood_out(const Packet& packet) { run_program(programs().egress.get(), packet.bytes()); }
    /// So many other flows of ours that the older ones are surely forgotten.
    void overrun() {
        for (std::uint32_t i = 0; i < 16 * kFlows; ++i)
            for (int packet = 0; packet < 2; ++packet) // a flow of one packet drives no other out
                flood_out(Packet{kR, "100.64.3.3"}.udp(static_cast<std::uint16_t>(1000 + i), 53));
    }
    const Packet a_to_r{kA, kR}, b_to_r{kB, kR}, r_to_b{kR, kB}, a_to_lan{kA, kLan}, b_to_lan{kB, kLan},
        lan_to_b{kLan, kB};
};

/// Row 20 of the verdict table. Ours forgets approximately the least recently used.
TEST_F(Memory, ForgetsOldFlowsWhenItIsFull) {
    commit(receiver());
    out(r_to_b.udp(4000, 5000));
    EXPECT_PASS(in(b_to_r.udp(5000, 4000)), "reply");
    overrun();
    EXPECT_DROP(in(b_to_r.udp(5000, 4000)), "no-rule");
    out(r_to_b.udp(4000, 5000)); // the flow goes on when we speak again
    EXPECT_PASS(in(b_to_r.udp(5000, 4000)), "reply");
}

TEST_F(Memory, NoPeerCanFillIt) {
    commit(strict(receiver().rules));
    out(r_to_b.udp(4000, 5000));
    out(lan_to_b.tcp(80, kSyn, 5000));
    ASSERT_EQ(flows_remembered(), 2u);
    for (std::uint32_t i = 0; i < 8 * kFlows; ++i) {
        auto port = static_cast<std::uint16_t>(1000 + i);
        flood_in(a_to_r.udp(53, port)); // allowed
        flood_in(a_to_r.udp(port));     // not allowed
        flood_in(b_to_r.udp(5000, port));
        flood_in(a_to_lan.tcp(443, kAck, port));
        flood_in(b_to_lan.tcp(port, kSyn | kAck, port));
        flood_in(a_to_r.tcp(22, kSyn, port));
        flood_in(b_to_r.sctp(port, port));
        flood_in(a_to_r.udp(53, port).fragment(0, true, port));
    }
    EXPECT_EQ(flows_remembered(), 2u);
    EXPECT_PASS(in(b_to_r.udp(5000, 4000)), "reply");
    EXPECT_PASS(in(b_to_lan.tcp(5000, kSyn | kAck, 80)), "reply");
}

TEST_F(Memory, AFullMemoryStopsNoTcpThatThePolicyAllows) {
    commit(strict(receiver().rules));
    out(Packet{kLan, kA}.tcp(40000, kSyn | kAck, 443)); // the answer to A's connection
    out(lan_to_b.tcp(80, kSyn, 5000));                  // a connection to B that no rule allows the other way
    EXPECT_PASS(in(a_to_lan.tcp(443, kAck)), "reply");
    EXPECT_PASS(in(b_to_lan.tcp(5000, kAck, 80)), "reply");
    overrun();
    EXPECT_RULE(in(a_to_lan.tcp(443, kAck)), 2); // judged like a SYN
    EXPECT_DROP(in(b_to_lan.tcp(5000, kAck, 80)), "no-flow");
    EXPECT_DROP(in(b_to_lan.tcp(443, kAck)), "no-flow");
    out(lan_to_b.tcp(80, kAck, 5000)); // our next packet, and it goes on
    EXPECT_PASS(in(b_to_lan.tcp(5000, kAck, 80)), "reply");
}

/// The other router of the subnet takes over: it has seen nothing.
TEST_F(Memory, AFailOverStopsNoTcpThatThePolicyAllows) {
    commit(strict(receiver().rules));
    EXPECT_RULE(in(a_to_lan.tcp(443, kAck)), 2);
    EXPECT_RULE(in(a_to_lan.tcp(443, kFin | kAck)), 2);
    EXPECT_RULE(in(a_to_lan.tcp(443, kRst)), 2);
    EXPECT_RULE(in(Packet{kA, kR}.tcp(22, kAck)), 0);
    EXPECT_DROP(in(a_to_lan.tcp(80, kAck)), "no-flow");
    EXPECT_DROP(in(Packet{kA6, kR6}.tcp(23, kAck)), "no-flow");
    out(Packet{kLan, kA}.tcp(40000, kAck, 80)); // a connection from within goes on with its next packet
    EXPECT_PASS(in(a_to_lan.tcp(80, kAck)), "reply");
}

/// In the middle of flows that we never answered: each is warm, then the rule is gone, more than once (a table is used
/// again at every second change).
TEST_F(Memory, NoVerdictOutlivesARevocation) {
    FilterInput allowing = strict(receiver().rules);
    allowing.rules.push_back(rule({kA}, {{kLan, {53, 53}}}, {17}));
    const std::vector<std::pair<Packet, std::size_t>> flows = {
        {a_to_r.tcp(22, kAck), 0},
        {a_to_lan.tcp(443, kAck), 2},
        {a_to_r.tcp(22, kSyn), 0},
        {a_to_r.udp(53), 1},
        {Packet{"192.168.1.7", kLan}.udp(9), 3},
        {a_to_r.icmp(8), 0},
        {a_to_r.proto(47, 40), 4},
        {a_to_lan.udp(53).fragment(0, true, 3), 6},
        {Packet{kA6, kR6}.tcp(22, kAck), 0},
    };
    Packet tail = a_to_lan.proto(17, 64).fragment(20, false, 3);
    for (int round = 0; round < 4; ++round) {
        SCOPED_TRACE(round);
        commit(allowing);
        for (int repeat = 0; repeat < 3; ++repeat)
            for (const auto& [packet, index] : flows) EXPECT_RULE(in(packet), index);
        EXPECT_PASS(in(tail), "fragment");
        commit(strict({rule({kB}, {{kR, PortRange::all()}})}));
        for (const auto& [packet, index] : flows) EXPECT_FALSE(in(packet).passed);
        EXPECT_DROP(in(tail), "no-first-fragment");
        for (const auto& [packet, index] : flows) EXPECT_FALSE(in(packet).passed);
    }
}

/// As with the reference client, which keeps no state of TCP and keeps that of UDP: what we still answer to goes on.
TEST_F(Memory, ARevocationCutsNoFlowThatWeAnswered) {
    commit(strict(receiver().rules));
    EXPECT_RULE(in(a_to_r.udp(53, 6000)), 1);
    out(Packet{kR, kA}.udp(6000, 53));
    EXPECT_RULE(in(a_to_lan.tcp(443, kSyn)), 2);
    out(Packet{kLan, kA}.tcp(40000, kSyn | kAck, 443));
    commit(strict({}));
    EXPECT_PASS(in(a_to_r.udp(53, 6000)), "reply");
    EXPECT_PASS(in(a_to_lan.tcp(443, kAck)), "reply");
    EXPECT_DROP(in(a_to_r.udp(53, 6001)), "no-rule");
    EXPECT_DROP(in(a_to_lan.tcp(443, kSyn)), "no-rule"); // a new connection is new
    EXPECT_DROP(in(a_to_lan.tcp(443, kAck, 40001)), "no-flow");
}

TEST_F(Memory, LaterFragmentsFollowTheirFirstInBothFamiliesAndForBothSettings) {
    FilterInput input = receiver_with({rule({kA, kA6}, {{kR, {53, 53}}, {kR6, {53, 53}}}, {17})});
    Packet tail = a_to_r.proto(17, 64), tail6 = Packet{kA6, kR6}.proto(17, 64);
    commit(input);
    EXPECT_PASS(in(tail.fragment(20, false, 1)), "fragment"); // not strict: receivers drop what has no first
    EXPECT_PASS(in(tail6.fragment(20, false, 1)), "fragment");
    input.strict_own = true;
    commit(input);
    EXPECT_DROP(in(tail.fragment(20, false, 1)), "no-first-fragment");
    EXPECT_DROP(in(tail6.fragment(20, false, 1)), "no-first-fragment");
    EXPECT_RULE(in(a_to_r.udp(53).fragment(0, true, 1)), 0);
    EXPECT_RULE(in(Packet{kA6, kR6}.udp(53).fragment(0, true, 0x12345678)), 0);
    EXPECT_PASS(in(tail.fragment(20, false, 1)), "fragment");
    EXPECT_PASS(in(tail6.fragment(20, false, 0x12345678)), "fragment");
    EXPECT_DROP(in(tail6.fragment(20, false, 0x02345678)), "no-first-fragment");
    EXPECT_DROP(in(a_to_r.proto(6, 64).fragment(20, false, 1)), "no-first-fragment"); // of another protocol
    // A reply in fragments is as good as a rule.
    out(r_to_b.udp(4000, 5000));
    EXPECT_PASS(in(b_to_r.udp(5000, 4000).fragment(0, true, 9)), "reply");
    EXPECT_PASS(in(b_to_r.proto(17, 64).fragment(20, false, 9)), "fragment");
}

} // namespace
} // namespace tailrace::test
