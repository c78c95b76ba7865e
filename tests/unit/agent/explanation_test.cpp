#include "agent/engine/explanation.hpp"

#include "agent/cli/commands.hpp"

#include <gtest/gtest.h>

namespace tailrace {
namespace {

KnownRule rule(std::vector<std::string> from, std::vector<FilterDestination> to, std::vector<int> protocols = {}) {
    FilterRule out;
    out.src_ips = std::move(from);
    out.dst_ports = std::move(to);
    out.ip_proto = std::move(protocols);
    return {out, {}};
}

const std::vector<KnownRule> kRules = {
    rule({"100.64.0.2"}, {{"100.64.0.1", {22, 22}, false}}),
    rule({"100.64.0.0/24"}, {{"100.64.0.1", {53, 53}, false}}, {17}),
    rule({"100.64.0.3-100.64.0.9"}, {{"100.64.0.1", {80, 90}, false}, {"10.0.0.0/8", PortRange::all(), false}}),
    rule({"*"}, {{"100.64.0.77", PortRange::all(), false}}),
};

PacketQuestion ask(std::string_view port, std::string_view protocol = "tcp") {
    return *parse_question("100.64.0.2", "100.64.0.1", port, protocol);
}

TEST(Explanation, NamesTheRulesThatLackOneThing) {
    auto misses = near_misses(ask("80"), {}, kRules);
    ASSERT_EQ(misses.size(), 2u);
    EXPECT_EQ(misses[0].index, 0u);
    EXPECT_EQ(misses[0].why, "for another port: 22");
    EXPECT_EQ(misses[1].index, 2u);
    EXPECT_EQ(misses[1].why, "for other sources");
    misses = near_misses(ask("53"), {}, kRules);
    ASSERT_EQ(misses.size(), 2u);
    EXPECT_EQ(misses[1].why, "for another protocol: udp");
    EXPECT_EQ(near_misses(ask("53"), {}, kRules, 1).size(), 1u);
}

TEST(Explanation, KnowsSourcesThatAreCapabilities) {
    const std::vector<KnownRule> rules = {
        rule({"cap:example.com/backup"}, {{"100.64.0.1", {22, 22}, false}}),
        rule({"100.64.0.9", "cap:example.com/backup"}, {{"100.64.0.1", {80, 80}, false}}),
    };
    auto misses = near_misses(ask("22"), {"other"}, rules);
    ASSERT_EQ(misses.size(), 1u);
    EXPECT_EQ(misses[0].why, "for peers with the capability example.com/backup");
    misses = near_misses(ask("80"), {}, rules);
    ASSERT_EQ(misses.size(), 1u);
    EXPECT_EQ(misses[0].why, "for other sources, and peers with the capability example.com/backup");
    misses = near_misses(ask("80"), {"other", "example.com/backup"}, rules);
    ASSERT_EQ(misses.size(), 1u) << "the port of the first is what is missing, of the second nothing";
    EXPECT_EQ(misses[0].index, 0u);
    EXPECT_EQ(misses[0].why, "for another port: 22");
}

TEST(Explanation, WritesRulesAsPeopleReadThem) {
    EXPECT_EQ(rule_text(kRules[1].rule), "100.64.0.0/24 -> 100.64.0.1:53 (udp)");
    EXPECT_EQ(rule_text(rule({"fd7a::2"}, {{"fd7a::1", PortRange::all(), false}}).rule), "fd7a::2 -> [fd7a::1]:*");
    EXPECT_NE(rule_text(rule(std::vector<std::string>(8, "1.1.1.1"), {}).rule).find("and 2 more"), std::string::npos);
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
    auto text = cli::explanation_text(write_explanation(ask("80"), {false, "no-rule", 0}, std::nullopt, {}, kRules));
    ASSERT_TRUE(text);
    EXPECT_TRUE(text->starts_with("dropped: 100.64.0.2 -> 100.64.0.1 port 80 (tcp), reason no-rule\n")) << *text;
    EXPECT_NE(text->find("for other sources"), std::string::npos);
    text = cli::explanation_text(write_explanation(ask("22"), {true, "rule", 9}, 0, {}, kRules));
    ASSERT_TRUE(text);
    EXPECT_EQ(*text, "passes: 100.64.0.2 -> 100.64.0.1 port 22 (tcp), reason rule\n"
                     "by rule 0: 100.64.0.2 -> 100.64.0.1:22\n");
    EXPECT_FALSE(cli::explanation_text("{}"));
}

/// Lines 12 (the first destination), 30 (the next two) and 7 (the last) became one rule.
KnownRule of_three_lines() {
    KnownRule out = rule({"100.64.0.2"}, {{"100.64.0.1", {22, 22}, false},
                                          {"100.64.0.1", {80, 90}, false},
                                          {"10.0.0.0/8", {22, 22}, false},
                                          {"100.64.0.1", {22, 23}, false}});
    out.lines = {{12, 1}, {30, 2}, {7, 0}};
    return out;
}

TEST(PolicyLines, AreThoseOfTheDestinationsThatDecide) {
    KnownRule rule = of_three_lines();
    EXPECT_EQ(policy_lines(rule), (std::vector<std::uint32_t>{7, 12, 30}));
    EXPECT_EQ(deciding_lines(ask("22"), rule), (std::vector<std::uint32_t>{7, 12}));
    EXPECT_EQ(deciding_lines(ask("23"), rule), (std::vector<std::uint32_t>{7}));
    EXPECT_EQ(deciding_lines(ask("85"), rule), (std::vector<std::uint32_t>{30}));
    EXPECT_EQ(near_misses(ask("443"), {}, {rule})[0].lines, (std::vector<std::uint32_t>{7, 12, 30}))
        << "any port of it";
    EXPECT_EQ(near_misses(*parse_question("100.64.0.9", "10.1.1.1", "22", ""), {}, {rule})[0].lines,
              (std::vector<std::uint32_t>{30}));
}

TEST(PolicyLines, AreNotMadeUp) {
    KnownRule rule = of_three_lines();
    rule.lines = {{5, 1}}; // says nothing of the other destinations
    EXPECT_TRUE(deciding_lines(ask("85"), rule).empty());
    rule.lines = {{0, 1}, {0, 0}}; // allowed without being written
    EXPECT_TRUE(policy_lines(rule).empty());
    rule.lines = {{9, UINT32_MAX}, {8, UINT32_MAX}, {7, 0}, {6, 1}};
    EXPECT_EQ(deciding_lines(ask("85"), rule), (std::vector<std::uint32_t>{9}));
    EXPECT_EQ(policy_lines(rule), (std::vector<std::uint32_t>{7, 8, 9}));
    rule.lines.clear();
    EXPECT_TRUE(policy_lines(rule).empty());
    EXPECT_EQ(policy_lines_member({}), "");
}

TEST(PolicyLines, ReadWellOnATerminal) {
    std::vector<KnownRule> rules = {of_three_lines()};
    auto text = cli::explanation_text(write_explanation(ask("85"), {true, "rule", 1}, 0, {}, rules));
    ASSERT_TRUE(text);
    EXPECT_NE(text->find("\nallowed by line 30 of the policy, rule 0: 100.64.0.2 -> "), std::string::npos) << *text;
    text = cli::explanation_text(write_explanation(ask("22"), {true, "rule", 1}, 0, {}, rules));
    EXPECT_NE(text->find("\nallowed by lines 7 and 12 of the policy, rule 0: "), std::string::npos) << *text;
    text = cli::explanation_text(write_explanation(ask("443"), {false, "no-rule", 0}, std::nullopt, {}, rules));
    EXPECT_NE(text->find("\n  lines 7, 12 and 30 of the policy, rule 0: "), std::string::npos) << *text;
    rules[0].lines.clear();
    for (std::uint32_t line = 1; line < 10; ++line) rules[0].lines.push_back({line, line < 9 ? 1u : 0u});
    rules[0].rule.dst_ports.resize(9, {"100.64.0.1", {443, 443}, false});
    text = cli::explanation_text(write_explanation(ask("7"), {false, "no-rule", 0}, std::nullopt, {}, rules));
    EXPECT_NE(text->find("\n  lines 1, 2, 4, 5, 6 and 3 more of the policy, rule 0: "), std::string::npos) << *text;
}

} // namespace
} // namespace tailrace
