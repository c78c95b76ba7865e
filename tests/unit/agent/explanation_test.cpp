#include "agent/engine/explanation.hpp"

#include "agent/cli/commands.hpp"

#include <gtest/gtest.h>

namespace tailrace {
namespace {

FilterRule rule(std::vector<std::string> from, std::vector<FilterDestination> to, std::vector<int> protocols = {}) {
    FilterRule out;
    out.src_ips = std::move(from);
    out.dst_ports = std::move(to);
    out.ip_proto = std::move(protocols);
    return out;
}

const std::vector<FilterRule> kRules = {
    rule({"100.64.0.2"}, {{"100.64.0.1", {22, 22}, false}}),
    rule({"100.64.0.0/24"}, {{"100.64.0.1", {53, 53}, false}}, {17}),
    rule({"100.64.0.3-100.64.0.9"}, {{"100.64.0.1", {80, 90}, false}, {"10.0.0.0/8", PortRange::all(), false}}),
    rule({"*"}, {{"100.64.0.77", PortRange::all(), false}}),
};

PacketQuestion ask(std::string_view port, std::string_view protocol = "tcp") {
    return *parse_question("100.64.0.2", "100.64.0.1", port, protocol);
}

TEST(Explanation, NamesTheRulesThatLackOneThing) {
    auto misses = near_misses(ask("80"), kRules);
    ASSERT_EQ(misses.size(), 2u);
    EXPECT_EQ(misses[0].index, 0u);
    EXPECT_EQ(misses[0].why, "for another port: 22");
    EXPECT_EQ(misses[1].index, 2u);
    EXPECT_EQ(misses[1].why, "for other sources");
    misses = near_misses(ask("53"), kRules);
    ASSERT_EQ(misses.size(), 2u);
    EXPECT_EQ(misses[1].why, "for another protocol: udp");
    EXPECT_EQ(near_misses(ask("53"), kRules, 1).size(), 1u);
}

TEST(Explanation, WritesRulesAsPeopleReadThem) {
    EXPECT_EQ(rule_text(kRules[1]), "100.64.0.0/24 -> 100.64.0.1:53 (udp)");
    EXPECT_EQ(rule_text(rule({"fd7a::2"}, {{"fd7a::1", PortRange::all(), false}})), "fd7a::2 -> [fd7a::1]:*");
    EXPECT_EQ(rule_text(rule(std::vector<std::string>(8, "1.1.1.1"), {})).find("and 2 more") != std::string::npos,
              true);
}

TEST(Explanation, RefusesQuestionsThatNoPacketCouldAsk) {
    EXPECT_FALSE(parse_question("100.64.0.2", "fd7a::1", "22", ""));
    EXPECT_FALSE(parse_question("alice", "100.64.0.1", "22", ""));
    EXPECT_FALSE(parse_question("100.64.0.2", "100.64.0.1", "65536", ""));
    EXPECT_FALSE(parse_question("100.64.0.2", "100.64.0.1", "", "udp"));
    EXPECT_FALSE(parse_question("100.64.0.2", "100.64.0.1", "22", "256"));
    EXPECT_EQ(parse_question("fd7a::2", "fd7a::1", "", "icmp")->protocol, 58);
}

TEST(Explanation, ReadsWellOnATerminal) {
    auto text = cli::explanation_text(write_explanation(ask("80"), {false, "no-rule", 0}, std::nullopt, kRules));
    ASSERT_TRUE(text);
    EXPECT_TRUE(text->starts_with("dropped: 100.64.0.2 -> 100.64.0.1 port 80 (tcp), reason no-rule\n")) << *text;
    EXPECT_NE(text->find("for other sources"), std::string::npos);
    text = cli::explanation_text(write_explanation(ask("22"), {true, "rule", 9}, 0, kRules));
    ASSERT_TRUE(text);
    EXPECT_EQ(*text, "passes: 100.64.0.2 -> 100.64.0.1 port 22 (tcp), reason rule\n"
                     "by rule 0: 100.64.0.2 -> 100.64.0.1:22\n");
    EXPECT_FALSE(cli::explanation_text("{}"));
}

} // namespace
} // namespace tailrace
