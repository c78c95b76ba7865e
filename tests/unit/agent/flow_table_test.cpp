#include "agent/engine/flow_table.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;

TimePoint at(Duration since_start) {
    return TimePoint{100s + since_start};
}

FlowId flow(std::uint32_t remote, std::uint16_t port = 22, std::uint8_t protocol = 6) {
    return {{IpAddress::v4(0x64400000 + remote), 40000}, {IpAddress::v4(0x64400001), port}, protocol};
}

FlowTraffic moved(const FlowId& id, std::uint64_t in_bytes, std::uint64_t out_bytes = 0, std::uint32_t rule = 0) {
    return {id, {1, in_bytes, out_bytes ? 1u : 0u, out_bytes, rule, 0}};
}

PacketEvent event(PacketEventKind kind, const FlowId& id, std::uint32_t rule = 0) {
    PacketEvent out;
    out.kind = kind;
    out.flow = id;
    out.rule = rule;
    return out;
}

TEST(FlowTable, SumsWhatMovesAndTellsTheRateOfTheLastInterval) {
    FlowTable table;
    table.take_traffic(at(1s), 1s, {moved(flow(2), 1000, 500, 7)});
    table.take_traffic(at(3s), 2s, {moved(flow(2), 1000)});
    auto rows = table.rows(at(3s), 10);
    ASSERT_EQ(rows.size(), 1u);
    EXPECT_EQ(rows[0].in_bytes, 2000u);
    EXPECT_EQ(rows[0].in_packets, 2u);
    EXPECT_EQ(rows[0].out_bytes, 500u);
    EXPECT_DOUBLE_EQ(rows[0].bytes_per_second, 500);
    EXPECT_EQ(rows[0].rule, 7u) << "a packet that needed no rule takes none away";
    EXPECT_EQ(rows[0].seen_for, Duration{2s});
    EXPECT_DOUBLE_EQ(table.totals().bytes_per_second, 500);
    table.take_traffic(at(4s), 1s, {});
    EXPECT_DOUBLE_EQ(table.rows(at(4s), 10)[0].bytes_per_second, 0);
}

TEST(FlowTable, PutsTheBusiestFirstAndNoMoreThanAsked) {
    FlowTable table;
    table.take_traffic(at(1s), 1s, {moved(flow(2), 10), moved(flow(3), 3000), moved(flow(4), 200)});
    auto rows = table.rows(at(1s), 2);
    ASSERT_EQ(rows.size(), 2u);
    EXPECT_EQ(rows[0].flow, flow(3));
    EXPECT_EQ(rows[1].flow, flow(4));
}

TEST(FlowTable, KnowsWhoBeganAndThatItIsOver) {
    FlowTable table;
    table.take_event(at(0s), event(PacketEventKind::OpenedByPeer, flow(2), 3));
    table.take_event(at(0s), event(PacketEventKind::OpenedByUs, flow(3)));
    table.take_event(at(0s), event(PacketEventKind::Talk, flow(4, 53, 17)));
    table.take_event(at(1s), event(PacketEventKind::Closed, flow(2)));
    auto rows = table.rows(at(1s), 10);
    ASSERT_EQ(rows.size(), 3u);
    EXPECT_EQ(rows[0].opener, FlowTable::Opener::Peer);
    EXPECT_TRUE(rows[0].closed);
    EXPECT_EQ(rows[0].rule, 3u);
    EXPECT_EQ(rows[1].opener, FlowTable::Opener::Us);
    EXPECT_FALSE(rows[1].closed);
    EXPECT_EQ(rows[2].opener, FlowTable::Opener::Unknown);
    table.take_event(at(2s), event(PacketEventKind::OpenedByPeer, flow(2))); // the same ports again
    EXPECT_FALSE(table.rows(at(2s), 1)[0].closed);
}

TEST(FlowTable, ForgetsWhoIsSilentAndSoonerWhatIsClosed) {
    FlowTable table;
    table.take_traffic(at(0s), 1s, {moved(flow(2), 10), moved(flow(3), 10)});
    table.take_event(at(0s), event(PacketEventKind::Closed, flow(3)));
    table.take_traffic(at(FlowTable::kForgetClosedAfter + 1s), 1s, {});
    ASSERT_EQ(table.rows(at(6s), 10).size(), 1u);
    EXPECT_EQ(table.rows(at(6s), 10)[0].flow, flow(2));
    table.take_traffic(at(FlowTable::kForgetAfter + 1s), 1s, {});
    EXPECT_EQ(table.totals().flows, 0u);
}

TEST(FlowTable, DropsAndEvictionsMakeNoFlow) {
    FlowTable table;
    table.take_event(at(0s), event(PacketEventKind::Dropped, flow(2)));
    table.take_event(at(0s), event(PacketEventKind::Forgotten, flow(3)));
    EXPECT_TRUE(table.rows(at(0s), 10).empty());
}

TEST(FlowTable, HasABoundAndSaysWhatItLeftOut) {
    FlowTable table;
    std::vector<FlowTraffic> many;
    for (std::uint32_t i = 0; i < FlowTable::kMost + 50; ++i) many.push_back(moved(flow(i), 10));
    table.take_traffic(at(0s), 1s, many);
    for (std::uint32_t i = 0; i < 50; ++i) table.take_event(at(0s), event(PacketEventKind::OpenedByUs, flow(i, 99)));
    EXPECT_EQ(table.totals().flows, FlowTable::kMost);
    EXPECT_EQ(table.totals().left_out, 100u);
    EXPECT_EQ(table.totals().bytes, 10 * (FlowTable::kMost + 50)) << "the sum is of all";
    EXPECT_EQ(table.rows(at(0s), SIZE_MAX).size(), FlowTable::kMost);
}

} // namespace
} // namespace tailrace
