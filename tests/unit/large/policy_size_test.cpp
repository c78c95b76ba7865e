// Policies that are as large as they may be, or larger: an answer, or what to do about it, soon.
#include "policy/check.hpp"
#include "policy/diff.hpp"
#include "policy/explain.hpp"
#include "policy/lint.hpp"
#include "policy/stage.hpp"
#include "tests/unit/policy/example_tailnet.hpp"
#include "tests/unit/policy/refusal.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tailrace {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

/// Each refers to the next: {"ipset:0": ["ipset:1"], ...}.
std::string chain(const char* kind, int links, const std::string& last) {
    std::string out;
    for (int i = 0; i < links; ++i) out += fmt::format("\"{0}:x{1}\": [\"{0}:x{2}\"],\n", kind, i, i + 1);
    return out + fmt::format("\"{}:x{}\": [{}]", kind, links, last);
}

/// `rules` rules that all differ and have nothing in common.
std::string many_rules(int rules) {
    std::string out = "{\"acls\": [\n";
    for (int i = 0; i < rules; ++i)
        out += fmt::format(R"({{"action": "accept", "src": ["u{0}@example.com"], "dst": ["10.{1}.{2}.0/24:{3}"]}},)"
                           "\n",
                           i, i / 256, i % 256, 1 + i % 60'000);
    return out + "]}";
}

TEST(PolicyLimits, ChainsOfIpsetsEndSomewhere) {
    const auto ipsets = [](int links) { return "{\"ipsets\": {" + chain("ipset", links, "\"10.0.0.0/8\"") + "}}"; };
    EXPECT_EQ(refusal(ipsets(99)), "accepted");
    for (const int links : {101, 20'000}) {
        EXPECT_THAT(refusal(ipsets(links)),
                    AllOf(StartsWith("line "), HasSubstr("ipsets[\"ipset:x"),
                          HasSubstr("ipsets refer to each other one after the other, and 100 is the most"),
                          EndsWith("write the addresses themselves into one of them")));
    }
    // Broad is not deep.
    std::string broad;
    for (int i = 0; i < 2000; ++i) broad += fmt::format("\"ipset:y{}\": [\"ipset:x0\"],", i);
    EXPECT_EQ(refusal("{\"ipsets\": {" + broad + "\"ipset:x0\": [\"10.0.0.0/8\"]}}"), "accepted");
}

TEST(PolicyLimits, ChainsOfTagsMayBeLong) {
    constexpr int kLinks = 10'000;
    const auto text = "{\"tagOwners\": {" + chain("tag", kLinks, "\"thor@example.org\"") + "}, \"acls\": []}";
    auto document = Document::parse(text);
    ASSERT_TRUE(document) << document.error().message();
    EXPECT_TRUE(may_tag(*document, {2, "thor@example.org", UserRole::Member}, "tag:x0"));
    EXPECT_FALSE(may_tag(*document, {3, "freya@example.com", UserRole::Member}, "tag:x0"));
    EXPECT_TRUE(may_tag(*document, std::vector<std::string>{fmt::format("tag:x{}", kLinks)}, "tag:x0"));
    for (const auto& finding : lint(text)) EXPECT_NE(finding.code, "tag-without-owner") << finding.message;
    const auto ring = "{\"tagOwners\": {" + chain("tag", 100, "\"tag:x0\"") + "}, \"acls\": []}";
    const auto found = lint(ring);
    EXPECT_EQ(std::count_if(found.begin(), found.end(),
                            [](const LintFinding& finding) { return finding.code == "tag-without-owner"; }),
              101);
}

TEST(PolicyLimits, APolicyOfTenMegabytesIsRead) {
    const auto policy_of = [](std::size_t bytes) {
        std::string text = "{\"groups\": {\n";
        for (int i = 0; text.size() < bytes; ++i)
            text += fmt::format("\"group:g{}\": [\"{}@example.com\"],\n", i, std::string(1000, 'x'));
        return text + "}}";
    };
    auto document = Document::parse(policy_of(10'000'000));
    ASSERT_TRUE(document) << document.error().message();
    EXPECT_GT(document->groups.size(), 9000U);
    // And what is wrong at the end is said with its place.
    auto text = policy_of(1'000'000);
    const auto lines = static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
    text.insert(text.size() - 2, "\"tag:x\": []");
    EXPECT_THAT(refusal(text), StartsWith(fmt::format("line {}, column 1: groups[\"tag:x\"]", lines + 1)));
}

TEST(PolicyLimits, AMillionRulesAreTooMany) {
    std::string text = "{\"acls\": [\n";
    const std::string rule = R"({"action":"accept","src":["*"],"dst":["*:*"]},)";
    for (int i = 0; i < 1'000'000; ++i) text += rule;
    text += "]}";
    EXPECT_THAT(refusal(text), AllOf(StartsWith(fmt::format("line 1, column 1: the policy has {} bytes", text.size())),
                                     HasSubstr("16777216 is the most"), HasSubstr("groups, hosts and ipsets")));
}

TEST(PolicyLimits, LintSaysWhatItDidNotCompare) {
    const auto codes = [](const std::string& text) {
        std::vector<std::string> out;
        for (const auto& finding : lint(text)) out.push_back(finding.code);
        return out;
    };
    using testing::Contains;
    using testing::Not;
    EXPECT_THAT(codes(many_rules(50)), Not(Contains("not-compared")));
    const auto found = lint(many_rules(501));
    EXPECT_THAT(lint_text(found), HasSubstr("rules that several others allow together were not looked for: there are "
                                            "501 rules, and 500 can be compared"));
    // What one rule alone allows is still found among thousands.
    auto text = many_rules(600);
    text.insert(text.size() - 2, R"({"action": "accept", "src": ["u7@example.com"], "dst": ["10.0.7.9:8"]},)");
    EXPECT_THAT(lint_text(lint(text)), HasSubstr("line 602, column 1: warning: this rule adds nothing: line 9, "
                                                 "column 1 allows all of it [shadowed]"));
}

TEST(PolicyLimits, DiffSaysWhatItDidNotCompare) {
    const auto before = Document::parse("{\"acls\": []}");
    std::string everybody = "{\"groups\": {\"group:all\": [";
    for (int i = 0; i < 100; ++i) everybody += fmt::format("\"u{}@example.com\",", i);
    const auto after = Document::parse(
        everybody + "]},\n\"acls\": [{\"action\": \"accept\", \"src\": [\"*\"], \"dst\": [\"*:22\"]}]}");
    ASSERT_TRUE(before && after) << after.error().message();
    const auto diff = diff_policies(*before, *after, nullptr, 5000);
    ASSERT_FALSE(diff.notes.empty());
    EXPECT_THAT(diff.notes.front(), AllOf(StartsWith("not compared to the end"),
                                          HasSubstr("what 1 of the 1 rules that differ say, from line 2 on")));
    EXPECT_FALSE(diff.changes.empty());
    // Many rules that are the same in both are no work.
    const auto same = Document::parse(many_rules(600));
    ASSERT_TRUE(same);
    EXPECT_EQ(diff_policies(*same, *same).text(), "nobody gains or loses anything\n");
}

TEST(PolicyLimits, ExplainFindsOneRuleOfThousands) {
    auto document = Document::parse(many_rules(1000));
    ASSERT_TRUE(document);
    auto everybody = imagined_tailnet({&*document});
    const auto policy =
        CompiledPolicy::compile(std::make_shared<const Document>(std::move(*document)), std::move(everybody));
    const auto allowed = explain(policy, "u999@example.com", "10.3.231.9:1000");
    ASSERT_TRUE(allowed) << allowed.error().message();
    EXPECT_THAT(allowed->summary, EndsWith("allowed by line 1001, column 1"));
    const auto denied = explain(policy, "u999@example.com", "10.3.231.9:1001");
    ASSERT_TRUE(denied && !denied->near_misses.empty());
    EXPECT_EQ(denied->near_misses.front().position.line, 1001U);
}

} // namespace
} // namespace tailrace
