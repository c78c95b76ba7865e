#include "policy/check.hpp"
#include "policy/words.hpp"
#include "tests/unit/policy/example_tailnet.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tailrace {
namespace {

/// What the service would say, without the place.
std::string refusal(const std::string& rules) {
    PolicyProblem problem;
    auto document = Document::parse(example_policy(rules), &problem);
    return document ? "accepted" : problem.message;
}

std::string refusal_here(const std::string& rules) {
    PolicyProblem problem;
    auto document = check(example_policy(rules), example_tailnet(), &problem);
    return document ? "accepted" : problem.message;
}

std::string acl(const std::string& members) {
    return R"("acls": [{"action": "accept", )" + members + "}]";
}
std::string grant(const std::string& members) {
    return R"("grants": [{)" + members + "}]";
}

TEST(Document, PutsThePlaceBeforeTheReason) {
    auto document = Document::parse(
        "{\n  \"acls\": [\n    {\"action\": \"accept\", \"src\": [\"tag:web\"], \"dst\": [\"*:*\"]},\n  ],\n}\n");
    ASSERT_FALSE(document);
    EXPECT_EQ(document.error().message(), "line 3, column 34: src=tag not found: \"tag:web\"");
}

TEST(Document, KeepsTheWordsOfSyntaxErrors) {
    auto document = Document::parse("{\"acls\": [}");
    ASSERT_FALSE(document);
    EXPECT_EQ(document.error().message(), "hujson: line 1, column 11: invalid character '}' at start of value");
}

TEST(Document, AllowsEverythingWhenEmpty) {
    auto document = Document::parse("  \n");
    ASSERT_TRUE(document);
    EXPECT_FALSE(document->acls || document->grants);
}

TEST(Document, ReadsFieldNamesInAnyCase) {
    auto document = Document::parse(R"({"ACLs": [{"Action": "accept", "Users": ["a@b.c"], "Ports": ["*:22"]}]})");
    ASSERT_TRUE(document) << document.error().message();
    EXPECT_EQ(document->acls->size(), 1U);
}

TEST(Document, RefusesUnknownAndRepeatedFields) {
    EXPECT_EQ(refusal(R"("acl": [])"), "unknown field: \"acl\"");
    EXPECT_EQ(refusal(R"("acls": [], "ACLS": [])"), "duplicate field: \"ACLS\"");
    EXPECT_EQ(refusal(R"("acls": {})"), "acls: want array, not object");
    EXPECT_EQ(refusal(acl(R"("#ha-meta": {}, "src": [], "dst": [])")), "accepted");
}

TEST(Document, RefusesAclsAsTheServiceDoes) {
    EXPECT_EQ(refusal(R"("acls": [{"action": "deny", "src": ["*"], "dst": ["*:*"]}])"),
              "action=\"deny\" is not supported");
    EXPECT_EQ(refusal(acl(R"("src": ["autogroup:self"], "dst": ["*:*"])")),
              "\"autogroup:self\" not valid on the src side of a rule");
    EXPECT_EQ(refusal(acl(R"("src": ["*"], "dst": ["autogroup:self"])")),
              "dst=\"autogroup:self\": port range \"self\": invalid first integer");
    EXPECT_EQ(refusal(acl(R"("src": ["*"], "dst": ["tag:nonexistent:22"])")),
              "dst=\"tag:nonexistent\": tag not found: \"tag:nonexistent\"");
    EXPECT_EQ(refusal(acl(R"("src": ["*"], "dst": ["tag:server:ssh"])")),
              "dst=\"tag:server:ssh\": port range \"ssh\": invalid first integer");
    EXPECT_EQ(refusal(acl(R"("src": ["tag:client"], "dst": ["autogroup:self:*"])")),
              "autogroup:self can only be used with users, groups, or supported autogroups");
    EXPECT_EQ(refusal(acl(R"("src": ["*"], "dst": ["tag:server:22"], "proto": "icmp")")),
              "protocol does not support specific ports: \"icmp\", only \"*\" is allowed");
    EXPECT_EQ(refusal(acl(R"("src": ["*"], "dst": ["tag:server:70000"])")),
              "dst=\"tag:server:70000\": port range \"70000\": invalid first integer: ports are 1-65535");
    EXPECT_EQ(refusal(acl(R"("src": ["*"], "dst": ["autogroup:danger-all:22"])")),
              "cannot use autogroup:danger-all as a dst");
}

TEST(Document, ReadsEverySpellingOfAnIPv6Destination) {
    for (const auto* spelling : {"[fd7a::1]:80", "fd7a::1:80", "[fd7a::]/64:80", "fd7a::/64:80"})
        EXPECT_EQ(refusal(acl(fmt::format(R"("src": ["*"], "dst": ["{}"])", spelling))), "accepted") << spelling;
    EXPECT_NE(refusal(acl(R"("src": ["*"], "dst": ["[10.0.0.1]:80"])")), "accepted");
}

TEST(Document, RefusesGrantsAsTheServiceDoes) {
    EXPECT_EQ(refusal(grant(R"("src": ["*"], "dst": ["*"], "ip": [])")), "ip and app can not both be empty");
    EXPECT_EQ(refusal(grant(R"("src": ["*"], "dst": ["*"], "ip": ["icmp"])")),
              "port range \"icmp\": invalid first integer");
    EXPECT_EQ(refusal(grant(R"("src": ["*"], "dst": ["*"], "ip": ["tcp:0"])")),
              "port range \"0\": first port must be >0, or use '*' for wildcard");
    EXPECT_EQ(refusal(grant(R"("src": ["*"], "dst": ["0.0.0.0/0"], "ip": ["*"])")),
              "dst \"0.0.0.0/0\": to allow all IP addresses, use \"*\" or \"autogroup:internet\"");
    EXPECT_EQ(refusal(grant(R"("src": ["*"], "dst": ["autogroup:self"], "ip": ["*"])")),
              "autogroup:self can only be used with users, groups, or supported autogroups");
    EXPECT_EQ(refusal(grant(R"("src": ["*"], "dst": ["autogroup:internet"], "app": {"a.com/b": [{}]})")),
              "cannot use app grants with autogroup:internet");
    EXPECT_EQ(refusal(grant(R"("src": ["*"], "dst": ["*"], "app": {"https://a.com/b": [{}]})")),
              "capability name must have the form {domain}/{path}");
    EXPECT_EQ(refusal(grant(R"("src": ["*"], "dst": ["*"], "app": {"tailscale.com/cap/funnel": [{}]})")),
              "capability name must not be in the tailscale.com domain");
    EXPECT_EQ(refusal(grant(R"("src": ["*"], "dst": ["site"], "ip": ["*"], "via": ["odin@example.com"])")),
              "via can only be a tag");
    EXPECT_EQ(refusal(grant(R"("src": ["*"], "dst": ["site"], "ip": ["*"], "via": ["tag:x"])")),
              "tag \"tag:x\" not found");
}

TEST(Document, ExplainsGrantsCopiedFromArticles) {
    EXPECT_NE(refusal(grant(R"("who": ["*"], "can": ["ssh"], "to": ["*"], "because": "x")"))
                  .find("is how articles explain a grant"),
              std::string::npos);
}

TEST(Document, RefusesGroupsOfGroupsNamingTheLast) {
    PolicyProblem problem;
    EXPECT_FALSE(Document::parse(R"({"groups": {"group:a": ["group:b"], "group:b": ["group:a"]}})", &problem));
    EXPECT_EQ(problem.message, "groups[\"group:b\"]: \"group:a\": group members cannot be recursive");
}

TEST(Document, RefusesTagNamesThatTheServiceRefuses) {
    PolicyProblem problem;
    EXPECT_FALSE(Document::parse("{\"tagOwners\": {\"tag:\u0441\u0435\u0440\u0432\u0435\u0440\": []}}", &problem));
    EXPECT_EQ(
        problem.message,
        "tagOwners[\"tag:\u0441\u0435\u0440\u0432\u0435\u0440\"]: tag names must start with a letter, after 'tag:'");
}

TEST(Document, RefusesSshAsTheServiceDoes) {
    const auto ssh = [&](const std::string& members) { return refusal(R"("ssh": [{)" + members + "}]"); };
    const std::string sides = R"("src": ["autogroup:member"], "dst": ["tag:server"], )";
    EXPECT_EQ(ssh(sides + R"("users": ["root"])"), "action must be specified");
    EXPECT_EQ(ssh(sides + R"("action": "ACCEPT", "users": ["root"])"), "\"ACCEPT\" is not a valid action");
    EXPECT_EQ(ssh(sides + R"("action": "accept")"), "users must be specified");
    EXPECT_EQ(ssh(sides + R"("action": "accept", "users": ["*"])"), "user \"*\" is not valid");
    EXPECT_EQ(ssh(sides + R"("action": "check", "users": ["root"], "checkPeriod": "200h")"),
              "checkPeriod 200h0m0s is above the max (168h)");
    EXPECT_EQ(ssh(sides + R"("action": "check", "users": ["root"], "checkPeriod": "-1m")"),
              "checkPeriod -1m0s must be a positive duration");
    EXPECT_EQ(ssh(sides + R"("action": "check", "users": ["root"], "checkPeriod": "abc")"),
              "time: invalid duration \"abc\"");
    EXPECT_EQ(ssh(R"("action": "accept", "src": ["autogroup:member"], "dst": ["webserver"], "users": ["root"])"),
              "invalid dst \"webserver\"");
    EXPECT_EQ(ssh(R"("action": "check", "src": ["tag:client"], "dst": ["tag:server"], "users": ["root"])"),
              "[ssh] \"check\" action does not support tags in src");
}

TEST(Document, ReadsIpsetsInOrder) {
    auto document = Document::parse(
        R"({"hosts": {"web": "192.0.2.9"}, "ipsets": {"ipset:b": ["ipset:a", "host:web"], "ipset:a": ["10.0.0.0/8", "remove 10.9.0.0/16", "10.9.0.5-10.9.0.6"]}})");
    ASSERT_TRUE(document) << document.error().message();
    std::string all;
    for (const auto& range : document->ipsets["ipset:b"]) all += range.text() + " ";
    EXPECT_EQ(all, "10.0.0.0-10.8.255.255 10.9.0.5-10.9.0.6 10.10.0.0-10.255.255.255 192.0.2.9-192.0.2.9 ");
    EXPECT_FALSE(Document::parse(R"({"ipsets": {"ipset:a": ["ipset:b"], "ipset:b": ["ipset:a"]}})"));
}

TEST(Document, RefusesTheTwoSpellingsOfMemberTogether) {
    EXPECT_EQ(refusal(acl(R"("src": ["autogroup:members"], "dst": ["tag:server:22"])")), "accepted");
    EXPECT_EQ(refusal(acl(R"("src": ["autogroup:members"], "dst": ["autogroup:member:22"])")),
              "autogroup:members is the old name of autogroup:member: a policy may not use both");
}

TEST(Document, ChecksWhatHoldsForTheWholeNetwork) {
    EXPECT_EQ(refusal(R"("OneCGNATRoute": "mac-always")"), "accepted");
    EXPECT_EQ(refusal(R"("OneCGNATRoute": "always")"),
              "OneCGNATRoute \"always\": want \"\", \"mac-always\" or \"mac-never\"");
    EXPECT_EQ(refusal(R"("disableIPv4": "yes")"), "disableIPv4: want boolean, not string");
    EXPECT_EQ(refusal(R"("attrConfig": {"custom:tier": {"type": "number", "allowSetByNode": true}})"), "accepted");
    EXPECT_EQ(refusal(R"("attrConfig": {"custom:tier": {"type": "float"}})"),
              "attrConfig[\"custom:tier\"]: type \"float\": want string, number or bool");
    EXPECT_EQ(refusal(R"("attrConfig": {"tier": {"type": "number"}})"),
              "attrConfig[\"tier\"]: names start with \"custom:\" and have at most 50 characters");
}

TEST(Document, ChecksTheDerpMap) {
    const auto derp = [&](const std::string& region) {
        return refusal(R"("derpMap": {"OmitDefaultRegions": true, "Regions": {)" + region + "}}");
    };
    EXPECT_EQ(
        derp(
            R"("900": {"RegionID": 900, "RegionCode": "x", "Nodes": [{"Name": "a", "RegionID": 900, "HostName": "d.example.com", "DERPPort": 443}]}, "1": null)"),
        "accepted");
    EXPECT_EQ(derp(R"("900": {"RegionID": 901})"), "derpMap.Regions[\"900\"]: RegionID must be 900");
    EXPECT_EQ(derp(R"("900": {"RegionCode": "x"})"), "derpMap.Regions[\"900\"]: RegionID must be 900");
    EXPECT_EQ(derp(R"("mine": null)"), "derpMap.Regions[\"mine\"]: regions are named by their number");
    EXPECT_EQ(derp(R"("900": {"RegionID": 900, "Nodes": [{"Name": "a"}]})"),
              "derpMap.Regions[\"900\"]: a node needs a HostName");
    EXPECT_EQ(derp(R"("900": {"RegionID": 900, "Hosts": []})"), "unknown field: \"Hosts\"");
}

TEST(Document, ChecksThatPosturesCompareWhatCanBeCompared) {
    const auto posture = [&](const std::string& assertion) {
        return refusal(R"("attrConfig": {"custom:n": {"type": "number"}}, "postures": {"posture:p": [")" + assertion +
                       "\"]}");
    };
    for (const auto* good : {"node:os IN ['linux', 'macos']", "node:tsVersion >= '1.40'", "node:tsAutoUpdate",
                             "custom:n > 3", "custom:other > 'x'", "ip:country NOT SET"})
        EXPECT_EQ(posture(good), "accepted") << good;
    EXPECT_EQ(posture("node:os < 'linux'"),
              "postures[\"posture:p\"]: \"node:os < 'linux'\": node:os is a string and has no order");
    EXPECT_EQ(posture("node:tsVersion >= 1"), "postures[\"posture:p\"]: \"node:tsVersion >= 1\": node:tsVersion is a "
                                              "string: compare it with one in single quotes");
    EXPECT_EQ(posture("custom:n == 'x'"),
              "postures[\"posture:p\"]: \"custom:n == 'x'\": custom:n is a number: compare it with one");
    EXPECT_EQ(posture("node:tsAutoUpdate == 'true'"), "postures[\"posture:p\"]: \"node:tsAutoUpdate == 'true'\": "
                                                      "node:tsAutoUpdate is true or false: compare it with == or !=");
}

TEST(Check, AssumesTheAttributesThatSshTestsSay) {
    const std::string rules = R"("postures": {"posture:p": ["node:os == 'linux'"]}, "ssh": [{"action": "accept",
        "src": ["odin@example.com"], "srcPosture": ["posture:p"], "dst": ["tag:server"], "users": ["root"]}], )";
    EXPECT_EQ(
        refusal_here(rules + R"("sshTests": [{"src": "odin@example.com", "dst": ["tag:server"], "accept": ["root"],
        "srcPostureAttrs": {"node:os": "linux"}}])"),
        "accepted");
    EXPECT_EQ(
        refusal_here(rules + R"("sshTests": [{"src": "odin@example.com", "dst": ["tag:server"], "accept": ["root"]}])"),
        "test(s) failed");
}

TEST(Check, RefusesDomainsOfOthers) {
    EXPECT_EQ(
        refusal_here(
            R"("ssh": [{"action": "accept", "src": ["user:*@example.org"], "dst": ["tag:server"], "users": ["root"]}])"),
        "[ssh] example.org is not associated with this Tailnet and cannot be used in user:*@<domain> expressions");
}

TEST(Check, RefusesAPolicyThatFailsItsOwnTests) {
    const std::string rule = acl(R"("src": ["odin@example.com"], "dst": ["tag:server:22"])");
    EXPECT_EQ(
        refusal_here(
            rule + R"(, "tests": [{"src": "odin@example.com", "accept": ["tag:server:22"], "deny": ["tag:prod:22"]}])"),
        "accepted");
    EXPECT_EQ(refusal_here(rule + R"(, "tests": [{"src": "thor@example.org", "accept": ["tag:server:22"]}])"),
              "test(s) failed");
    auto document =
        check(example_policy(rule + R"(, "tests": [{"src": "thor@example.org", "accept": ["tag:server:22"]}])"),
              example_tailnet());
    ASSERT_FALSE(document);
    EXPECT_NE(document.error().message().find("thor@example.org: address \"tag:server:22\": want: Accept, got: Drop"),
              std::string::npos)
        << document.error().message();
}

TEST(Check, TestsUsersWhoHaveNoDeviceYet) {
    EXPECT_EQ(refusal_here(acl(R"("src": ["freya@example.com"], "dst": ["tag:server:22"])") +
                           R"(, "tests": [{"src": "freya@example.com", "accept": ["tag:server:22"]}])"),
              "accepted");
}

TEST(Check, TestsReachOwnDevicesAndRoutersByTag) {
    EXPECT_EQ(refusal_here(acl(R"("src": ["autogroup:member"], "dst": ["autogroup:self:22"])") +
                           R"(, "tests": [{"src": "odin@example.com", "accept": ["autogroup:self:22"]}])"),
              "accepted");
    EXPECT_EQ(
        refusal_here(grant(R"("src": ["tag:client"], "dst": ["site"], "ip": ["tcp:443"], "via": ["tag:backup"])") +
                     R"(, "tests": [{"src": "tag:client", "accept": ["10.33.1.1:443"]}])"),
        "accepted");
}

TEST(Check, WithoutAProtocolAnyOfTheUsualOnesWillDo) {
    const auto test = [](const char* rule_protocol, const char* test_protocol) {
        return refusal_here(
            acl(fmt::format(R"("src": ["odin@example.com"], "proto": "{}", "dst": ["tag:server:53"])", rule_protocol)) +
            fmt::format(R"(, "tests": [{{"src": "odin@example.com"{}, "accept": ["tag:server:53"]}}])", test_protocol));
    };
    EXPECT_EQ(test("udp", ""), "accepted");
    EXPECT_EQ(test("tcp", ""), "accepted");
    EXPECT_EQ(test("udp", R"(, "proto": "udp")"), "accepted");
    EXPECT_EQ(test("udp", R"(, "proto": "tcp")"), "test(s) failed");
}

TEST(Check, SshTestsTakeACheckForAnAccept) {
    const auto test = [](const char* action, const char* users, const char* expectation) {
        return refusal_here(fmt::format(
            R"("ssh": [{{"action": "{}", "src": ["odin@example.com"], "dst": ["tag:server"], "users": [{}]}}],
            "sshTests": [{{"src": "odin@example.com", "dst": ["tag:server"], {}}}])",
            action, users, expectation));
    };
    EXPECT_EQ(test("check", R"("root")", R"("accept": ["root"])"), "accepted");
    EXPECT_EQ(test("check", R"("root")", R"("check": ["root"])"), "accepted");
    EXPECT_EQ(test("accept", R"("root")", R"("check": ["root"])"), "test(s) failed");
    EXPECT_EQ(test("check", R"("root")", R"("deny": ["root"])"), "test(s) failed");
    // autogroup:nonroot is any name as itself, and never root.
    EXPECT_EQ(test("accept", R"("autogroup:nonroot")", R"("accept": ["ubuntu", "anybody"], "deny": ["root"])"),
              "accepted");
    EXPECT_EQ(test("accept", R"("autogroup:nonroot")", R"("accept": ["root"])"), "test(s) failed");
    EXPECT_EQ(test("accept", R"("autogroup:nonroot", "root")", R"("accept": ["root", "ubuntu"])"), "accepted");
    EXPECT_EQ(test("accept", R"("ubuntu")", R"("accept": ["ubuntu"], "deny": ["debian"])"), "accepted");
}

TEST(Check, TestsAssumeAttributesOfTheirSourceAlone) {
    const std::string rules = R"("postures": {"posture:p": ["node:os == 'linux'"], "posture:none": ["node:os NOT SET"]},
        "acls": [{"action": "accept", "src": ["*"], "srcPosture": ["posture:p"], "dst": ["tag:server:22"]},
                 {"action": "accept", "src": ["100.64.0.19", "10.33.0.0/16"], "srcPosture": ["posture:p"], "dst": ["tag:prod:22"]},
                 {"action": "accept", "src": ["tag:client"], "srcPosture": ["posture:none"], "dst": ["tag:prod:80"]}])";
    const auto test = [&](const char* test) { return refusal_here(rules + ", \"tests\": [{" + test + "}]"); };
    EXPECT_EQ(test(R"("src": "odin@example.com", "deny": ["tag:server:22"])"), "accepted");
    EXPECT_EQ(
        test(R"("src": "odin@example.com", "accept": ["tag:server:22"], "srcPostureAttrs": {"node:os": "linux"})"),
        "accepted");
    EXPECT_EQ(test(R"("src": "odin@example.com", "deny": ["tag:server:22"], "srcPostureAttrs": {"node:os": "macos"})"),
              "accepted");
    // An address is that of its device; a host behind a router has no attributes at all.
    EXPECT_EQ(test(R"("src": "odin@example.com", "accept": ["tag:prod:22"], "srcPostureAttrs": {"node:os": "linux"})"),
              "accepted");
    EXPECT_EQ(test(R"("src": "10.33.1.1", "deny": ["tag:prod:22"], "srcPostureAttrs": {"node:os": "linux"})"),
              "accepted");
    EXPECT_EQ(test(R"("src": "tag:client", "accept": ["tag:prod:80"])"), "accepted");
    EXPECT_EQ(test(R"("src": "tag:client", "deny": ["tag:prod:80"], "srcPostureAttrs": {"node:os": "linux"})"),
              "accepted");
    // Each test forgets what the one before assumed; the default posture holds where a rule has none of its own.
    EXPECT_EQ(refusal_here(rules + R"(, "tests": [
        {"src": "odin@example.com", "accept": ["tag:server:22"], "srcPostureAttrs": {"node:os": "linux"}},
        {"src": "odin@example.com", "deny": ["tag:server:22"]},
        {"src": "thor@example.org", "deny": ["tag:server:22"], "srcPostureAttrs": {"node:os": 3}}])"),
              "accepted");
    EXPECT_EQ(refusal_here(R"("postures": {"posture:p": ["node:os == 'linux'"]}, "defaultSrcPosture": ["posture:p"],
        "acls": [{"action": "accept", "src": ["*"], "dst": ["tag:server:22"]}], "tests": [
        {"src": "tag:client", "deny": ["tag:server:22"]},
        {"src": "tag:client", "accept": ["tag:server:22"], "srcPostureAttrs": {"node:os": "linux"}}])"),
              "accepted");
}

TEST(Document, RefusesAppConnectorsThatAgentsCouldNotRead) {
    const auto app = [](const std::string& members) {
        return R"("nodeAttrs": [{"target": ["*"], "app": {"tailscale.com/app-connectors": [{)" + members + "}]}}]";
    };
    const std::string what = R"(app["tailscale.com/app-connectors"])";
    EXPECT_EQ(
        refusal(app(R"("name": "shop", "connectors": ["*", "tag:router"], "routes": ["192.0.2.0/24", "2001:db8::1/128"],
                            "domains": ["example.com", "*.Example.org", "_sip.example.net.", "intranet"])")),
        "accepted");
    EXPECT_EQ(refusal(app(R"("Domains": null)")), "accepted");

    EXPECT_EQ(refusal(app(R"("domain": ["example.com"])")), "unknown field: \"domain\"");
    EXPECT_EQ(refusal(app(R"("name": 7)")), what + ".name: want string, not number");
    EXPECT_EQ(refusal(app(R"("domains": "example.com")")), what + ".domains: want array, not string");
    EXPECT_EQ(refusal(app(R"("domains": [7])")), what + ".domains: want string, not number");
    for (const std::string name : {"", "*", "*.", "*example.com", "a.*.example.com", "https://example.com",
                                   "example.com:443", ".example.com", "a..example.com", " example.com"})
        EXPECT_EQ(refusal(app("\"domains\": [\"" + name + "\"]")),
                  what + ".domains: \"" + name +
                      "\": want a name such as example.com, or *.example.com for all below it");
    EXPECT_EQ(refusal(app(R"("domains": ["bücher.example"])")),
              what +
                  ".domains: \"bücher.example\": want a name such as example.com, or *.example.com for all below it; "
                  "letters beyond ASCII as the DNS has them, xn--...");
    EXPECT_EQ(refusal(app("\"domains\": [\"" + std::string(64, 'a') + ".example\"]")).substr(0, what.size() + 9),
              what + ".domains:");
    EXPECT_EQ(refusal(app(R"("connectors": ["router"])")),
              what + ".connectors: \"router\": want a tag, or * for all that offer it");
    EXPECT_EQ(refusal(app(R"("connectors": ["tag:ruter"])")), what + ".connectors: tag not found: \"tag:ruter\"");
    EXPECT_EQ(refusal(app(R"("routes": ["192.0.2.7"])")),
              what + ".routes: \"192.0.2.7\": want a prefix: write 192.0.2.7/32");
    EXPECT_EQ(refusal(app(R"("routes": ["192.0.2.7/24"])")),
              what + ".routes: \"192.0.2.7/24\": want a prefix without bits behind its length: write 192.0.2.0/24");
    EXPECT_EQ(refusal(app(R"("routes": ["192.0.2.0/33"])")),
              what + ".routes: \"192.0.2.0/33\" is not a prefix: the length must be 0 to 32");
    EXPECT_EQ(refusal(app(R"("routes": [""])")), what + ".routes: \"\": want a prefix such as 192.0.2.0/24");

    EXPECT_EQ(refusal(R"("nodeAttrs": [{"target": ["*"], "app": {"example.com/app-connectors": [{"domains": 7}]}}])"),
              "accepted")
        << "somebody else's";
    auto document =
        Document::parse("{\"nodeAttrs\": [{\"target\": [\"*\"],\n  \"app\": {\"tailscale.com/app-connectors\": [\n"
                        "    {\"domains\": [\"good.example\", \"*\"]}]}}]}");
    ASSERT_FALSE(document);
    EXPECT_THAT(document.error().message(), testing::StartsWith("line 3, column 34: app["));
}

TEST(Document, KeepsAppConnectorsOfAPolicyInForce) {
    constexpr const char* kOld =
        R"({"nodeAttrs": [{"target": ["*"], "app": {"tailscale.com/app-connectors": [{"domains": "example.com"}]}}]})";
    EXPECT_FALSE(Document::parse(kOld));
    EXPECT_TRUE(Document::parse(kOld, nullptr, PolicyIs::InForce));
    EXPECT_FALSE(Document::parse(R"({"acls": {}})", nullptr, PolicyIs::InForce)) << "it must mean something";
}

TEST(Check, TestsOfThoseWhoAreNotThereSayNothingAtTheStart) {
    const auto document = Document::parse(example_policy(
        acl(R"("src": ["group:admins"], "dst": ["tag:server:22"])") +
        R"(, "tests": [{"src": "odin@example.com", "accept": ["tag:server:22"]}, {"src": "autogroup:member", "accept": ["tag:prod:22"]}])"));
    ASSERT_TRUE(document) << document.error().message();
    EXPECT_TRUE(check(*document, Tailnet{}, Strangers::MayCome));
    EXPECT_FALSE(check(*document, Tailnet{}, Strangers::AreNobody));
    EXPECT_FALSE(check(*document, example_tailnet(), Strangers::MayCome)) << "members are there, and do not reach it";
}

TEST(Check, TakesPartialReachForDrop) {
    const std::string rule = acl(R"("src": ["odin@example.com"], "dst": ["tag:server:22"])");
    EXPECT_EQ(refusal_here(rule + R"(, "tests": [{"src": "autogroup:member", "deny": ["tag:server:22"]}])"),
              "accepted");
}

TEST(Words, PrintDurationsLikeGo) {
    EXPECT_EQ(duration_text(*parse_go_duration("1h30m")), "1h30m0s");
    EXPECT_EQ(duration_text(*parse_go_duration("1.5s")), "1.5s");
    EXPECT_EQ(duration_text(*parse_go_duration("90m0.5s")), "1h30m0.5s");
}

} // namespace
} // namespace tailrace
