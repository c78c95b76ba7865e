// The verdicts of the reference client: its table of edge cases row by row, strict settings off. Two rows are tested
// where they happen: 20 in memory_test.cpp (our memory is larger, and forgets approximately), 55 in
// tests/lab/scenarios/spoofing.py (WireGuard refuses, the programs never see it). 98 is about who answers at
// 100.100.100.100, the address of MagicDNS, which packets of this host reach without the tunnel:
// tests/netns/test_dns.py; that peers do not reach it is in more_verdicts_test.cpp.
#include "tests/bpf/packet_room.hpp"

#include <functional>
#include <set>

namespace tailrace::test {
namespace {

using Room = PacketRoom;

struct Expected {
    bool passes;
    std::string reason;
    std::optional<std::size_t> rule; ///< index
};
Expected by_rule(std::size_t rule) {
    return {true, "rule", rule};
}
Expected accept(const char* reason) {
    return {true, reason, std::nullopt};
}
Expected drop(const char* reason) {
    return {false, reason, std::nullopt};
}

enum class Way { In, Out };

struct Row {
    const char* number;
    const char* what;
    std::vector<Bytes> packets; ///< each on its own
    Expected expected;
    std::optional<FilterInput> filter = Room::receiver(); ///< none: before the first
    std::vector<Bytes> sent_before = {};                  ///< by R, under `filter`
    std::optional<FilterInput> then = std::nullopt;       ///< committed after that
    Way way = Way::In;
};

constexpr PortRange kAny = PortRange::all();
const auto kA = Room::kA, kA6 = Room::kA6, kB = Room::kB, kB6 = Room::kB6, kR = Room::kR, kR6 = Room::kR6;

FilterInput with(std::vector<FilterRule> rules) {
    return Room::receiver_with(std::move(rules));
}
/// One rule of one destination.
FilterInput with(std::string source, std::string destination, PortRange ports, std::vector<int> protos = {}) {
    return with({Room::rule({std::move(source)}, {{std::move(destination), ports}}, std::move(protos))});
}
FilterInput exit_for_all() {
    return Room::exit_node({Room::rule({"*"}, {{"*", kAny}})});
}
FilterInput changed(FilterInput input, const std::function<void(FilterInput&)>& change) {
    change(input);
    return input;
}
FilterInput shields_up() {
    return changed(Room::receiver(), [](FilterInput& input) { input.shields_up = true; });
}
/// Everybody may everything, but J is jailed (or not).
FilterInput with_j(bool jailed, std::vector<FilterRule> rules = {Room::rule({"*"}, {{"*", kAny}})}) {
    return changed(with(std::move(rules)), [&](FilterInput& input) {
        PeerFacts j;
        j.addresses = {*IpAddress::parse(Room::kJailed)};
        j.allowed_ips = {IpPrefix::single(j.addresses[0])};
        j.jailed = jailed;
        input.peers.push_back(j);
    });
}
FilterInput a_has_foo(std::vector<int> protos, PortRange ports) {
    return changed(with("cap:foo", kR, ports, std::move(protos)),
                   [](FilterInput& input) { input.peers[0].caps = {"foo"}; });
}
FilterInput metadata_advertised() {
    return changed(with(kA, "169.254.169.254", {53, 53}),
                   [](FilterInput& input) { input.local_nets.push_back(*IpPrefix::parse("169.254.169.254/32")); });
}

Bytes cut(Bytes packet, std::size_t bytes) {
    packet.resize(bytes);
    return packet;
}

std::vector<Row> rows() {
    const Packet a_r{kA, kR}, b_r{kB, kR}, a_r6{kA6, kR6}, b_r6{kB6, kR6}, j_r{Room::kJailed, kR}, r_b{kR, kB};
    const auto to = [](const char* from, const char* dst) { return Packet{from, dst}; };
    const Packet a_lan = to(kA, "10.33.1.5"), b_lan = to(kB, "10.33.1.5");
    const Bytes r_b_udp = r_b.udp(4000, 5000).bytes(), reply = b_r.udp(5000, 4000).bytes();
    const Packet tail = b_r.proto(17, 64);
    const Expected no_rule = drop("no-rule"), not_local = drop("not-local"), established = accept("established");
    const std::uint8_t syn_ack = kSyn | kAck, odd = kFin | kPsh | kUrg, ecn_syn = kSyn | kEce | kCwr;
    const auto bytes = [](const Packet& packet) { return std::vector<Bytes>{packet.bytes()}; };

    return {
        {"1", "SynThatARuleAllows", bytes(a_r.tcp(22, kSyn)), by_rule(0)},
        {"2", "SynToAClosedPort", bytes(a_r.tcp(23, kSyn)), no_rule},
        {"3", "SynAckWithoutState", bytes(a_r.tcp(23, syn_ack)), established},
        {"4", "AckNeedsNoRule", bytes(b_r.tcp(22, kAck)), established},
        {"5", "RstNeedsNoRule", bytes(b_r.tcp(9, kRst)), established},
        {"6", "FinPshUrg", bytes(b_r.tcp(9, odd)), established},
        {"7", "NoFlagsAtAll", bytes(b_r.tcp(22, 0)), established},
        {"8", "SynFinIsASyn", bytes(a_r.tcp(23, kSyn | kFin)), no_rule},
        {"9", "OnlySynAndAckAreTested", bytes(a_r.tcp(22, ecn_syn)), by_rule(0)},
        {"10", "SynByIpv6", bytes(a_r6.tcp(22, kSyn)), by_rule(0)},
        {"11",
         "PeerApi",
         {b_r.tcp(Room::kPeerApi, kSyn).bytes(), b_r6.tcp(Room::kPeerApi, kSyn).bytes()},
         accept("peerapi")},
        {"12", "PeerApiBehindShields", bytes(b_r.tcp(Room::kPeerApi, kSyn)), accept("peerapi"), shields_up()},
        {"13", "SynAgainstShields", bytes(a_r.tcp(22, kSyn)), drop("shields-up"), shields_up()},
        {"14", "AckAgainstShields", bytes(a_r.tcp(22, kAck)), established, shields_up()},
        {"15", "UdpByRule", bytes(a_r.udp(53)), by_rule(1)},
        {"16", "DefaultProtocolsHoldUdp", bytes(a_r.udp(22)), by_rule(0)},
        {"17", "AUdpRuleIsNotForTcp", bytes(a_r.tcp(53, kSyn)), no_rule},
        {"18", "UdpReply", {reply}, accept("reply"), Room::receiver(), {r_b_udp}},
        {"19",
         "PortsOfARepliesMustMatch",
         {b_r.udp(5000, 4001).bytes(), b_r.udp(5001, 4000).bytes()},
         no_rule,
         Room::receiver(),
         {r_b_udp}},
        // The memory holds no time: an hour later is the same as at once.
        {"21", "ThereIsNoTimeOut", {reply, reply}, accept("reply"), Room::receiver(), {r_b_udp}},
        {"22", "MemorySurvivesAPolicy", {reply}, accept("reply"), Room::receiver(), {r_b_udp}, with({})},
        {"23", "MemoryDoesNotSurviveShields", {reply}, drop("shields-up"), Room::receiver(), {r_b_udp}, shields_up()},
        {"24", "SctpIsNoDefault", bytes(a_r.sctp(22)), no_rule},
        {"25", "SctpByRule", bytes(a_r.sctp(22)), by_rule(0), with(kA, kR, {22, 22}, {132})},
        {"26", "SctpReply", bytes(b_r.sctp(5000, 4000)), accept("reply"), Room::receiver(),
         bytes(r_b.sctp(4000, 5000))},
        {"27", "EchoRequest", bytes(a_r.icmp(8)), by_rule(0)},
        {"28", "IcmpIgnoresPortsAndProtocols", bytes(a_r.icmp(8)), by_rule(0), with(kA, kR, {53, 53}, {17})},
        {"29", "ACapabilityGrantLetsNothingIn", bytes(b_r.icmp(8)), no_rule, with({Room::receiver().rules[5]})},
        {"30", "EchoReply", bytes(b_r.icmp(0)), accept("icmp-reply")},
        {"31", "EchoReplyWithACode", bytes(b_r.icmp(0, 5)), no_rule},
        {"32",
         "IcmpErrors",
         {b_r.icmp(3, 1).bytes(), b_r.icmp(11).bytes(), b_r.icmp(12).bytes()},
         accept("icmp-reply")},
        {"33", "RedirectIsNoError", bytes(b_r.icmp(5)), no_rule},
        {"34", "TimestampByRule", bytes(a_r.icmp(13)), by_rule(0)},
        {"35", "PacketTooBig", bytes(b_r6.icmp(2)), accept("icmp-reply")},
        {"36", "NeighbourSolicitation", bytes(b_r6.icmp(135)), no_rule},
        {"37", "EchoByARuleForTheOtherIcmp", bytes(a_r6.icmp(128)), by_rule(0), with(kA6, kR6, {22, 22}, {1})},
        {"38", "Icmp6InIpv4", bytes(a_r.proto(58, 8)), no_rule},
        {"39", "Icmp6InIpv4ByAllPorts", bytes(a_r.proto(58, 8)), by_rule(0), with(kA, kR, kAny)},
        {"40", "GreByRule", bytes(a_r.proto(47, 8)), by_rule(4)},
        {"41", "GreIsNoDefault", bytes(a_r.proto(47, 8)), no_rule, with("*", "*", kAny)},
        {"42", "GreNeedsAllPorts", bytes(a_r.proto(47, 8)), no_rule, with(kA, kR, {0, 1000}, {47})},
        {"43", "IgmpByRule", bytes(a_r.proto(2, 8)), by_rule(0), with(kA, kR, kAny, {2})},
        {"44", "IgmpThatIsTooShort", bytes(a_r.proto(2, 4)), drop("truncated"), with(kA, kR, kAny, {2})},
        {"45", "Tsmp", bytes(b_r.proto(99, 7)), accept("tsmp")},
        {"46", "TsmpThatIsTooShort", bytes(b_r.proto(99, 6)), drop("truncated")},
        {"47", "Protocol255", bytes(a_r.proto(255, 20)), drop("unknown-protocol")},
        {"48", "Protocol0", bytes(a_r.proto(0, 20)), drop("unknown-protocol"), with(kA, kR, kAny, {0})},
        {"49", "SubnetByRule", bytes(a_lan.tcp(443, kSyn)), by_rule(2)},
        {"50", "SubnetWithoutRule", bytes(a_lan.tcp(80, kSyn)), no_rule},
        {"51", "AckToASubnet", bytes(b_lan.tcp(80, kAck)), established},
        {"52", "RulesDoNotMakeANetLocal", bytes(to(kA, "10.34.1.5").tcp(443, kSyn)), not_local,
         with(kA, "10.0.0.0/8", {443, 443})},
        {"53", "EchoToASubnet", bytes(a_lan.icmp(8)), by_rule(2)},
        {"54", "FromASubnetToASubnet", bytes(to("192.168.1.7", "10.33.1.5").udp(9)), by_rule(3)},
        {"56", "InternetWithoutExit", bytes(to(kA, "8.8.8.8").tcp(443, kSyn)), not_local, with("*", "*", kAny)},
        {"57", "InternetByExit", bytes(to(kA, "8.8.8.8").tcp(443, kSyn)), by_rule(0), exit_for_all()},
        {"58", "ExitLeavesPrivateNets", bytes(to(kA, "192.168.7.1").tcp(80, kSyn)), not_local, exit_for_all()},
        {"59", "ExitsOwnPublicAddress", bytes(to(kA, "203.0.113.5").tcp(22, kSyn)), by_rule(0), exit_for_all()},
        {"59b", "ExitsNeighbour", bytes(to(kA, "203.0.113.6").tcp(22, kSyn)), not_local, exit_for_all()},
        {"60", "ExitDoesNotRouteTheTailnet", bytes(to(kA, "100.64.0.99").tcp(80, kAck)), not_local, exit_for_all()},
        {"61", "ExitLeavesMetadata", bytes(to(kA, "169.254.169.254").tcp(80, kSyn)), not_local, exit_for_all()},
        {"62", "MetadataAdvertised", bytes(to(kA, "169.254.169.254").udp(53)), by_rule(0), metadata_advertised()},
        {"63", "LinkLocal", bytes(to(kA, "169.254.1.1").udp(53)), drop("link-local"), exit_for_all()},
        {"64", "Multicast", bytes(to(kA, "224.0.0.251").udp(5353)), drop("multicast"), exit_for_all()},
        {"65", "Broadcast", bytes(to(kA, "255.255.255.255").udp(67)), not_local, with("*", "*", kAny)},
        {"66", "Multicast6", bytes(to(kA6, "ff02::1").icmp(135)), drop("multicast"), exit_for_all()},
        {"67", "LinkLocal6", bytes(to(kA6, "fe80::1").tcp(22, kSyn)), drop("link-local"), exit_for_all()},
        {"68", "Loopback", bytes(to(kA, "127.0.0.1").tcp(22, kAck)), not_local},
        {"69", "FirstFragmentNeedsItsRule", bytes(b_r.tcp(22, kSyn).cut_transport(24).fragment(0, true)), no_rule},
        {"70", "FirstFragmentByRule", bytes(a_r.udp(53).cut_transport(8).fragment(0, true)), by_rule(1)},
        {"71", "FirstFragmentTooShort", bytes(a_r.tcp(22, kSyn).cut_transport(12).fragment(0, true)),
         drop("truncated")},
        {"72", "LaterFragment", bytes(tail.fragment(10, false)), accept("fragment")},
        {"73", "LaterFragmentInAHeader", bytes(tail.fragment(9, false)), drop("bad-fragment")},
        {"74", "LaterFragmentToWherever", bytes(to(kB, "8.8.8.8").proto(17, 64).fragment(100, false)),
         accept("fragment")},
        {"75", "LaterFragmentAgainstShields", bytes(tail.fragment(100, false)), accept("fragment"), shields_up()},
        {"75", "LaterFragmentOfAJailedPeer", bytes(j_r.proto(17, 64).fragment(100, false)), accept("fragment"),
         with_j(true)},
        {"76", "LaterFragmentToMulticast", bytes(to(kB, "224.0.0.1").proto(17, 64).fragment(100, false)),
         drop("multicast")},
        {"77", "FirstFragment6", bytes(b_r6.udp(53).fragment(0, true)), by_rule(0), with(kB6, kR6, {53, 53}, {17})},
        {"78", "LaterFragment6", bytes(b_r6.proto(17, 64).fragment(20, false)), accept("fragment")},
        {"79", "HopByHop", bytes(a_r6.tcp(22, kSyn).extension(0)), drop("unknown-protocol")},
        {"80", "DestinationOptions", bytes(a_r6.tcp(22, kSyn).extension(60)), no_rule},
        {"81", "DestinationOptionsByRule", bytes(a_r6.tcp(22, kSyn).extension(60)), by_rule(0),
         with(kA6, kR6, kAny, {60})},
        {"82", "RoutingHeader", bytes(a_r6.tcp(22, kSyn).extension(44).extension(43)), no_rule},
        {"83", "Ipv4Options", bytes(a_r.tcp(22, kSyn).options(8)), by_rule(0)},
        {"84", "ShorterThanItSays", {cut(a_r.tcp(22, kSyn).options(20).bytes(), 52)}, drop("truncated")},
        {"85", "SixteenBytes", {cut(a_r.tcp(22, kSyn).bytes(), 16)}, drop("too-short")},
        {"86", "KeepAlive", {Bytes{}}, accept("keepalive")},
        {"87", "Version7", {Bytes(40, std::byte{0x70})}, drop("bad-version")},
        {"88", "SynOfAJailedPeer", bytes(j_r.tcp(22, kSyn)), drop("jailed"), with_j(true)},
        {"89", "AckOfAJailedPeer", bytes(j_r.tcp(22, kAck)), established, with_j(true)},
        {"90", "ReplyOfAJailedPeer", bytes(j_r.udp(5000, 4000)), accept("reply"), with_j(true),
         bytes(to(kR, Room::kJailed).udp(4000, 5000))},
        {"91", "ReplyOfAPeerNoLongerJailed", bytes(j_r.udp(5000, 4000)), no_rule, with_j(true),
         bytes(to(kR, Room::kJailed).udp(4000, 5000)), with_j(false, {})},
        {"92", "OutboundIsFree", bytes(to(kR, "8.8.8.8").tcp(443, kSyn)), accept("out"), with({}), {}, {}, Way::Out},
        {"93",
         "OutboundMulticast",
         bytes(to(kR, "224.0.0.1").udp(5353)),
         drop("out-multicast"),
         with({}),
         {},
         {},
         Way::Out},
        {"94",
         "OutboundLinkLocal",
         bytes(to(kR, "169.254.3.3").udp(53)),
         drop("out-link-local"),
         with({}),
         {},
         {},
         Way::Out},
        {"95",
         "OutboundLaterFragment",
         bytes(r_b.udp(4000, 5000).fragment(20, false)),
         accept("out"),
         with({}),
         {},
         {},
         Way::Out},
        {"95",
         "OutboundLaterFragmentMakesNoState",
         {reply},
         no_rule,
         Room::receiver(),
         bytes(r_b.udp(4000, 5000).fragment(20, false))},
        {"96",
         "OutboundFirstFragmentMakesState",
         {reply},
         accept("reply"),
         Room::receiver(),
         bytes(r_b.udp(4000, 5000).cut_transport(8).fragment(0, true))},
        {"97", "TsmpOfTheHost", bytes(to(kR, kA).proto(99, 20)), drop("out-tsmp"), with({}), {}, {}, Way::Out},
        {"99", "SourceByCapability", bytes(a_r.tcp(22, kSyn)), by_rule(0), a_has_foo({}, {22, 22})},
        {"100", "EchoByCapabilityToWherever", bytes(to(kA, "10.33.9.9").icmp(8)), by_rule(0), a_has_foo({}, {22, 22})},
        {"101", "GreNotByCapability", bytes(a_r.proto(47, 8)), no_rule, a_has_foo({47}, kAny)},
        {"102", "BeforeTheFirstFilter", bytes(a_r.tcp(22, kSyn)), drop("no-policy"), std::nullopt},
        {"102", "AnEmptyFilter", bytes(a_r.tcp(22, kSyn)), no_rule, with({})},
        {"103", "ASourceThatNobodySigned", bytes(a_r.tcp(22, kSyn)), no_rule,
         changed(with({Room::receiver().rules[0], Room::rule({"100.64.0.0/10"}, {{kR, kAny}})}),
                 [](FilterInput& input) { input.peers[1].unsigned_peer_api_only = true; })},
        {"104", "AnEntryWithHostBits", bytes(a_r.tcp(22, kSyn)), by_rule(1),
         with({Room::rule({"10.0.0.1/8"}, {{kR, kAny}}), Room::receiver().rules[0]})},
        {"105", "SrcBits", bytes(a_r.tcp(22, kSyn)), no_rule,
         changed(Room::receiver(), [](FilterInput& input) { input.rules[3].has_src_bits = true; })},
        {"106", "NoProtocolThatExists", bytes(a_r.tcp(22, kSyn)), no_rule, with(kA, kR, kAny, {300})},
        {"107", "EchoIgnoresProtocolsThatDoNotExist", bytes(a_r.icmp(8)), by_rule(0), with(kA, kR, kAny, {300})},
        {"108", "FamiliesAreApart", bytes(a_r.tcp(22, kSyn)), no_rule,
         with({Room::rule({kA6}, {{kR, kAny}, {kR6, kAny}})})},
    };
}

/// How a failing row is printed.
void PrintTo(const Row& row, std::ostream* out) {
    *out << "row " << row.number << ", " << row.what;
}

class VerdictTable : public PacketRoom, public ::testing::WithParamInterface<Row> {};

TEST_P(VerdictTable, Row) {
    const Row& row = GetParam();
    if (row.filter) commit(*row.filter);
    for (const Bytes& packet : row.sent_before) ASSERT_EQ(out(packet).reason, "out");
    if (row.then) commit(*row.then);
    for (const Bytes& packet : row.packets) {
        if (row.way == Way::Out) {
            Outcome outcome = out(packet);
            EXPECT_EQ(outcome.passed, row.expected.passes);
            EXPECT_EQ(outcome.reason, row.expected.reason);
            continue;
        }
        Outcome outcome = in(packet);
        if (packet.empty() && outcome.reason.starts_with("test run failed"))
            GTEST_SKIP() << "this kernel runs no test with an empty packet";
        if (row.expected.rule)
            EXPECT_RULE(outcome, *row.expected.rule);
        else if (row.expected.passes)
            EXPECT_PASS(outcome, row.expected.reason);
        else
            EXPECT_DROP(outcome, row.expected.reason);
    }
}

std::string name_of(const ::testing::TestParamInfo<Row>& info) {
    return "Row" + std::string{info.param.number} + "_" + info.param.what;
}

INSTANTIATE_TEST_SUITE_P(Reference, VerdictTable, ::testing::ValuesIn(rows()), name_of);

TEST(VerdictTableItself, HasEveryRow) {
    std::set<std::string> wanted{"59b"}, have{"20", "55", "98"};
    for (int number = 1; number <= 108; ++number) wanted.insert(std::to_string(number));
    for (const Row& row : rows()) have.insert(row.number);
    EXPECT_EQ(have, wanted);
}

} // namespace

} // namespace tailrace::test
