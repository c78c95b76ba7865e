// What the strict settings add to the reference verdicts.
#include "tests/bpf/packet_room.hpp"

namespace tailrace::test {
namespace {

class Strict : public PacketRoom {
protected:
    static constexpr const char* kLan = "10.33.1.5";

    FilterInput strict(std::vector<FilterRule> rules) const {
        FilterInput input = receiver_with(std::move(rules));
        input.strict_forwarded = true;
        return input;
    }
    const Packet a_to_lan{kA, kLan}, b_to_lan{kB, kLan}, lan_to_b{kLan, kB};
};

TEST_F(Strict, AnUnknownFlowIsJudgedLikeASyn) {
    commit(strict(receiver().rules));
    EXPECT_RULE(in(a_to_lan.tcp(443, kAck)), 2); // after a fail-over: the policy allows it, so nothing breaks
    EXPECT_DROP(in(a_to_lan.tcp(80, kAck)), "no-flow");
    EXPECT_DROP(in(b_to_lan.tcp(80, kAck)), "no-flow");
    EXPECT_DROP(in(b_to_lan.tcp(80, kRst)), "no-flow");
    EXPECT_DROP(in(b_to_lan.tcp(80, kSyn | kAck)), "no-flow");
    EXPECT_DROP(in(b_to_lan.tcp(80, kSyn)), "no-rule");
}

TEST_F(Strict, AnswersToOurFlowsPass) {
    commit(strict(receiver().rules));
    out(lan_to_b.tcp(80, kSyn, 5000));
    EXPECT_PASS(in(b_to_lan.tcp(5000, kSyn | kAck, 80)), "reply");
    EXPECT_PASS(in(b_to_lan.tcp(5000, kAck, 80)), "reply");
    EXPECT_DROP(in(b_to_lan.tcp(5001, kAck, 80)), "no-flow");
    EXPECT_DROP(in(b_to_lan.tcp(5000, kSyn, 80)), "no-rule"); // a flow of the peer's own is not an answer
}

TEST_F(Strict, AFlowThatWeSeeInTheMiddleIsKnown) {
    commit(strict(receiver().rules));
    out(lan_to_b.tcp(80, kAck, 5000));
    EXPECT_PASS(in(b_to_lan.tcp(5000, kAck, 80)), "reply");
}

TEST_F(Strict, AResetMakesNoFlow) {
    commit(strict(receiver().rules));
    out(lan_to_b.tcp(4000, kRst | kAck, 80));
    EXPECT_DROP(in(b_to_lan.tcp(80, kAck, 4000)), "no-flow");
}

TEST_F(Strict, AnswersPassAfterAPolicyChange) {
    commit(strict(receiver().rules));
    out(lan_to_b.tcp(80, kSyn, 5000));
    commit(strict({}));
    EXPECT_PASS(in(b_to_lan.tcp(5000, kAck, 80)), "reply");
}

TEST_F(Strict, OurOwnAddressesHaveASettingOfTheirOwn) {
    commit(strict(receiver().rules));
    EXPECT_PASS(in(Packet{kB, kR}.tcp(22, kAck)), "established");
    FilterInput input = strict(receiver().rules);
    input.strict_own = true;
    commit(input);
    EXPECT_DROP(in(Packet{kB, kR}.tcp(22, kAck)), "no-flow");
    EXPECT_RULE(in(Packet{kA, kR}.tcp(22, kAck)), 0);
    EXPECT_PASS(in(Packet{kB, kR}.tcp(kPeerApi, kSyn)), "peerapi");
    out(Packet{kR, kB}.tcp(kPeerApi, kSyn | kAck, kPeerApi));
    EXPECT_EQ(out(Packet{kR, kB}.tcp(40000, kSyn | kAck, kPeerApi)).reason, "out");
    EXPECT_PASS(in(Packet{kB, kR}.tcp(kPeerApi, kAck)), "reply");
    out(Packet{kR6, kB6}.tcp(443, kSyn, 5000));
    EXPECT_PASS(in(Packet{kB6, kR6}.tcp(5000, kSyn | kAck, 443)), "reply");
}

TEST_F(Strict, LaterFragmentsFollowTheirFirst) {
    commit(strict({rule({kA}, {{kLan, {53, 53}}}, {17})}));
    Packet tail = a_to_lan.proto(17, 64);
    EXPECT_DROP(in(tail.fragment(20, false, 11)), "no-first-fragment");
    EXPECT_RULE(in(a_to_lan.udp(53).fragment(0, true, 11)), 0);
    EXPECT_PASS(in(tail.fragment(20, true, 11)), "fragment");
    EXPECT_PASS(in(tail.fragment(40, false, 11)), "fragment");
    EXPECT_DROP(in(tail.fragment(20, false, 12)), "no-first-fragment");
    EXPECT_DROP(in(a_to_lan.udp(54).fragment(0, true, 13)), "no-rule");
    EXPECT_DROP(in(tail.fragment(20, false, 13)), "no-first-fragment");
    EXPECT_DROP(in(b_to_lan.proto(17, 64).fragment(20, false, 11)), "no-first-fragment");
    EXPECT_DROP(in(Packet{kA, "10.34.0.1"}.proto(17, 64).fragment(20, false, 11)), "not-local");
    EXPECT_PASS(in(Packet{kB, kR}.proto(17, 64).fragment(20, false, 11)), "fragment"); // our own address: not strict
}

TEST_F(Strict, NoFragmentOutlivesARevocation) {
    commit(strict({rule({kA}, {{kLan, {53, 53}}}, {17})}));
    EXPECT_RULE(in(a_to_lan.udp(53).fragment(0, true, 11)), 0);
    commit(strict({}));
    EXPECT_DROP(in(a_to_lan.proto(17, 64).fragment(20, false, 11)), "no-first-fragment");
}

} // namespace
} // namespace tailrace::test
