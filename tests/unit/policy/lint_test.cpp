#include "policy/lint.hpp"
#include "tests/unit/policy/example_tailnet.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tailrace {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

/// "line: code" of everything that is found.
std::vector<std::string> codes(const std::string& rules, const Tailnet* tailnet = nullptr) {
    std::vector<std::string> out;
    for (const auto& finding : lint(example_policy("\n" + rules), tailnet))
        out.push_back(fmt::format("{}: {}", finding.position.line, finding.code));
    return out;
}

std::string acls(std::initializer_list<const char*> rules) {
    std::string out = "\"acls\": [";
    for (const auto* rule : rules) out += fmt::format("\n{{\"action\": \"accept\", {}}},", rule);
    return out + "]";
}

TEST(Lint, FindsRulesThatCanNeverMatch) {
    EXPECT_THAT(codes(acls({R"("src": ["group:empty"], "dst": ["tag:server:22"])"})), Contains("7: never-matches"));
    EXPECT_THAT(codes(acls({R"("src": [], "dst": ["tag:server:22"])"})), Contains("7: never-matches"));
    EXPECT_THAT(codes(acls({R"("src": ["webserver"], "dst": ["fd7a::1:22"])"})), Contains("7: never-matches"));
    EXPECT_THAT(codes(acls({R"("src": ["group:admins"], "dst": ["tag:server:22"])"})),
                Not(Contains("7: never-matches")));
}

TEST(Lint, FindsWhatMatchesNothingInThisTailnet) {
    const auto tailnet = example_tailnet();
    const auto rule = acls({R"("src": ["group:admins"], "dst": ["10.99.0.0/16:22"])"});
    EXPECT_THAT(codes(rule, &tailnet), Contains("7: matches-nothing-now"));
    EXPECT_THAT(codes(rule), Not(Contains("7: matches-nothing-now")));
    EXPECT_THAT(codes(acls({R"("src": ["freya@example.com"], "dst": ["tag:server:22"])"}), &tailnet),
                Contains("7: matches-nothing-now"));
}

TEST(Lint, FindsShadowedRules) {
    EXPECT_THAT(codes(acls({R"("src": ["odin@example.com"], "dst": ["tag:server:22"])",
                            R"("src": ["group:admins"], "dst": ["tag:server:20-30"])"})),
                Contains("7: shadowed"));
    EXPECT_THAT(codes(acls({R"("src": ["tag:client"], "dst": ["10.33.1.0/24:80"])",
                            R"("src": ["autogroup:tagged"], "dst": ["site:*"])"})),
                Contains("7: shadowed"));
    const auto repeated = codes(acls(
        {R"("src": ["tag:client"], "dst": ["tag:server:22"])", R"("src": ["tag:client"], "dst": ["tag:server:22"])"}));
    EXPECT_THAT(repeated, Contains("8: repeated"));
    EXPECT_THAT(repeated, Not(Contains("7: repeated")));
}

TEST(Lint, KnowsWhatIsNoShadow) {
    for (const auto& rules :
         {acls({R"("src": ["odin@example.com"], "dst": ["tag:server:22"])",
                R"("src": ["group:admins"], "dst": ["tag:server:22"], "proto": "udp")"}),
          acls({R"("src": ["autogroup:member"], "dst": ["tag:server:22"])",
                R"("src": ["group:admins"], "dst": ["tag:server:22"], "srcPosture": ["posture:p"])"}) +
              R"(, "postures": {"posture:p": ["node:os == 'linux'"]})",
          acls({R"("src": ["autogroup:member"], "dst": ["autogroup:self:22"])",
                R"("src": ["group:admins"], "dst": ["autogroup:member:22"])"})})
        EXPECT_THAT(codes(rules), Not(Contains("7: shadowed"))) << rules;
    EXPECT_THAT(codes(acls({R"("src": ["group:admins"], "dst": ["tag:server:22"], "srcPosture": ["posture:p"])",
                            R"("src": ["autogroup:member"], "dst": ["tag:server:22"])"}) +
                      R"(, "postures": {"posture:p": ["node:os == 'linux'"]})"),
                Contains("7: shadowed"))
        << "a posture only narrows";
}

TEST(Lint, FindsRulesThatAreTooWide) {
    EXPECT_THAT(codes(acls({R"("src": ["*"], "dst": ["*:*"])"})), Contains("7: too-wide"));
    EXPECT_THAT(codes(acls({R"("src": ["autogroup:member"], "dst": ["*:*"])"})), Contains("7: too-wide"));
    EXPECT_THAT(codes(acls({R"("src": ["autogroup:danger-all"], "dst": ["tag:server:443"])"})),
                Contains("7: danger-all"));
    EXPECT_THAT(codes(acls({R"("src": ["autogroup:member"], "dst": ["*:22"])"})), Not(Contains("7: too-wide")));
}

TEST(Lint, FindsNamesThatAreNotWhatTheySeem) {
    const auto found = codes(R"("acls": [], "ipsets": {"ipset:x": ["10.0.0.0/8"]})");
    EXPECT_THAT(found, Contains("2: empty-group"));
    EXPECT_THAT(found, Contains("3: host-in-tailnet"));
    EXPECT_THAT(found, Contains("4: tag-without-owner"));
    EXPECT_THAT(found, Contains("6: unused-ipset"));
    const auto text = lint_text(lint(
        R"({"hosts": {"all": "100.64.0.0/10"}, "tagOwners": {"tag:a": ["tag:b"], "tag:b": ["tag:a"], "tag:c": ["autogroup:member"]}, "acls": []})"));
    EXPECT_THAT(text, HasSubstr("line 1, column 19: warning: host \"all\" (100.64.0.0/10) overlaps the addresses"));
    EXPECT_THAT(text, HasSubstr("tag:a is owned by tags that own each other"));
    EXPECT_THAT(text, HasSubstr("every member can give tag:c to a device"));
}

TEST(Lint, FindsLoginsThatNoPortLeadsTo) {
    const std::string ssh =
        R"(, "ssh": [{"action": "accept", "src": ["autogroup:member"], "dst": ["tag:server"], "users": ["ubuntu"]}])";
    EXPECT_THAT(codes(acls({R"("src": ["autogroup:member"], "dst": ["tag:server:443"])"}) + ssh),
                Contains("7: ssh-without-port"));
    EXPECT_THAT(codes(acls({R"("src": ["group:admins"], "dst": ["tag:server:22"])"}) + ssh),
                Not(Contains("7: ssh-without-port")));
}

TEST(Lint, SaysWhyAPolicyIsRefused) {
    EXPECT_EQ(lint_text(lint("{\"acls\": [}")),
              "line 1, column 11: error: invalid character '}' at start of value [syntax]\n");
    EXPECT_EQ(lint_text(lint("{\"acl\": []}")), "line 1, column 2: error: unknown field: \"acl\" [refused]\n");
}

TEST(FixPolicy, RewritesGrantsOfArticles) {
    const std::string text = R"({
  "groups": {"group:eng": ["alice@example.com"]},
  "tagOwners": {"tag:prod": []},
  "grants": [
    // the first
    {"who": "eng", "can": ["ssh", "tcp:8080"], "to": ["prod" /* all */], "because": "they run it"},
    {"who": ["everyone"], "can": "example.com/cap/see", "to": "the internet"}, // no
  ],
}
)";
    const auto before = lint(text);
    ASSERT_EQ(before.size(), 1U);
    EXPECT_EQ(before[0].code, "illustrative-grant");
    EXPECT_TRUE(before[0].fixable);
    auto fixed = fix_policy(text);
    ASSERT_TRUE(fixed);
    EXPECT_EQ(fixed->text, R"({
	"groups":    {"group:eng": ["alice@example.com"]},
	"tagOwners": {"tag:prod": []},
	"grants": [
		// the first
		// they run it
		{
			"src": ["group:eng"],
			"ip":  ["tcp:22", "tcp:8080"],
			"dst": ["tag:prod" /* all */ ],
		},
		{
			"src": ["autogroup:member"],
			"app": {"example.com/cap/see": [{}]},
			"dst": ["autogroup:internet"],
		}, // no
	],
}
)");
}

TEST(FixPolicy, LeavesWhatItDoesNotUnderstand) {
    const std::string text =
        R"({"grants": [{"who": "wizards", "can": "ssh", "to": "*"}, {"who": "*", "can": "frobnicate", "to": "*"}]})";
    auto fixed = fix_policy(text);
    ASSERT_TRUE(fixed);
    EXPECT_EQ(fixed->text, text);
    ASSERT_EQ(fixed->unclear.size(), 2U);
    EXPECT_EQ(fixed->unclear[0],
              "grants[0]: \"who\": can't tell whom \"wizards\" means; write a user, a group, a tag or an autogroup");
    EXPECT_EQ(fixed->unclear[1],
              "grants[1]: \"can\": can't tell which ports \"frobnicate\" means; write ip, such as [\"tcp:443\"]");
    EXPECT_FALSE(lint(text)[0].fixable);
}

TEST(FixPolicy, WritesOldNamesAnew) {
    auto fixed = fix_policy(
        R"({"acls": [{"action": "accept", "users": ["autogroup:members"], "ports": ["autogroup:members:22"]}],
        "tests": [{"user": "a@b.c", "allow": ["d@b.c:22"]}]})");
    ASSERT_TRUE(fixed);
    EXPECT_THAT(fixed->text, HasSubstr(R"("src":    ["autogroup:member"])"));
    EXPECT_THAT(fixed->text, HasSubstr(R"("dst":    ["autogroup:member:22"])"));
    EXPECT_THAT(fixed->text, HasSubstr(R"({"src": "a@b.c", "accept": ["d@b.c:22"]})"));
    EXPECT_THAT(fix_policy("{/* x */}")->changes, IsEmpty());
    EXPECT_EQ(fix_policy("{/* x */}")->text, "{/* x */}");
}

} // namespace
} // namespace tailrace
