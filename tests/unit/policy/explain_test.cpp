#include "policy/explain.hpp"
#include "policy/preview.hpp"
#include "policy/stage.hpp"
#include "policy/tailnet_json.hpp"
#include "tests/unit/policy/example_tailnet.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tailrace {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Verdict = Explanation::Verdict;

Tailnet named_tailnet() {
    auto tailnet = example_tailnet();
    const char* names[] = {"odin-pc", "thor-pc", "server", "prod", "client", "router", "router2", "exit"};
    for (std::size_t i = 0; i < tailnet.nodes.size(); ++i) tailnet.nodes[i].name = names[i];
    return tailnet;
}

Explanation explained(const std::string& rules, const char* source, const char* destination) {
    auto answer = explain(compile(example_policy(rules), named_tailnet()), source, destination);
    EXPECT_TRUE(answer) << answer.error().message();
    return answer ? *answer : Explanation{};
}

const std::string kRules = R"("acls": [
    {"action": "accept", "src": ["group:admins"], "dst": ["tag:server:22"]},
    {"action": "accept", "src": ["tag:client"], "proto": "udp", "dst": ["tag:server:53", "site:80"]}])";

TEST(Explain, NamesTheLineThatDecides) {
    const auto answer = explained(kRules, "odin@example.com", "tag:server:22/tcp");
    EXPECT_EQ(answer.verdict, Verdict::Allowed);
    ASSERT_EQ(answer.deciding.size(), 1U);
    EXPECT_EQ(answer.deciding[0].position.line, 6U);
    EXPECT_EQ(answer.deciding[0].rule, R"({"action":"accept","src":["group:admins"],"dst":["tag:server:22"]})");
    EXPECT_THAT(answer.text(), HasSubstr("odin@example.com to tag:server:22/tcp: allowed by line 6, column 5"));
}

TEST(Explain, NamesTheNearestMisses) {
    EXPECT_THAT(explained(kRules, "odin-pc", "server:443").text(), HasSubstr("it allows port 22, not 443"));
    EXPECT_THAT(explained(kRules, "client", "server:53/tcp").text(), HasSubstr("it allows udp, not tcp"));
    EXPECT_THAT(explained(kRules, "thor-pc", "server:22").text(), HasSubstr("src does not include thor-pc"));
    const auto elsewhere = explained(kRules, "odin-pc", "prod:22");
    EXPECT_EQ(elsewhere.verdict, Verdict::Denied);
    EXPECT_THAT(elsewhere.text(), HasSubstr("dst does not include prod"));
}

TEST(Explain, LetsPingsThroughWhereAnythingPasses) {
    EXPECT_EQ(explained(kRules, "odin-pc", "server/icmp").verdict, Verdict::Allowed);
    EXPECT_EQ(explained(kRules, "thor-pc", "server/icmp").verdict, Verdict::Denied);
    EXPECT_EQ(explained(kRules, "odin-pc", "server/gre").verdict, Verdict::Denied);
}

TEST(Explain, SaysWhereAnAddressBehindRoutersIsRouted) {
    const auto answer = explained(kRules, "client", "10.33.1.2:80/udp");
    EXPECT_EQ(answer.verdict, Verdict::Allowed);
    EXPECT_THAT(answer.text(), HasSubstr("10.33.1.2 is routed: 10.33.0.0/16 by router (tag:router)"));
    EXPECT_THAT(explained(kRules, "client", "[fd00::1]:80").text(), HasSubstr("is routed: ::/0 by exit (tag:exit)"));
}

TEST(Explain, SaysThatTheInternetIsNotReachedThroughARouterThatIsNoExitNode) {
    auto tailnet = named_tailnet();
    tailnet.nodes[kExit - 1].routes.clear();
    for (const char* half : {"0.0.0.0/1", "128.0.0.0/1"})
        tailnet.nodes[kRouter - 1].routes.push_back(*IpPrefix::parse(half));
    choose_primaries(tailnet);
    const auto asked = [&](const std::string& destination) {
        const auto rules =
            R"("acls": [{"action": "accept", "src": ["tag:client"], "dst": [")" + destination + R"("]}])";
        auto policy = compile(example_policy(rules), tailnet);
        auto answer = explain(policy, "client", "192.0.2.7:80");
        EXPECT_TRUE(answer) << answer.error().message();
        const bool passes = filter_of(policy, kRouter).find("100.64.0.14") != std::string::npos;
        const std::string text = answer ? answer->text() : "";
        EXPECT_THAT(text, HasSubstr("192.0.2.7 is routed: 128.0.0.0/1 by router (tag:router)"));
        EXPECT_EQ(text.find("192.0.2.7 is not reached all the same") == std::string::npos, passes) << text;
        return passes;
    };
    EXPECT_FALSE(asked("autogroup:internet:*"));
    EXPECT_TRUE(asked("128.0.0.0/1:*"));
    EXPECT_TRUE(asked("*:*"));
}

TEST(Explain, TellsSomeFromAll) {
    EXPECT_EQ(explained(kRules, "autogroup:member", "tag:server:22").verdict, Verdict::Partly);
    EXPECT_EQ(explained(R"("grants": [])", "odin-pc", "server:22").verdict, Verdict::Denied);
    EXPECT_THAT(explained(R"("ssh": [])", "odin-pc", "server:22").text(), HasSubstr("allowed by default"));
}

TEST(Explain, NamesPosturesThatAreNotFulfilled) {
    EXPECT_THAT(explained(R"("postures": {"posture:p": ["node:os == 'linux'"]}, "acls": [{"action": "accept",
        "src": ["odin@example.com"], "srcPosture": ["posture:p"], "dst": ["tag:server:22"]}])",
                          "odin-pc", "server:22")
                    .text(),
                HasSubstr("odin-pc fulfils none of posture:p"));
}

TEST(Explain, AddsWhatTheSshSectionSays) {
    EXPECT_THAT(
        explained(
            kRules +
                R"(, "ssh": [{"action": "check", "src": ["autogroup:member"], "dst": ["tag:server"], "users": ["root"]}])",
            "odin-pc", "server:22")
            .text(),
        HasSubstr("the ssh section allows logging in as root (check)"));
}

TEST(Explain, SaysWhatItDoesNotUnderstand) {
    const auto policy = compile(example_policy(kRules), named_tailnet());
    const auto error = [&](const char* source, const char* destination) {
        auto answer = explain(policy, source, destination);
        return answer ? std::string{} : answer.error().message();
    };
    EXPECT_EQ(error("nobody", "server:22"), "\"nobody\": no device, user, group, tag or host has this name");
    EXPECT_THAT(error("odin-pc", "server"), HasSubstr("want a destination with one port"));
    EXPECT_THAT(error("odin-pc", "server:22/tpc"), HasSubstr("proto name \"tpc\" not known"));
    EXPECT_EQ(error("odin-pc", "[fd7a:115c:a1e0::10]:22"), "");
}

TEST(Preview, ListsWhatAUserMayReach) {
    auto preview = preview_source(compile(example_policy(kRules), named_tailnet()), "odin@example.com");
    ASSERT_TRUE(preview) << preview.error().message();
    ASSERT_EQ(preview->rows.size(), 1U);
    EXPECT_EQ(preview->rows[0].destination, "tag:server");
    EXPECT_EQ(preview->rows[0].access, "tcp, udp 22");
    EXPECT_THAT(preview->rows[0].devices, ElementsAre("server (tag:server)"));
}

TEST(Preview, ListsWhoMayReachAnAddress) {
    auto preview = preview_destination(compile(example_policy(kRules), named_tailnet()), "10.33.1.1:80");
    ASSERT_TRUE(preview) << preview.error().message();
    ASSERT_EQ(preview->rows.size(), 1U);
    EXPECT_THAT(preview->rows[0].sources, ElementsAre("tag:client"));
    EXPECT_FALSE(preview_destination(compile(example_policy(kRules)), "10.33.1.1"));
}

TEST(TailnetJson, ReadsWhatItWrites) {
    auto tailnet = named_tailnet();
    tailnet.nodes[0].attributes = {{"node:os", std::string{"linux"}}, {"custom:n", 3.0}, {"custom:b", true}};
    tailnet.nodes[1].online = false;
    const auto text = tailnet_json(tailnet);
    auto again = parse_tailnet(text);
    ASSERT_TRUE(again) << again.error().message();
    EXPECT_EQ(tailnet_json(*again), text);
}

TEST(TailnetJson, NamesThePlaceOfWhatItDoesNotUnderstand) {
    const auto error = [](const char* text) {
        auto tailnet = parse_tailnet(text);
        return tailnet ? std::string{} : tailnet.error().message();
    };
    EXPECT_EQ(error(R"({"nodes": [{"user": "a@b.c", "addresses": ["100.64.0.300"]}]})"),
              "line 1, column 44: an address: \"100.64.0.300\" is not one");
    EXPECT_EQ(error(R"({"nodes": [{"addresses": ["100.64.0.3"]}]})"), "line 1, column 12: a node needs a user or tags");
    EXPECT_THAT(error(R"({"users": [{"login": "a@b.c", "role": "king"}]})"), HasSubstr("role \"king\": want member"));
    EXPECT_EQ(error(R"({"nodes": [{"user": "a@b.c", "addresses": ["100.64.0.3"]}]})"), "");
}

TEST(Stage, ImaginesADeviceForEverybodyThatAPolicyNames) {
    auto document = Document::parse(example_policy(kRules));
    ASSERT_TRUE(document);
    const auto tailnet = imagined_tailnet({&*document});
    std::vector<std::string> names;
    for (const auto& node : tailnet.nodes) names.push_back(node.name);
    EXPECT_THAT(names, testing::IsSupersetOf(
                           {"odin@example.com", "somebody-else@example.com", "tag:client", "tag:something-else"}));
}

} // namespace
} // namespace tailrace
