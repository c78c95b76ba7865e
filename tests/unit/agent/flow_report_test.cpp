#include "agent/engine/flow_report.hpp"

#include "agent/cli/commands.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

namespace tailrace {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

tr_event raw_event(std::uint8_t kind) {
    tr_event event{};
    event.flow.remote.bytes[0] = 100;
    event.flow.remote.bytes[1] = 64;
    event.flow.remote.bytes[3] = 19;
    event.flow.local.bytes[0] = 100;
    event.flow.local.bytes[1] = 64;
    event.flow.local.bytes[3] = 16;
    event.flow.remote_port = __builtin_bswap16(40000);
    event.flow.local_port = __builtin_bswap16(23);
    event.flow.ip_proto = 6;
    event.flow.family = 4;
    event.packets = 1;
    event.bytes = 60;
    event.kind = kind;
    event.reason = TR_DROP_NO_RULE;
    return event;
}

Result<PacketEvent> parsed(const tr_event& event) {
    return parse_packet_event(std::as_bytes(std::span{&event, 1}));
}

class FlowReport : public ::testing::Test {
protected:
    std::vector<KnownRule> rules_{
        {FilterRule{{"100.64.0.19"}, {{"100.64.0.16", {22, 22}, false}}, {6}, {}, false}, {}}};
    FlowNames names_{[](const IpAddress& address) {
                         return address.text() == "100.64.0.19" ? "ali\x1b"
                                                                  "ce"
                                                                : "";
                     },
                     [](const IpAddress&) { return std::vector<std::string>{}; },
                     [](std::uint32_t rule) { return rule == 5 ? std::optional<std::size_t>{0} : std::nullopt; },
                     rules_};
    WallTime noon_ = *WallTime::parse("2026-11-26T12:00:00Z");
};

TEST(PacketEventRecord, IsReadWithBounds) {
    tr_event event = raw_event(TR_EVENT_DROP);
    auto read = parsed(event);
    ASSERT_TRUE(read) << read.error().message();
    EXPECT_EQ(read->flow->remote.text(), "100.64.0.19:40000");
    EXPECT_EQ(read->flow->local.text(), "100.64.0.16:23");
    EXPECT_EQ(read->bytes, 60u);
    EXPECT_FALSE(parse_packet_event(std::as_bytes(std::span{&event, 1}).first(63)));
    event.kind = TR_EVENT_KINDS;
    EXPECT_FALSE(parsed(event));
    event.kind = TR_EVENT_NONE;
    EXPECT_FALSE(parsed(event));
    event.kind = TR_EVENT_DROP;
    event.reason = TR_REASON_COUNT;
    EXPECT_FALSE(parsed(event));
    event.reason = TR_DROP_TRUNCATED;
    event.flow.family = 0;
    EXPECT_FALSE(parsed(event)->flow) << "a drop of what could not be read has no flow";
    event.kind = TR_EVENT_IN;
    EXPECT_FALSE(parsed(event)) << "anything else has one";
}

TEST_F(FlowReport, ADropSaysWhoAndWhyAndWhichRuleComesNear) {
    std::string json = write_drop(noon_, *parsed(raw_event(TR_EVENT_DROP)), names_, true);
    auto text = cli::drop_text(json);
    ASSERT_TRUE(text) << text.error().message() << json;
    EXPECT_EQ(*text,
              "12:00:00Z           < ali?ce           no-rule            100.64.0.19:40000 -> 100.64.0.16:23 (tcp), "
              "60 bytes; near: rule 0: 100.64.0.19 -> 100.64.0.16:22 (tcp), for another port: 22\n");
    rules_[0].lines = {{23, 0}};
    EXPECT_THAT(*cli::drop_text(write_drop(noon_, *parsed(raw_event(TR_EVENT_DROP)), names_, true)),
                HasSubstr("; near: line 23 of the policy, rule 0: 100.64.0.19 -> 100.64.0.16:22 (tcp), for another"));
    EXPECT_THAT(write_drop(noon_, *parsed(raw_event(TR_EVENT_DROP)), names_, false), Not(HasSubstr("Near")));
    tr_event unreadable = raw_event(TR_EVENT_DROP);
    unreadable.flow.family = 0;
    unreadable.reason = TR_DROP_BAD_VERSION;
    EXPECT_THAT(*cli::drop_text(write_drop(noon_, *parsed(unreadable), names_, true)), HasSubstr("unreadable"));
    EXPECT_EQ(*cli::drop_text(write_drop_tally({})), "");
    EXPECT_THAT(*cli::drop_text(write_drop_tally({7, 3, 0})), StartsWith("(10 more drops"));
    EXPECT_FALSE(cli::drop_text("[]"));
}

TEST_F(FlowReport, FlowsReadAsATable) {
    FlowTable::Row row;
    row.flow = *parsed(raw_event(TR_EVENT_IN))->flow;
    row.in_packets = 3;
    row.in_bytes = 1500;
    row.out_packets = 1;
    row.bytes_per_second = 123456;
    row.rule = 5;
    row.opener = FlowTable::Opener::Peer;
    FlowTable::Row icmp;
    icmp.flow = {{IpAddress::v4(0x64400063), 0}, {IpAddress::v4(0x64400010), 0}, 1};
    FlowTable::Totals totals;
    totals.flows = 2;
    totals.bytes_per_second = 123456;
    std::string json = write_flows(noon_, {row, icmp}, totals, {}, names_);
    auto text = cli::flows_text(json, 10);
    ASSERT_TRUE(text) << text.error().message() << json;
    EXPECT_THAT(*text, StartsWith("2 flows, 123kB/s\nPEER "));
    EXPECT_THAT(*text, HasSubstr("ali?ce           tcp    100.64.0.16:23               <-  100.64.0.19:40000"));
    EXPECT_THAT(*text, HasSubstr(" 4     1.5kB    123kB/s  0: 100.64.0.19 -> 100.64.0.16:22 (tcp)\n"));
    EXPECT_THAT(*text, HasSubstr("icmp   100.64.0.16                  <>  100.64.0.99 "));
    rules_[0].lines = {{23, 0}};
    EXPECT_THAT(*cli::flows_text(write_flows(noon_, {row}, totals, {}, names_), 10),
                HasSubstr("  0, line 23: 100.64.0.19 -> 100.64.0.16:22 (tcp)\n"));
    EXPECT_THAT(*cli::flows_text(json, 1), Not(HasSubstr("icmp")));
    totals.left_out = 4;
    EXPECT_THAT(*cli::flows_text(write_flows(noon_, {}, totals, {0, 5, 6}, names_), 1),
                HasSubstr("6 packets, 5 events and 4 flows are not in here"));
    EXPECT_FALSE(cli::flows_text("{}", 1));
}

} // namespace
} // namespace tailrace
