#include "policy/access.hpp"
#include "policy/diff.hpp"
#include "tests/unit/policy/example_tailnet.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tailrace {
namespace {

using testing::HasSubstr;

Document document_of(const std::string& rules) {
    auto document = Document::parse(example_policy(rules));
    EXPECT_TRUE(document) << document.error().message();
    return document ? std::move(*document) : Document{};
}

std::string difference(const std::string& before, const std::string& after) {
    const auto tailnet = example_tailnet();
    return diff_policies(document_of(before), document_of(after), &tailnet).text();
}

std::string acl(const std::string& src, const std::string& dst) {
    return R"("acls": [{"action": "accept", "src": [)" + src + R"(], "dst": [)" + dst + "]}]";
}

TEST(Diff, SaysWhoGainsAndWhoLosesWhat) {
    EXPECT_EQ(
        difference(acl(R"("group:admins")", R"("tag:server:22")"), acl(R"("group:admins")", R"("tag:server:22,80")")),
        "odin@example.com gains tcp, udp 80 on tag:server (line 5)\n");
    EXPECT_EQ(
        difference(acl(R"("autogroup:member")", R"("tag:server:22")"), acl(R"("group:admins")", R"("tag:server:22")")),
        "thor@example.org loses tcp, udp 22 on tag:server (old line 5)\n");
}

TEST(Diff, SaysNothingWhenOnlyTheWordsDiffer) {
    const auto one = acl(R"("group:admins")", R"("tag:server:22", "tag:prod:22")");
    EXPECT_EQ(difference(one, R"("acls": [{"action": "accept", "src": ["odin@example.com"], "dst": ["tag:prod:22"]},
        {"action": "accept", "src": ["odin@example.com"], "dst": ["tag:server:20-22"]}, {"action": "accept", "src": [], "dst": []}])")
                  .find("tag:prod"),
              std::string::npos);
    EXPECT_EQ(difference(
                  one, R"("grants": [{"src": ["odin@example.com"], "dst": ["tag:prod", "tag:server"], "ip": ["22"]}])"),
              "nobody gains or loses anything\n");
}

TEST(Diff, JoinsPeopleAndPlacesIntoOneSentence) {
    EXPECT_EQ(difference(R"("acls": [])", acl(R"("autogroup:member")", R"("tag:server:443", "tag:prod:443")")),
              "autogroup:member gains tcp, udp 443 on tag:prod and tag:server (line 5)\n");
    EXPECT_EQ(difference(R"("acls": [])",
                         R"("grants": [{"src": ["autogroup:member"], "dst": ["autogroup:member"], "ip": ["*"]}])"),
              "autogroup:member gains anything on autogroup:member (line 5)\n");
}

TEST(Diff, ComparesNetworksAndTheInternet) {
    EXPECT_EQ(
        difference(acl(R"("tag:client")", R"("10.33.0.0/16:80")"), acl(R"("tag:client")", R"("10.33.0.0/24:80")")),
        "tag:client loses tcp, udp 80 on 10.33.1.0/24, 10.33.2.0/23, 10.33.4.0/22 and 5 more (old line 5)\n");
    EXPECT_EQ(difference(acl(R"("tag:client")", R"("autogroup:internet:*")"), R"("acls": [])"),
              "tag:client loses anything on the internet (old line 5)\n");
}

TEST(Diff, WhatIsAddedToARuleForEverythingTakesNothingAway) {
    const auto everything = R"({"action": "accept", "src": ["*"], "dst": ["*:*"]})";
    for (const char* added : {"::/0:*", "0.0.0.0/0:*", "::/0:443", "10.0.0.0/8:*", "fd7a:115c:a1e0::/48:*"}) {
        const auto beside = acl(R"("*")", fmt::format(R"("*:*", "{}")", added));
        const auto behind =
            fmt::format(R"("acls": [{}, {{"action": "accept", "src": ["*"], "dst": ["{}"]}}])", everything, added);
        const auto before = fmt::format(R"("acls": [{}])", everything);
        for (const auto& after : {beside, behind}) {
            EXPECT_EQ(difference(before, after), "nobody gains or loses anything\n") << added << ": " << after;
            EXPECT_EQ(difference(after, before), "nobody gains or loses anything\n") << added << ", back: " << after;
        }
    }
}

TEST(Diff, NamesConditions) {
    const std::string postures = R"(, "postures": {"posture:p": ["node:os == 'linux'"]})";
    const std::string rule = R"("acls": [{"action": "accept", "src": ["odin@example.com"], "dst": ["tag:server:22"])";
    const auto free = rule + "}]" + postures;
    const auto bound = rule + R"(, "srcPosture": ["posture:p"]}])" + postures;
    EXPECT_EQ(difference(free, bound),
              "odin@example.com loses tcp, udp 22 (still if posture:p) on tag:server (old line 5)\n");
    EXPECT_EQ(difference(bound, free),
              "odin@example.com gains tcp, udp 22 (before only if posture:p) on tag:server (line 5)\n");
    EXPECT_EQ(difference(R"("acls": [])" + postures, bound),
              "odin@example.com gains tcp, udp 22 (if posture:p) on tag:server (line 5)\n");
}

TEST(Diff, ComparesCapabilitiesAndLogins) {
    EXPECT_EQ(
        difference(R"("grants": [])",
                   R"("grants": [{"src": ["tag:client"], "dst": ["tag:server"], "app": {"a.com/b": [{"x": 1}]}}])"),
        "tag:client gains capability a.com/b {\"x\":1} on tag:server (line 5)\n");
    const std::string ssh =
        R"("acls": [], "ssh": [{"src": ["odin@example.com"], "dst": ["tag:server"], "users": ["root"], "action": )";
    EXPECT_EQ(difference(R"("acls": [])", ssh + R"("accept"}])"),
              "odin@example.com gains the login root on tag:server\n");
    EXPECT_EQ(difference(ssh + R"("accept"}])", ssh + R"("check"}])"),
              "odin@example.com loses the login root on tag:server\n"
              "odin@example.com gains the login root (check) on tag:server\n");
}

TEST(Diff, ComparesTagsAttributesAndApprovals) {
    const auto before = Document::parse(R"({"tagOwners": {"tag:a": []}})");
    const auto after = Document::parse(R"({"tagOwners": {"tag:a": ["thor@example.org"], "tag:b": []},
        "nodeAttrs": [{"target": ["odin@example.com"], "attr": ["funnel"]}], "autoApprovers": {"routes": {"10.0.0.0/8": ["odin@example.com"]}}})");
    ASSERT_TRUE(before && after);
    const auto tailnet = example_tailnet();
    const auto text = diff_policies(*before, *after, &tailnet).text();
    EXPECT_THAT(text, HasSubstr("thor@example.org gains the right to give devices tag:a"));
    EXPECT_THAT(text, HasSubstr("odin@example.com gains the attribute funnel"));
    EXPECT_THAT(text, HasSubstr("odin@example.com gains approval of routes in 10.0.0.0/8 by itself"));
    EXPECT_THAT(text, HasSubstr("tag:b is new"));
}

TEST(Diff, WorksWithoutATailnet) {
    const auto before = document_of(acl(R"("group:admins")", R"("tag:server:22")"));
    const auto after = document_of(acl(R"("autogroup:member")", R"("tag:server:22")"));
    EXPECT_EQ(diff_policies(before, after).text(),
              "somebody-else@example.com gains tcp, udp 22 on tag:server (line 5)\n");
    EXPECT_THAT(diff_policies(before, after).json(), HasSubstr(R"("kind":"gain","who":["somebody-else@example.com"])"));
}

TEST(Diff, NamesOnlyTheLinesThatMakeTheDifference) {
    const auto rules = [](const char* first) {
        return fmt::format(R"("acls": [
{{"action": "accept", "src": ["odin@example.com"], "dst": ["tag:server:{}"]}},
{{"action": "accept", "src": ["odin@example.com"], "dst": ["tag:server:53"], "proto": "udp"}},
{{"action": "accept", "src": ["odin@example.com"], "dst": ["tag:server:8080"]}}])",
                           first);
    };
    EXPECT_EQ(difference(rules("443"), rules("444")), "odin@example.com loses tcp, udp 443 on tag:server (old line 6)\n"
                                                      "odin@example.com gains tcp, udp 444 on tag:server (line 6)\n");
    // Both rules that gave it are named.
    EXPECT_EQ(difference(rules("8000-8080"), R"("acls": [])"),
              "odin@example.com loses udp 53, 8000-8080; tcp 8000-8080 on tag:server (old lines 6, 7 and 8)\n");
}

TEST(Diff, JsonNamesEverythingOneStringEach) {
    const auto tailnet = example_tailnet();
    const auto json = diff_policies(document_of(acl(R"("tag:client")", R"("10.33.0.0/16:80")")),
                                    document_of(acl(R"("tag:client")", R"("10.33.0.0/24:80")")), &tailnet)
                          .json();
    EXPECT_THAT(json, HasSubstr(R"("what":["10.33.1.0/24","10.33.2.0/23","10.33.4.0/22","10.33.8.0/21",)"
                                R"("10.33.16.0/20","10.33.32.0/19","10.33.64.0/18","10.33.128.0/17"])"));
    EXPECT_THAT(json, HasSubstr("10.33.4.0/22 and 5 more (old line 5)"));
    const auto internet = diff_policies(document_of(acl(R"("tag:client")", R"("autogroup:internet:*")")),
                                        document_of(R"("acls": [])"), &tailnet);
    EXPECT_THAT(internet.json(), HasSubstr(R"("what":["the internet"])"));
    const auto most = diff_policies(document_of(acl(R"("tag:client")", R"("autogroup:internet:*")")),
                                    document_of(acl(R"("tag:client")", R"("8.0.0.0/8:*")")), &tailnet);
    EXPECT_THAT(most.json(), HasSubstr(R"("0.0.0.0/5",)")) << "not all of it: which part is said";
}

TEST(Access, SubtractsPorts) {
    Access all, some;
    all.add_ports("", 6, {{1, 100}});
    some.add_ports("", 6, {{1, 9}, {20, 30}, {99, 200}});
    EXPECT_EQ(all.minus(some, "still").text(), "tcp 10-19, 31-98");
    EXPECT_TRUE(all.minus(all, "still").empty());
    Access conditional;
    conditional.add_ports("if posture:x", 6, {{50, 50}});
    EXPECT_TRUE(conditional.minus(all, "still").empty());
    EXPECT_EQ(all.minus(conditional, "still").text(), "tcp 1-49, 51-100; tcp 50 (still if posture:x)");
}

} // namespace
} // namespace tailrace
