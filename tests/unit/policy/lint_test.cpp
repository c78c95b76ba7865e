#include "policy/lint.hpp"

#include "policy/diff.hpp"
#include "tests/unit/policy/example_tailnet.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

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

TEST(Lint, FindsGrantsThatSendTheSameThroughTheSameRouters) {
    const auto grants = [](const std::string& first, const std::string& second) {
        return R"("grants": [{"src": ["tag:client"], )" + first + R"(},
        {"src": ["tag:client"], )" +
               second + "}]";
    };
    const std::string one = R"("dst": ["site"], "ip": ["443"], "via": ["tag:router", "tag:server"])";
    EXPECT_THAT(codes(grants(one, R"("dst": ["site"], "ip": ["443"], "via": ["tag:server", "tag:router"])")),
                Contains("7: repeated"));
    const auto internet = R"("dst": ["autogroup:internet"], "ip": ["*"], "via": ["tag:router"])";
    EXPECT_THAT(codes(grants(internet, internet)), Contains("7: repeated"));
    for (const char* other :
         {R"("dst": ["site"], "ip": ["443"], "via": ["tag:router"])", R"("dst": ["site"], "ip": ["443"])",
          R"("dst": ["site"], "ip": ["22"], "via": ["tag:router", "tag:server"])",
          R"("dst": ["10.33.1.0/24"], "ip": ["443"], "via": ["tag:router", "tag:server"])",
          R"("dst": ["site"], "ip": ["*"], "via": ["tag:router", "tag:server"])"})
        for (const char* code : {"6: repeated", "7: repeated", "6: shadowed", "7: shadowed"})
            EXPECT_THAT(codes(grants(one, other)), Not(Contains(code))) << other;
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

TEST(Lint, FindsRulesThatOthersContainTogether) {
    // by sources, by destinations, by ports
    EXPECT_THAT(codes(acls({R"("src": ["odin@example.com", "tag:client"], "dst": ["tag:server:22"])",
                            R"("src": ["odin@example.com"], "dst": ["tag:server:20-25"])",
                            R"("src": ["tag:client", "tag:prod"], "dst": ["tag:server:22"])"})),
                Contains("7: shadowed"));
    EXPECT_THAT(codes(acls({R"("src": ["tag:client"], "dst": ["site:80"])",
                            R"("src": ["tag:client"], "dst": ["10.33.0.0/17:*"])",
                            R"("src": ["tag:client"], "dst": ["10.33.128.0/17:*"])"})),
                Contains("7: shadowed"));
    EXPECT_THAT(codes(acls({R"("src": ["tag:client"], "dst": ["tag:server:80-90"])",
                            R"("src": ["tag:client"], "dst": ["tag:server:1-84"])",
                            R"("src": ["tag:client"], "dst": ["tag:server:85-100"])"})),
                Contains("7: shadowed"));
    EXPECT_THAT(codes(acls({R"("src": ["tag:client"], "dst": ["tag:server:80-90"])",
                            R"("src": ["tag:client"], "dst": ["tag:server:1-84"])",
                            R"("src": ["tag:client"], "dst": ["tag:server:86-100"])"})),
                Not(Contains("7: shadowed")))
        << "but for port 85";
    // across acls and grants, which come first
    const auto mixed = lint_text(
        lint(example_policy("\n" + acls({R"("src": ["tag:client"], "dst": ["tag:server:22"])"}) +
                            R"(, "grants": [{"src": ["tag:client"], "dst": ["tag:server"], "ip": ["tcp:1-100"]},
        {"src": ["autogroup:tagged"], "dst": ["tag:server"], "ip": ["udp:22"]}])")));
    EXPECT_THAT(mixed, HasSubstr("line 7, column 1: warning: this rule adds nothing: together line 7, column 85 and "
                                 "line 8, column 9 allow"));
    // What was found to add nothing covers nothing: not all three may go.
    const auto circle = codes(acls({R"("src": ["odin@example.com", "tag:client"], "dst": ["tag:server:22"])",
                                    R"("src": ["odin@example.com"], "dst": ["tag:server:22"])",
                                    R"("src": ["tag:client"], "dst": ["tag:server:22"])"}));
    EXPECT_THAT(circle, Contains("8: shadowed"));
    EXPECT_THAT(circle, Contains("9: shadowed"));
    EXPECT_THAT(circle, Not(Contains("7: shadowed")));
    // An exit node is another way than a router.
    EXPECT_THAT(codes(acls({R"("src": ["tag:client"], "dst": ["8.8.8.0/24:53"])",
                            R"("src": ["tag:client"], "dst": ["autogroup:internet:*"])"})),
                Not(Contains("7: shadowed")));
    EXPECT_THAT(codes(acls({R"("src": ["odin@example.com", "tag:client"], "dst": ["tag:server:22"])",
                            R"("src": ["odin@example.com"], "dst": ["tag:server:22"], "srcPosture": ["posture:p"])",
                            R"("src": ["tag:client", "tag:prod"], "dst": ["tag:server:22"])"}) +
                      R"(, "postures": {"posture:p": ["node:os == 'linux'"]})"),
                Not(Contains("7: shadowed")));
}

/// A few rules that have much in common, a line each.
std::vector<std::string> overlapping_rules(unsigned seed) {
    std::mt19937 engine{seed};
    const auto pick = [&](std::initializer_list<const char*> list) { return *(list.begin() + engine() % list.size()); };
    std::vector<std::string> rules(2 + engine() % 5);
    for (auto& rule : rules) {
        const auto source = [&] {
            return pick({"odin@example.com", "tag:client", "tag:prod", "autogroup:member", "autogroup:tagged", "*"});
        };
        const auto destination = [&] {
            return fmt::format("{}:{}",
                               pick({"tag:server", "site", "10.33.0.0/17", "10.33.128.0/17", "10.0.0.0/8", "*",
                                     "autogroup:internet", "thor@example.org"}),
                               pick({"22", "1-84", "85-100", "80-90", "*"}));
        };
        auto to = fmt::format("\"{}\"", destination());
        if (engine() % 2 == 0) to += fmt::format(", \"{}\"", destination());
        rule = fmt::format(R"("src": ["{}", "{}"], "dst": [{}]{})", source(), source(), to,
                           pick({"", "", R"(, "proto": "tcp")", R"(, "proto": "udp")"}));
    }
    return rules;
}

std::string with_rules(const std::vector<std::string>& rules) {
    std::string out = "\n\"acls\": [";
    for (const auto& rule : rules) out += fmt::format("\n{{\"action\": \"accept\", {}}},", rule);
    return example_policy(out + "]");
}

/// What diff, which goes about it another way, makes of a policy without the rules that are said to add nothing.
TEST(Lint, WhatAddsNothingCanGo) {
    int found = 0, together = 0;
    for (unsigned seed = 0; seed < 90; ++seed) {
        const auto rules = overlapping_rules(seed);
        const auto text = with_rules(rules);
        std::set<std::size_t> needless;
        for (const auto& finding : lint(text)) {
            if (finding.code != "shadowed" && finding.code != "repeated") continue;
            needless.insert(finding.position.line - 7);
            together += finding.message.find("together") != std::string::npos;
        }
        if (needless.empty()) continue;
        found += static_cast<int>(needless.size());
        std::vector<std::string> left;
        for (std::size_t i = 0; i < rules.size(); ++i)
            if (needless.count(i) == 0) left.push_back(rules[i]);
        auto before = Document::parse(text), after = Document::parse(with_rules(left));
        ASSERT_TRUE(before && after) << text;
        const auto diff = diff_policies(*before, *after);
        ASSERT_TRUE(diff.empty()) << text << diff.text();
    }
    EXPECT_GT(found, 40);
    EXPECT_GT(together, 1);
}

TEST(Lint, MeasuresWidthHoweverItIsWritten) {
    const auto warned = [](std::initializer_list<const char*> rules) {
        return lint_text(lint(example_policy("\n" + acls(rules)))).find("warning: this rule is wider than") !=
               std::string::npos;
    };
    EXPECT_TRUE(warned({R"("src": ["autogroup:member", "tag:client"], "dst": ["*:*"])"}));
    EXPECT_TRUE(warned({R"("src": ["*"], "dst": ["*:1-65535"])"}));
    EXPECT_TRUE(warned({R"("src": ["autogroup:member", "autogroup:tagged"], "dst": ["0.0.0.0/0:*", "::/0:*"])"}));
    EXPECT_FALSE(warned({R"("src": ["autogroup:member"], "dst": ["*:*"])"}));
    EXPECT_FALSE(warned({R"("src": ["autogroup:member", "tag:client"], "dst": ["0.0.0.0/0:*"])"}));
    EXPECT_FALSE(warned({R"("src": ["*"], "dst": ["*:*"], "proto": "tcp")"}));
}

TEST(Lint, KnowsWhereNothingLeads) {
    EXPECT_THAT(codes(acls({R"("src": ["tag:client"], "dst": ["127.0.0.1:22", "fe80::1:22", "224.0.0.0/24:*"])"})),
                Contains("7: never-matches"));
    EXPECT_THAT(codes(acls({R"("src": ["tag:client"], "dst": ["127.0.0.1:22", "169.254.169.254:80"])"})),
                Not(Contains("7: never-matches")));
    EXPECT_THAT(
        codes(R"("grants": [{"src": ["tag:client"], "dst": ["tag:server"], "ip": ["*"], "via": ["tag:router"]}])"),
        Contains("6: never-matches"));
    EXPECT_THAT(codes(R"("grants": [{"src": ["tag:client"], "dst": ["site"], "ip": ["*"], "via": ["tag:router"]}])"),
                Not(Contains("6: never-matches")));
}

TEST(Lint, FindsTagsThatNobodyOwnsInTheEnd) {
    const auto text = lint_text(lint(R"({"groups": {"group:e": [], "group:u": ["a@x.com"]}, "tagOwners": {
        "tag:n": ["group:e"],
        "tag:o": ["group:e", "tag:p"],
        "tag:p": ["tag:o"],
        "tag:q": ["group:e", "group:u"],
        "tag:r": ["tag:q"]}, "acls": []})"));
    EXPECT_THAT(text, HasSubstr("warning: tag:n is owned by groups without members"));
    EXPECT_THAT(text, HasSubstr("warning: tag:o is owned by tags that own each other"));
    EXPECT_THAT(text, HasSubstr("warning: tag:p is owned by tags that own each other"));
    EXPECT_THAT(text, Not(HasSubstr("tag:q is owned")));
    EXPECT_THAT(text, Not(HasSubstr("tag:r is owned")));
}

TEST(Lint, FindsLoginsThatOthersContain) {
    const auto ssh = [](std::initializer_list<const char*> rules) {
        std::string out = "\"acls\": [{\"action\": \"accept\", \"src\": [\"*\"], \"dst\": [\"*:22\"]}], \"ssh\": [";
        for (const auto* rule : rules) out += fmt::format("\n{{{}}},", rule);
        return codes(out + "]");
    };
    EXPECT_THAT(ssh({R"("action": "accept", "src": ["group:empty"], "dst": ["tag:server"], "users": ["u"])"}),
                Contains("7: never-matches"));
    const auto contained = ssh(
        {R"("action": "accept", "src": ["odin@example.com"], "dst": ["tag:server"], "users": ["u", "v"])",
         R"("action": "accept", "src": ["autogroup:member"], "dst": ["tag:server"], "users": ["autogroup:nonroot"])"});
    EXPECT_THAT(contained, Contains("7: shadowed"));
    EXPECT_THAT(contained, Not(Contains("8: shadowed")));
    const auto equal = ssh({R"("action": "accept", "src": ["tag:client"], "dst": ["tag:server"], "users": ["u"])",
                            R"("action": "accept", "src": ["tag:client"], "dst": ["tag:server"], "users": ["u"])"});
    EXPECT_THAT(equal, Contains("8: shadowed"));
    EXPECT_THAT(equal, Not(Contains("7: shadowed")));
    EXPECT_THAT(
        ssh({R"("action": "accept", "src": ["odin@example.com"], "dst": ["tag:server"], "users": ["root"])",
             R"("action": "accept", "src": ["autogroup:member"], "dst": ["tag:server"], "users": ["autogroup:nonroot"])"}),
        Not(Contains("7: shadowed")));
    EXPECT_THAT(
        ssh({R"("action": "check", "src": ["odin@example.com"], "dst": ["tag:server"], "users": ["u"], "checkPeriod": "1h")",
             R"("action": "check", "src": ["autogroup:member"], "dst": ["tag:server"], "users": ["u"])"}),
        Not(Contains("7: shadowed")))
        << "it asks more often";
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
