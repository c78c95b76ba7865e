// Beside the rows of the reference's table: what they imply for other families, nets and settings.
#include "tests/bpf/packet_room.hpp"

namespace tailrace::test {
namespace {

class MoreVerdicts : public PacketRoom {
protected:
    static constexpr const char* kLan = "10.33.1.5";

    const PortRange any = PortRange::all();
    const Packet a_to_r{kA, kR}, b_to_r{kB, kR}, a6_to_r6{kA6, kR6}, b6_to_r6{kB6, kR6};

    static PeerFacts peer(const char* address, std::vector<const char*> allowed, bool jailed) {
        PeerFacts facts;
        facts.addresses = {*IpAddress::parse(address)};
        for (const char* prefix : allowed) facts.allowed_ips.push_back(*IpPrefix::parse(prefix));
        facts.jailed = jailed;
        return facts;
    }
    static FilterInput strict(FilterInput input) {
        input.strict_forwarded = input.strict_own = true;
        return input;
    }
    FilterInput dual_stack_router(std::vector<FilterRule> rules) const {
        FilterInput input = receiver_with(std::move(rules));
        input.local_nets.push_back(*IpPrefix::parse("2001:db8:7::/48"));
        return input;
    }
};

TEST_F(MoreVerdicts, PeerApiIsOneTcpPortOfOurs) {
    commit(receiver());
    EXPECT_PASS(in(b_to_r.tcp(kPeerApi, kSyn)), "peerapi");
    EXPECT_DROP(in(Packet{kB, kLan}.tcp(kPeerApi, kSyn)), "no-rule");
    EXPECT_DROP(in(b_to_r.udp(kPeerApi)), "no-rule");
    FilterInput without = receiver();
    without.peer_api4 = without.peer_api6 = 0;
    commit(without);
    EXPECT_DROP(in(b_to_r.tcp(kPeerApi, kSyn)), "no-rule");
    EXPECT_DROP(in(b_to_r.tcp(0, kSyn)), "no-rule");
}

TEST_F(MoreVerdicts, NothingComesFromTheServiceAddressesOrGoesToThem) {
    constexpr const char *kService = "100.100.100.100", *kService6 = "fd7a:115c:a1e0::53";
    FilterInput input = receiver_with({rule({"*"}, {{"*", any}}, {})});
    commit(input);
    EXPECT_PASS(in(Packet{kService, kR}.udp(53)), "rule"); // as any address of the tailnet's ranges
    EXPECT_DROP(in(Packet{kA, kService}.udp(53)), "not-local");
    EXPECT_DROP(in(Packet{kA6, kService6}.udp(53)), "not-local");
    for (const char* address : {kService, kService6}) input.never_sources.push_back(*IpAddress::parse(address));
    commit(input);
    for (const Packet& packet : {Packet{kService, kR}, Packet{kService6, kR6}}) {
        EXPECT_DROP(in(packet.udp(53)), "no-rule");
        EXPECT_DROP(in(packet.tcp(80, kSyn)), "no-rule");
    }
    EXPECT_DROP(in(Packet{kService, kR}.icmp(8)), "no-rule");
    EXPECT_DROP(in(Packet{kService6, kR6}.icmp(128)), "no-rule");
    EXPECT_PASS(in(a_to_r.udp(53)), "rule");
}

TEST_F(MoreVerdicts, ShieldsLeaveNoRule) {
    FilterInput input = receiver();
    input.shields_up = true;
    commit(input);
    EXPECT_DROP(in(a_to_r.udp(53)), "shields-up");
    EXPECT_DROP(in(a_to_r.icmp(8)), "shields-up");
    EXPECT_DROP(in(a_to_r.proto(47, 8)), "shields-up");
    EXPECT_PASS(in(a_to_r.icmp(3, 1)), "icmp-reply");
    EXPECT_PASS(in(a_to_r.proto(99, 8)), "tsmp");
    EXPECT_EQ(out(Packet{kR, kA}.udp(53, 5000)).reason, "out");
    EXPECT_PASS(in(a_to_r.udp(5000, 53)), "reply");
}

TEST_F(MoreVerdicts, IcmpErrorsAboutOurFlowsPassInBothFamilies) {
    for (const FilterInput& input : {receiver_with({}), strict(receiver_with({}))}) {
        commit(input);
        // The error quotes the packet that it is about, from the router on the way: not from its destination.
        Bytes quoted = Packet{kR, "100.64.0.99"}.udp(53, 5000).bytes();
        for (std::uint8_t type : {3, 11, 12}) {
            Bytes error = b_to_r.icmp(type, 1).bytes();
            error.insert(error.end(), quoted.begin(), quoted.end());
            error[3] = static_cast<std::byte>(error.size());
            EXPECT_PASS(in(error), "icmp-reply") << int{type};
        }
        for (std::uint8_t type : {1, 2, 3, 4}) EXPECT_PASS(in(b6_to_r6.icmp(type)), "icmp-reply") << int{type};
        for (std::uint8_t type : {4, 5, 13, 17}) EXPECT_DROP(in(b_to_r.icmp(type)), "no-rule") << int{type};
        for (std::uint8_t type : {5, 128, 133, 134, 135, 136, 137}) EXPECT_DROP(in(b6_to_r6.icmp(type)), "no-rule");
        EXPECT_DROP(in(b_to_r.icmp(0).cut_transport(7)), "no-rule"); // no whole header: not known to be a reply
        EXPECT_DROP(in(b_to_r.icmp(3).cut_transport(7)), "no-rule");
        EXPECT_PASS(in(b6_to_r6.icmp(129)), "icmp-reply");
        EXPECT_DROP(in(b6_to_r6.icmp(129, 1)), "no-rule");
    }
}

TEST_F(MoreVerdicts, PathMtuMessagesPassToWhomeverTheyConcern) {
    for (FilterInput input : {dual_stack_router({}), strict(dual_stack_router({}))}) {
        for (bool shields : {false, true}) {
            input.shields_up = shields;
            commit(input);
            EXPECT_PASS(in(b_to_r.icmp(3, 4)), "icmp-reply"); // fragmentation needed
            EXPECT_PASS(in(Packet{kB, kLan}.icmp(3, 4)), "icmp-reply");
            EXPECT_PASS(in(b6_to_r6.icmp(2)), "icmp-reply"); // packet too big
            EXPECT_PASS(in(Packet{kB6, "2001:db8:7::5"}.icmp(2)), "icmp-reply");
            EXPECT_DROP(in(Packet{kB, "10.34.1.5"}.icmp(3, 4)), "not-local");
        }
    }
}

TEST_F(MoreVerdicts, IcmpOfTheOtherFamilyIsAnotherProtocol) {
    commit(receiver_with({rule({kA, kA6}, {{kR, any}, {kR6, any}})}));
    EXPECT_RULE(in(a_to_r.proto(58, 8)), 0);
    EXPECT_RULE(in(a6_to_r6.proto(1, 8)), 0);
    EXPECT_DROP(in(b_to_r.proto(58, 8)), "no-rule");
}

TEST_F(MoreVerdicts, SubnetsOfBothFamiliesBehindUs) {
    commit(dual_stack_router({
        rule({kA, kA6}, {{"10.33.0.0/16", {443, 443}}, {"2001:db8:7::/48", {443, 443}}}),
        rule({"192.168.1.0/24"}, {{"10.33.7.0-10.33.8.255", any}}),
    }));
    EXPECT_RULE(in(Packet{kA6, "2001:db8:7::5"}.tcp(443, kSyn)), 0);
    EXPECT_DROP(in(Packet{kA6, "2001:db8:7::5"}.tcp(80, kSyn)), "no-rule");
    EXPECT_DROP(in(Packet{kA6, "2001:db8:8::5"}.tcp(443, kSyn)), "not-local");
    EXPECT_RULE(in(Packet{"192.168.1.255", "10.33.8.255"}.udp(9)), 1);
    EXPECT_DROP(in(Packet{"192.168.1.255", "10.33.9.0"}.udp(9)), "no-rule");
    EXPECT_DROP(in(Packet{"192.168.2.0", "10.33.8.255"}.udp(9)), "no-rule");
    EXPECT_DROP(in(Packet{"192.168.1.1", kR}.udp(9)), "no-rule");
}

/// A router may send as anybody behind it: each address is judged as itself, whoever its router is.
TEST_F(MoreVerdicts, APeerMayUseAllItsAllowedIps) {
    FilterInput input = receiver_with({
        rule({"192.168.1.7"}, {{kR, {22, 22}}}),
        rule({"100.64.0.13"}, {{kR, {80, 80}}}),
    });
    commit(input);
    EXPECT_RULE(in(Packet{"192.168.1.7", kR}.tcp(22, kSyn)), 0);
    EXPECT_DROP(in(Packet{"192.168.1.8", kR}.tcp(22, kSyn)), "no-rule");
    EXPECT_DROP(in(Packet{"192.168.1.7", kR}.tcp(80, kSyn)), "no-rule"); // not as the router that sent it
    EXPECT_RULE(in(Packet{"100.64.0.13", kR}.tcp(80, kSyn)), 1);

    // Who is jailed follows WireGuard's table: the longest prefix around a source is the one that sent it.
    input.rules = {rule({"*"}, {{kR, any}})};
    input.peers.push_back(peer(kJailed, {"100.64.0.50/32", "192.168.0.0/16", "192.168.1.64/26"}, true));
    commit(input);
    EXPECT_DROP(in(Packet{"192.168.2.7", kR}.tcp(22, kSyn)), "jailed");
    EXPECT_RULE(in(Packet{"192.168.1.7", kR}.tcp(22, kSyn)), 0);
    EXPECT_DROP(in(Packet{"192.168.1.64", kR}.tcp(22, kSyn)), "jailed");
    EXPECT_RULE(in(Packet{"192.168.1.128", kR}.tcp(22, kSyn)), 0);
    input.peers.push_back(peer("100.64.0.51", {"192.168.1.0/24"}, true)); // C has it already
    commit(input);
    EXPECT_RULE(in(Packet{"192.168.1.7", kR}.tcp(22, kSyn)), 0);
}

TEST_F(MoreVerdicts, LoopbackNeverPasses) {
    FilterInput advertised = receiver_with({rule({"*"}, {{"*", any}})});
    for (FilterInput input : {exit_node({rule({"*"}, {{"*", any}})}), advertised, strict(advertised)}) {
        commit(input);
        for (const char* loopback : {"127.0.0.1", "127.255.255.255"}) {
            EXPECT_DROP(in(Packet{kA, loopback}.tcp(22, kSyn)), "not-local");
            EXPECT_DROP(in(Packet{kA, loopback}.tcp(22, kAck)), "not-local");
            EXPECT_DROP(in(Packet{kA, loopback}.udp(53)), "not-local");
            EXPECT_DROP(in(Packet{kA, loopback}.icmp(0)), "not-local");
            EXPECT_DROP(in(Packet{kA, loopback}.proto(99, 8)), "not-local");
        }
        EXPECT_DROP(in(Packet{kA6, "::1"}.tcp(22, kSyn)), "not-local");
        EXPECT_DROP(in(Packet{kA6, "::1"}.icmp(129)), "not-local");
    }
}

TEST_F(MoreVerdicts, LinkLocalPassesOnlyWhereTheTableSaysSo) {
    FilterInput input = receiver_with({rule({"*"}, {{"*", any}})});
    input.local_nets.push_back(*IpPrefix::parse("169.254.0.0/16"));
    input.local_nets.push_back(*IpPrefix::parse("fe80::/10"));
    commit(input);
    EXPECT_RULE(in(Packet{kA, "169.254.169.254"}.udp(53)), 0);
    for (const char* address : {"169.254.0.0", "169.254.169.253", "169.254.169.255", "169.254.255.255"})
        EXPECT_DROP(in(Packet{kA, address}.udp(53)), "link-local") << address;
    EXPECT_DROP(in(Packet{kA, "169.254.1.1"}.icmp(0)), "link-local");
    EXPECT_DROP(in(Packet{kA, "169.254.1.1"}.proto(17, 64).fragment(100, false)), "link-local");
    EXPECT_DROP(in(Packet{kA6, "febf::1"}.udp(53)), "link-local");
    EXPECT_DROP(in(Packet{kA6, "fec0::1"}.udp(53)), "not-local");
    commit(receiver_with({rule({"*"}, {{"*", any}})}));
    EXPECT_DROP(in(Packet{kA, "169.254.169.254"}.udp(53)), "not-local"); // not advertised
}

TEST_F(MoreVerdicts, FragmentsThatCouldHideAHeader) {
    commit(receiver());
    Packet tail = b_to_r.proto(17, 64), tail6 = b6_to_r6.proto(17, 64);
    for (std::uint16_t blocks = 1; blocks < 10; ++blocks) {
        EXPECT_DROP(in(tail.fragment(blocks, true)), "bad-fragment") << blocks;
        EXPECT_DROP(in(tail6.fragment(blocks, false)), "bad-fragment") << blocks;
    }
    EXPECT_PASS(in(tail.fragment(0x1fff, false)), "fragment");
    EXPECT_PASS(in(tail6.fragment(0x1fff, true)), "fragment");
    EXPECT_DROP(in(a6_to_r6.tcp(22, kSyn).cut_transport(19).fragment(0, true)), "truncated");
    EXPECT_DROP(in(b6_to_r6.udp(53).fragment(0, true)), "no-rule");
}

TEST_F(MoreVerdicts, OutboundOfIpv6) {
    commit(receiver());
    EXPECT_EQ(out(Packet{kR6, "ff02::2"}.icmp(133)).reason, "out-multicast");
    EXPECT_EQ(out(Packet{kR6, "fe80::1"}.icmp(128)).reason, "out-link-local");
    EXPECT_EQ(out(Packet{kR6, kB6}.udp(4000, 5000)).reason, "out");
    EXPECT_PASS(in(b6_to_r6.udp(5000, 4000)), "reply");
    EXPECT_DROP(in(b6_to_r6.udp(5000, 4001)), "no-rule");
    EXPECT_DROP(in(b6_to_r6.sctp(5000, 4000)), "no-rule"); // another protocol is another flow
}

TEST_F(MoreVerdicts, OnlyTheAgentSpeaksTsmp) {
    commit(receiver());
    EXPECT_EQ(out(Packet{kR, kA}.proto(99, 20), 0x80000).reason, "out");
    EXPECT_EQ(out(Packet{kR, kA}.proto(99, 20), 0x40000).reason, "out-tsmp");
}

TEST_F(MoreVerdicts, ACapabilityIsOfOnePeer) {
    FilterInput input = receiver_with({rule({"cap:foo"}, {{kR, {22, 22}}})});
    input.peers[0].caps = {"foo"};
    commit(input);
    EXPECT_RULE(in(a_to_r.tcp(22, kSyn)), 0);
    EXPECT_DROP(in(a_to_r.tcp(23, kSyn)), "no-rule");
    EXPECT_DROP(in(b_to_r.tcp(22, kSyn)), "no-rule");
    EXPECT_DROP(in(b_to_r.icmp(8)), "no-rule");
    EXPECT_DROP(in(a6_to_r6.icmp(128)), "no-rule"); // the rule has no destination of that family
    // The capability counts for ICMP to wherever, also where the rule names the source by address too.
    input.rules[0].src_ips.push_back(kA);
    commit(input);
    EXPECT_RULE(in(Packet{kA, kLan}.icmp(8)), 0);
    EXPECT_DROP(in(Packet{kA, kLan}.tcp(22, kSyn)), "no-rule");
}

TEST_F(MoreVerdicts, NothingPassesBeforeTheFirstPolicy) {
    EXPECT_DROP(in(a_to_r.tcp(22, kAck)), "no-policy");
    EXPECT_DROP(in(a_to_r.icmp(0)), "no-policy");
    EXPECT_DROP(in(a_to_r.proto(17, 64).fragment(100, false)), "no-policy");
    EXPECT_EQ(out(Packet{kR, kA}.udp(53)).reason, "out");
}

TEST_F(MoreVerdicts, WhatIsSkippedIsNamed) {
    FilterInput input = receiver();
    input.rules[0].src_ips.push_back("10.0.0.1/8");
    commit(input);
    EXPECT_EQ(warnings().size(), 1u);
    input = receiver_with({rule({"100.64.0.0/10"}, {{kR, any}})});
    input.peers[1].unsigned_peer_api_only = true;
    commit(input);
    EXPECT_EQ(warnings().size(), 1u);
}

/// No port is in it, but ICMP asks for no port.
TEST_F(MoreVerdicts, APortRangeTheWrongWayRound) {
    commit(receiver_with({rule({kA}, {{kR, {90, 80}}}), rule({kA}, {{kR, {81, 81}}})}));
    EXPECT_RULE(in(a_to_r.icmp(8)), 0);
    EXPECT_DROP(in(a_to_r.tcp(80, kSyn)), "no-rule");
    EXPECT_DROP(in(a_to_r.tcp(90, kSyn)), "no-rule");
    EXPECT_RULE(in(a_to_r.tcp(81, kSyn)), 1);
    EXPECT_DROP(in(a_to_r.tcp(82, kSyn)), "no-rule");
}

TEST_F(MoreVerdicts, CountersOfRulesCountSegmentsAndGoOnThroughChangesOfThePolicy) {
    FilterInput input = receiver();
    commit(input);
    auto start = rule_counts();
    Packet ssh = Packet{kA, kR}.tcp(22, kSyn);
    in(ssh.bytes(), 5);
    EXPECT_EQ(rule_counts()[0] - start[0], 5u);
    for (int flips = 0; flips < 3; ++flips) {
        input.rules.insert(input.rules.begin(), rule({kB}, {{kR, {std::uint16_t(100 + flips), 200}}}));
        commit(input);
        std::uint64_t new_rule = rule_counts()[0];
        in(ssh);
        EXPECT_EQ(rule_counts()[input.rules.size() - receiver().rules.size()] - start[0], 6u + std::uint64_t(flips))
            << "the same rule further down";
        EXPECT_EQ(rule_counts()[0], new_rule) << "a new rule has a counter of its own";
    }
}

} // namespace
} // namespace tailrace::test
