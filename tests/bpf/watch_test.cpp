// What the programs tell while somebody watches: events, samples of drops, how much each flow moves; and nothing else.
#include "agent/dataplane/packet_watch.hpp"
#include "bpf/shared/flow_map.h"
#include "tests/bpf/packet_room.hpp"

#include <bpf/bpf.h>
#include <gmock/gmock.h>
#include <sched.h>

namespace tailrace::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class Watch : public PacketRoom {
protected:
    static constexpr auto kLong = std::chrono::hours{1};
    static constexpr std::uint32_t kBuckets = 1;

    std::map<std::string, std::uint32_t> map_sizes() const override {
        auto sizes = PacketRoom::map_sizes();
        sizes["tr_flows"] = kBuckets;
        return sizes;
    }
    void SetUp() override {
        PacketRoom::SetUp();
        if (IsSkipped() || HasFatalFailure()) return;
        auto watch = PacketWatch::create(programs().maps);
        ASSERT_TRUE(watch) << watch.error().message();
        watch_ = std::make_unique<PacketWatch>(std::move(*watch));
        ASSERT_TRUE(watch_->want({}, {}));
        (void)kinds();
        (void)watch_->take_traffic();
        commit(receiver());
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(0, &one);
        ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0); // samples are counted by CPU
    }
    void watch(Duration events, Duration counts) {
        ASSERT_TRUE(watch_->want(events, counts));
        set_watched(events.count() > 0 || counts.count() > 0);
    }
    std::vector<PacketEvent> events(std::size_t most = 100000) {
        auto taken = watch_->take_events(most);
        EXPECT_TRUE(taken) << taken.error().message();
        return taken ? *taken : std::vector<PacketEvent>{};
    }
    std::vector<std::string> kinds() {
        std::vector<std::string> out;
        for (const PacketEvent& event : events()) out.emplace_back(text(event.kind));
        return out;
    }
    std::vector<FlowTraffic> traffic() {
        auto taken = watch_->take_traffic();
        EXPECT_TRUE(taken) << taken.error().message();
        return taken ? *taken : std::vector<FlowTraffic>{};
    }
    WatchTally tally() { return *watch_->tally(); }

    std::unique_ptr<PacketWatch> watch_;
    const Packet a_to_r{kA, kR}, r_to_a{kR, kA}, r_to_b{kR, kB};
};

TEST_F(Watch, NobodyIsToldWhatNobodyWatches) {
    ASSERT_TRUE(watch_->want(kLong, kLong)); // and still the word that packets read does not say so
    in(a_to_r.tcp(22, kSyn));
    in(a_to_r.tcp(23, kSyn));
    out(r_to_b.udp(53));
    EXPECT_THAT(events(), IsEmpty());
    EXPECT_THAT(traffic(), IsEmpty());
    ASSERT_TRUE(watch_->want({}, {})); // the other way round: the agent that set the word died long ago
    set_watched(true);
    in(a_to_r.tcp(22, kSyn));
    EXPECT_THAT(events(), IsEmpty());
    EXPECT_THAT(traffic(), IsEmpty());
}

TEST_F(Watch, TellsOfConnectionsThatOpenAndClose) {
    watch(kLong, {});
    in(a_to_r.tcp(22, kSyn, 40001));
    out(r_to_a.tcp(40001, kSyn | kAck, 22));
    in(a_to_r.tcp(22, kAck, 40001));
    in(a_to_r.tcp(22, kFin | kAck, 40001));
    out(r_to_a.tcp(443, kSyn, 40002));
    in(a_to_r.tcp(40002, kRst, 443));
    auto seen = events();
    ASSERT_EQ(seen.size(), 4u);
    EXPECT_EQ(seen[0].kind, PacketEventKind::OpenedByPeer);
    EXPECT_EQ(seen[0].flow->remote.text(), "100.64.0.19:40001");
    EXPECT_EQ(seen[0].flow->local.text(), "100.64.0.16:22");
    EXPECT_EQ(seen[0].flow->protocol, 6);
    EXPECT_EQ(seen[0].reason, TR_PASS_RULE);
    EXPECT_NE(seen[0].rule, 0u);
    EXPECT_EQ(seen[1].kind, PacketEventKind::Closed);
    EXPECT_EQ(seen[1].flow, seen[0].flow);
    EXPECT_FALSE(seen[1].outbound);
    EXPECT_EQ(seen[2].kind, PacketEventKind::OpenedByUs);
    EXPECT_TRUE(seen[2].outbound);
    EXPECT_EQ(seen[2].flow->local.text(), "100.64.0.16:40002");
    EXPECT_EQ(seen[3].kind, PacketEventKind::Closed);
    EXPECT_EQ(seen[3].flow, seen[2].flow);
    EXPECT_GE(seen[3].time_ns, seen[0].time_ns);
    EXPECT_THAT(traffic(), IsEmpty()) << "counts were not asked for";
}

TEST_F(Watch, TellsOnceOfAFlowThatIsRememberedAndOfThoseThatMakeRoom) {
    watch(kLong, {});
    out(r_to_b.udp(53, 4000));
    out(r_to_b.udp(53, 4000));
    in(Packet{kB, kR}.udp(4000, 53));
    EXPECT_THAT(kinds(), ElementsAre("talk"));
    auto before = *watch_->memory();
    for (std::uint16_t i = 1; i < 2 * TR_FLOW_WAYS; ++i) out(r_to_b.udp(53, std::uint16_t(4000 + i)));
    std::size_t talks = 0, forgotten = 0;
    for (const PacketEvent& event : events()) {
        talks += event.kind == PacketEventKind::Talk;
        if (event.kind != PacketEventKind::Forgotten) continue;
        ++forgotten;
        EXPECT_EQ(event.flow->remote.text(), "100.64.0.17:53");
        EXPECT_GE(event.flow->local.port, 4000);
    }
    auto after = *watch_->memory();
    EXPECT_EQ(talks, 2u * TR_FLOW_WAYS - 1);
    EXPECT_EQ(forgotten, std::size_t{TR_FLOW_WAYS});
    EXPECT_EQ(after.added - before.added, talks);
    EXPECT_EQ(after.evicted - before.evicted, forgotten);
    EXPECT_EQ(after.capacity, std::uint64_t{kBuckets} * TR_FLOW_WAYS);
}

TEST_F(Watch, SamplesDropsAndCountsTheRest) {
    watch(kLong, kLong);
    in(Packet{kB, kR}.tcp(22, kSyn, 1234));
    auto one = events();
    ASSERT_EQ(one.size(), 1u);
    EXPECT_EQ(one[0].kind, PacketEventKind::Dropped);
    EXPECT_EQ(one[0].reason, TR_DROP_NO_RULE);
    EXPECT_EQ(one[0].flow->remote.text(), "100.64.0.17:1234");
    in(Bytes(30, std::byte{0x20})); // of no IP version
    one = events();
    ASSERT_EQ(one.size(), 1u);
    EXPECT_EQ(one[0].reason, TR_DROP_BAD_VERSION);
    EXPECT_FALSE(one[0].flow);
    out(Packet{kR, "224.0.0.1"}.udp(5353));
    one = events();
    ASSERT_EQ(one.size(), 1u);
    EXPECT_EQ(one[0].reason, TR_OUT_DROP_MULTICAST);
    EXPECT_TRUE(one[0].outbound);

    constexpr std::size_t kFlood = 5000;
    WatchTally before = tally();
    for (std::size_t i = 0; i < kFlood; ++i) run_program(programs().policy.get(), Packet{kB, kR}.udp(9).bytes());
    std::size_t told = events().size();
    WatchTally after = tally();
    EXPECT_GT(told, 0u);
    EXPECT_EQ(told + after.drops_not_sampled - before.drops_not_sampled, kFlood);
    EXPECT_GT(after.drops_not_sampled, before.drops_not_sampled);
    EXPECT_EQ(after.events_lost, before.events_lost);
    EXPECT_THAT(traffic(), IsEmpty()) << "what is dropped moves nothing";
}

TEST_F(Watch, CountsWhatFindsTheRingFull) {
    watch(kLong, {});
    constexpr std::size_t kMore = TR_EVENT_RING_BYTES / 72 + 1000;
    WatchTally before = tally();
    for (std::size_t i = 0; i < kMore; ++i) run_program(programs().policy.get(), a_to_r.tcp(22, kSyn).bytes());
    std::uint64_t lost = tally().events_lost - before.events_lost;
    EXPECT_GE(lost, 1000u);
    EXPECT_EQ(events(10).size(), 10u) << "no more than asked for";
    EXPECT_EQ(events().size() + 10 + lost, kMore);
    in(a_to_r.tcp(22, kSyn));
    EXPECT_THAT(kinds(), ElementsAre("opened-by-peer")) << "and there is room again";
}

TEST_F(Watch, CountsWhatEachFlowMovesInBothDirections) {
    watch({}, kLong);
    in(a_to_r.tcp(22, kSyn, 40001));
    out(r_to_a.tcp(40001, kSyn | kAck, 22));
    in(a_to_r.tcp(22, kAck, 40001).bytes(), 5); // five segments in one
    in(a_to_r.icmp(8));
    auto counts = traffic();
    ASSERT_EQ(counts.size(), 2u);
    const FlowTraffic& tcp = counts[counts[0].flow.protocol == 6 ? 0 : 1];
    const FlowTraffic& icmp = counts[counts[0].flow.protocol == 6 ? 1 : 0];
    EXPECT_EQ(tcp.flow.remote.text(), "100.64.0.19:40001");
    EXPECT_EQ(tcp.count.in_packets, 6u);
    EXPECT_EQ(tcp.count.in_bytes, 240u);
    EXPECT_EQ(tcp.count.out_packets, 1u);
    EXPECT_EQ(tcp.count.out_bytes, 40u);
    EXPECT_NE(tcp.count.rule, 0u);
    EXPECT_EQ(icmp.count.in_packets, 1u);
    EXPECT_EQ(icmp.flow.remote.port, 0);
    EXPECT_THAT(traffic(), IsEmpty()) << "taken away";
    EXPECT_THAT(events(), IsEmpty()) << "events were not asked for";
}

/// With that many bytes of TCP options and of payload behind what `packet` has.
Bytes longer(const Packet& packet, std::size_t tcp_options, std::size_t payload) {
    Bytes out = packet.bytes();
    bool v4 = (static_cast<unsigned>(out[0]) >> 4) == 4;
    std::size_t ip_bytes = v4 ? 20 : 40;
    if (tcp_options > 0) out[ip_bytes + 12] = static_cast<std::byte>((20 + tcp_options) / 4 << 4);
    out.resize(out.size() + tcp_options + payload);
    std::size_t said = v4 ? out.size() : out.size() - 40;
    out[v4 ? 2 : 4] = static_cast<std::byte>(said >> 8);
    out[v4 ? 3 : 5] = static_cast<std::byte>(said);
    return out;
}

/// What offload joined counts as what is in the tunnel, in both directions and by every counter.
TEST_F(Watch, CountsTheHeadersOfEachSegment) {
    struct {
        const char* what;
        bool inbound;
        Bytes packet;
        std::uint32_t segments, segment_bytes;
        std::uint64_t packets, bytes;
    } const cases[] = {
        {"tcp with timestamps", true, longer(a_to_r.tcp(22, kAck), 12, 3600), 3, 0, 3, 3 * 1252},
        {"the last one short", true, longer(a_to_r.tcp(22, kAck), 12, 2500), 3, 0, 3, 2500 + 3 * 52},
        {"an unknown number", true, longer(a_to_r.tcp(22, kAck), 0, 2500), 0, 1200, 3, 2500 + 3 * 40},
        {"udp", true, longer(a_to_r.udp(53), 0, 2396), 2, 0, 2, 2 * 1228}, // of four bytes
        {"udp over IPv6", false, longer(Packet{kR6, kA6}.udp(53), 0, 2396), 2, 0, 2, 2 * 1248},
        {"tcp over IPv6", false, longer(Packet{kR6, kA6}.tcp(40000, kAck, 22), 12, 3600), 3, 0, 3, 3 * 1272},
        {"on its way out, unknown", false, longer(r_to_a.tcp(40000, kAck, 22), 12, 1201), 0, 1200, 2, 1201 + 2 * 52},
        {"exactly one", false, longer(r_to_a.tcp(40000, kAck, 22), 12, 1200), 0, 1200, 1, 1252},
        {"one and nothing to join", false, longer(r_to_a.tcp(40000, kAck, 22), 12, 1200), 1, 0, 1, 1252},
        {"headers and no more", false, r_to_a.tcp(40000, kAck, 22).bytes(), 0, 1200, 1, 40},
        {"not joined", true, longer(a_to_r.tcp(22, kAck), 12, 1200), 0, 0, 1, 1252},
    };
    watch({}, kLong);
    for (const auto& each : cases) {
        Outcome outcome = each.inbound ? in(each.packet, each.segments, each.segment_bytes)
                                       : out(each.packet, 0, each.segments, each.segment_bytes);
        EXPECT_TRUE(outcome.passed) << each.what << ": " << outcome;
        EXPECT_EQ(outcome.counted_packets, each.packets) << each.what;
        EXPECT_EQ(outcome.counted_bytes, each.bytes) << each.what;
        auto counts = traffic();
        ASSERT_EQ(counts.size(), 1u) << each.what;
        EXPECT_EQ(each.inbound ? counts[0].count.in_packets : counts[0].count.out_packets, each.packets) << each.what;
        EXPECT_EQ(each.inbound ? counts[0].count.in_bytes : counts[0].count.out_bytes, each.bytes) << each.what;
    }
}

TEST_F(Watch, CountsAtMostSoManyFlowsAndSaysWhatItMissed) {
    watch({}, kLong);
    FilterInput all = receiver_with({rule({kA}, {{kR, PortRange::all()}}, {17})});
    commit(all);
    set_watched(true);
    WatchTally before = tally();
    constexpr std::size_t kMore = 1000;
    for (std::size_t i = 0; i < TR_COUNTED_FLOWS + kMore; ++i)
        run_program(programs().policy.get(), a_to_r.udp(std::uint16_t(1 + i), 9).bytes());
    EXPECT_EQ(traffic().size(), std::size_t{TR_COUNTED_FLOWS});
    EXPECT_EQ(tally().packets_uncounted - before.packets_uncounted, kMore);
}

TEST_F(Watch, GoesOnThroughACommitAndEndsWithTheLease) {
    watch(kLong, kLong);
    commit(receiver());
    in(a_to_r.tcp(22, kSyn));
    EXPECT_THAT(kinds(), ElementsAre("opened-by-peer"));
    watch(std::chrono::nanoseconds{1}, std::chrono::nanoseconds{1});
    in(a_to_r.tcp(22, kSyn));
    EXPECT_THAT(events(), IsEmpty());
}

TEST_F(Watch, AQuestionIsNotTold) {
    watch(kLong, kLong);
    run_program(question_program(), a_to_r.tcp(22, kSyn).bytes());
    run_program(question_program(), a_to_r.tcp(23, kSyn).bytes());
    EXPECT_THAT(events(), IsEmpty());
    EXPECT_THAT(traffic(), IsEmpty());
}

} // namespace
} // namespace tailrace::test
