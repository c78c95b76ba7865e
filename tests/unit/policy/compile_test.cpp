#include "tests/unit/policy/example_tailnet.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace tailrace {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

const std::string kEveryone =
    "10.33.0.0/16 100.115.94.0-100.127.255.255 100.64.0.0-100.115.91.255 fd7a:115c:a1e0::/48 ";

std::string acl(const std::string& src, const std::string& dst) {
    return R"("acls": [{"action": "accept", "src": [)" + src + R"(], "dst": [)" + dst + "]}]";
}

TEST(CompiledPolicy, LetsUsersAndATagReachOnePortOfATag) {
    const auto policy = compile_rules(acl(R"("autogroup:member","tag:client")", R"("tag:server:22")"));
    EXPECT_EQ(filter_of(policy, kServer), "100.64.0.14 100.64.0.17 100.64.0.19 fd7a:115c:a1e0::11 fd7a:115c:a1e0::13 "
                                          "fd7a:115c:a1e0::e > 100.64.0.16 22 fd7a:115c:a1e0::10 22\n");
    EXPECT_EQ(filter_of(policy, kProd), "");
    EXPECT_THAT(policy->peers_of(kServer), ElementsAre(kOdinPc, kThorPc, kClient));
    EXPECT_THAT(policy->peers_of(kClient), ElementsAre(kServer));
    EXPECT_THAT(policy->peers_of(kProd), IsEmpty());
}

TEST(CompiledPolicy, AllowsEverythingByDefault) {
    const auto policy = compile("{}");
    for (const auto& node : policy->tailnet().nodes) {
        EXPECT_EQ(filter_of(policy, node.id), kEveryone + "> * *\n");
        EXPECT_EQ(policy->rules_for(node.id), policy->rules_for(kOdinPc)) << "not shared";
        EXPECT_EQ(policy->view_of(node.id), policy->view_of(kOdinPc)) << "not shared";
        EXPECT_EQ(policy->peers_of(node.id).size(), 7U);
    }
    EXPECT_EQ(texts(policy->allowed_routes(kOdinPc, kRouter)), "10.33.0.0/16");
    EXPECT_EQ(texts(policy->allowed_routes(kOdinPc, kRouter2)), "");
    EXPECT_EQ(texts(policy->allowed_routes(kOdinPc, kExit)), "0.0.0.0/0 ::/0");
}

TEST(CompiledPolicy, DropsEverythingWhenTheListOfRulesIsEmpty) {
    const auto policy = compile_rules(R"("grants": [])");
    EXPECT_EQ(filter_of(policy, kServer), "");
    EXPECT_FALSE(policy->visible(kOdinPc, kServer));
}

TEST(CompiledPolicy, KeepsSelfAmongTheDevicesOfOneUser) {
    const auto policy = compile_rules(acl(R"("*")", R"("autogroup:self:*")"));
    EXPECT_EQ(filter_of(policy, kOdinPc), "100.64.0.19 fd7a:115c:a1e0::13 > 100.64.0.19 * fd7a:115c:a1e0::13 *\n");
    EXPECT_EQ(filter_of(policy, kServer), "");
    EXPECT_FALSE(policy->visible(kOdinPc, kThorPc));
}

TEST(CompiledPolicy, PutsSelfAfterOtherDestinations) {
    const auto policy = compile_rules(acl(R"("*")", R"("autogroup:self:*","tag:server:22","autogroup:member:80")"));
    EXPECT_EQ(filter_of(policy, kServer), kEveryone + "> 100.64.0.16 22 fd7a:115c:a1e0::10 22\n");
    EXPECT_EQ(filter_of(policy, kOdinPc), kEveryone +
                                              "> 100.64.0.19 80 fd7a:115c:a1e0::13 80\n"
                                              "100.64.0.19 fd7a:115c:a1e0::13 > 100.64.0.19 * fd7a:115c:a1e0::13 *\n");
}

TEST(CompiledPolicy, MergesRulesOfOneSourceIntoThePlaceOfTheFirst) {
    const auto policy = compile_rules(R"("acls": [
        {"action": "accept", "src": ["tag:client"], "dst": ["tag:server:22"]},
        {"action": "accept", "src": ["tag:server"], "dst": ["tag:prod:5432"]},
        {"action": "accept", "src": ["tag:prod"], "dst": ["tag:client:80"]},
        {"action": "accept", "src": ["tag:client"], "dst": ["tag:prod:443"]}])");
    EXPECT_EQ(filter_of(policy, kProd), "100.64.0.14 fd7a:115c:a1e0::e > 100.64.0.15 443 fd7a:115c:a1e0::f 443\n"
                                        "100.64.0.16 fd7a:115c:a1e0::10 > 100.64.0.15 5432 fd7a:115c:a1e0::f 5432\n");
}

TEST(CompiledPolicy, GivesAGrantOneRuleAProtocolAndOneForItsCapabilities) {
    const auto policy = compile_rules(
        R"("grants": [{"src": ["tag:client"], "dst": ["tag:server"], "ip": ["tcp:80", "udp:53", "tcp:443"],
        "app": {"tailscale.com/cap/kubernetes": [{"impersonate": {"groups": ["system:masters"]}}], "example.com/cap/none": []}}])");
    EXPECT_EQ(filter_of(policy, kServer),
              "100.64.0.14 fd7a:115c:a1e0::e [6] > 100.64.0.16 80 100.64.0.16 443 fd7a:115c:a1e0::10 80 "
              "fd7a:115c:a1e0::10 443\n"
              "100.64.0.14 fd7a:115c:a1e0::e [17] > 100.64.0.16 53 fd7a:115c:a1e0::10 53\n"
              "100.64.0.14 fd7a:115c:a1e0::e > 100.64.0.16/32 fd7a:115c:a1e0::10/128 example.com/cap/none() "
              "tailscale.com/cap/kubernetes({\"impersonate\":{\"groups\":[\"system:masters\"]}})\n");
}

TEST(CompiledPolicy, TellsBothEndsOfATaildriveShare) {
    const auto policy = compile_rules(
        R"("grants": [{"src": ["autogroup:member"], "dst": ["tag:exit"], "app": {"tailscale.com/cap/drive": [{"access": "rw"}]}}])");
    EXPECT_EQ(filter_of(policy, kExit), "100.64.0.17 100.64.0.19 fd7a:115c:a1e0::11 fd7a:115c:a1e0::13 > 100.64.0.4/32 "
                                        "fd7a:115c:a1e0::4/128 tailscale.com/cap/drive({\"access\":\"rw\"})\n");
    EXPECT_EQ(filter_of(policy, kOdinPc),
              "100.64.0.4 fd7a:115c:a1e0::4 > 100.64.0.19/32 fd7a:115c:a1e0::13/128 tailscale.com/cap/drive-sharer\n");
    EXPECT_TRUE(policy->visible(kOdinPc, kExit));
}

TEST(CompiledPolicy, GivesASubnetToItsRoutersAsItIsWritten) {
    for (const auto* destination : {"10.33.0.0/16", "10.0.0.0/8", "10.33.1.7"}) {
        const auto policy = compile_rules(acl(R"("group:admins")", fmt::format("\"{}:443\"", destination)));
        const auto filter = fmt::format("100.64.0.19 fd7a:115c:a1e0::13 > {} 443\n", destination);
        EXPECT_EQ(filter_of(policy, kRouter), filter);
        EXPECT_EQ(filter_of(policy, kRouter2), filter) << "the standby too";
        EXPECT_EQ(texts(policy->allowed_routes(kOdinPc, kRouter)), "10.33.0.0/16");
        EXPECT_EQ(texts(policy->allowed_routes(kOdinPc, kRouter2)), "");
        EXPECT_FALSE(policy->visible(kRouter, kRouter2));
        EXPECT_FALSE(policy->visible(kThorPc, kRouter));
    }
}

TEST(CompiledPolicy, DoesNotTakeATagForTheSubnetBehindIt) {
    const auto policy = compile_rules(acl(R"("odin@example.com")", R"("tag:router:*")"));
    EXPECT_TRUE(policy->visible(kOdinPc, kRouter));
    EXPECT_EQ(texts(policy->allowed_routes(kOdinPc, kRouter)), "");
}

TEST(CompiledPolicy, ConnectsSubnetsAndShowsTheWayBack) {
    auto tailnet = example_tailnet();
    tailnet.nodes.push_back(make_node(20, 0, "tag:router", "100.64.0.40", "fd7a:115c:a1e0::40", {"192.168.1.0/24"}));
    tailnet.nodes.push_back(make_node(21, 0, "tag:backup", "100.64.0.41", "fd7a:115c:a1e0::41", {"172.16.0.0/24"}));
    choose_primaries(tailnet);
    const auto policy = compile(example_policy(acl(R"("192.168.1.0/24")", R"("172.16.0.0/24:*")")), tailnet);
    EXPECT_EQ(filter_of(policy, 21), "192.168.1.0/24 > 172.16.0.0/24 *\n");
    EXPECT_EQ(filter_of(policy, 20), "");
    EXPECT_EQ(texts(policy->allowed_routes(20, 21)), "172.16.0.0/24");
    EXPECT_EQ(texts(policy->allowed_routes(21, 20)), "192.168.1.0/24");
}

TEST(CompiledPolicy, OpensTheInternetThroughExitNodesOnly) {
    const auto policy = compile_rules(acl(R"("odin@example.com")", R"("autogroup:internet:*")"));
    EXPECT_EQ(filter_of(policy, kExit),
              "100.64.0.19 fd7a:115c:a1e0::13 > 0.0.0.0-9.255.255.255 * 11.0.0.0-100.63.255.255 * "
              "100.128.0.0-169.253.255.255 * "
              "169.255.0.0-172.15.255.255 * 172.32.0.0-192.167.255.255 * 192.169.0.0-255.255.255.255 * "
              "2000::-3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff *\n");
    EXPECT_EQ(filter_of(policy, kRouter), "");
    EXPECT_EQ(texts(policy->allowed_routes(kOdinPc, kExit)), "0.0.0.0/0 ::/0");
    EXPECT_FALSE(policy->visible(kThorPc, kExit));
}

TEST(CompiledPolicy, GivesExitRoutesOnlyToThoseWhoMayUseThem) {
    const auto policy = compile_rules(acl(R"("odin@example.com")", R"("tag:exit:*")"));
    EXPECT_TRUE(policy->visible(kOdinPc, kExit));
    EXPECT_EQ(texts(policy->allowed_routes(kOdinPc, kExit)), "");
}

std::string connectors(const std::string& who, const std::string& rules) {
    return R"("nodeAttrs": [{"target": ["*"], "app": {"tailscale.com/app-connectors": [
                {"connectors": [)" +
           who + R"(], "domains": ["*.example.com"]}]}}], )" + rules;
}
/// With a router that offers to be an app connector and has an address of the internet, which another router has too.
Tailnet tailnet_with_connector() {
    auto tailnet = example_tailnet();
    for (const auto id : {kRouter, kRouter2})
        tailnet.nodes[id - 1].routes.push_back(*IpPrefix::parse("198.51.100.7/32"));
    tailnet.nodes[kRouter - 1].app_connector = true;
    choose_primaries(tailnet);
    return tailnet;
}

TEST(CompiledPolicy, OpensTheInternetThroughAppConnectorsForTheirRoutes) {
    const auto rules = connectors(R"("tag:router")", acl(R"("odin@example.com")", R"("autogroup:internet:*")"));
    const auto policy = compile(example_policy(rules), tailnet_with_connector());
    EXPECT_EQ(filter_of(policy, kRouter), filter_of(policy, kExit));
    EXPECT_EQ(filter_of(policy, kRouter2), "") << "a router is none";
    EXPECT_EQ(texts(policy->allowed_routes(kOdinPc, kRouter)), "198.51.100.7/32")
        << "its own networks are another thing";
    EXPECT_EQ(texts(policy->allowed_routes(kThorPc, kRouter)), "");
    EXPECT_THAT(policy->connectors_for(kOdinPc), ElementsAre(kRouter));
    EXPECT_THAT(policy->connectors_for(kThorPc), IsEmpty());
    EXPECT_THAT(policy->connectors_for(kRouter), IsEmpty());
}

TEST(CompiledPolicy, AnAppConnectorIsWhoOffersToBeOneAndIsMeant) {
    const auto rules = acl(R"("odin@example.com")", R"("autogroup:internet:*")");
    for (const auto& policy : {compile(example_policy(rules), tailnet_with_connector()),
                               compile(example_policy(connectors(R"("tag:backup")", rules)), tailnet_with_connector()),
                               compile(example_policy(connectors(R"("*")", rules)))}) {
        EXPECT_EQ(filter_of(policy, kRouter), "");
        EXPECT_FALSE(policy->is_connector(kRouter));
        EXPECT_EQ(texts(policy->allowed_routes(kOdinPc, kRouter)), "");
    }
    EXPECT_TRUE(compile(example_policy(connectors(R"("*")", rules)), tailnet_with_connector())->is_connector(kRouter));
}

TEST(CompiledPolicy, NamesAreAskedForWhereTheirPortIsOpen) {
    const auto of = [](const std::string& rules) {
        return compile(example_policy(connectors(R"("*")", rules)), tailnet_with_connector())->connectors_for(kOdinPc);
    };
    EXPECT_THAT(of(acl(R"("odin@example.com")", R"("autogroup:internet:443", "autogroup:internet:53")")),
                ElementsAre(kRouter));
    EXPECT_THAT(of(acl(R"("odin@example.com")", R"("*:50-60")")), ElementsAre(kRouter));
    EXPECT_THAT(of(acl(R"("odin@example.com")", R"("autogroup:internet:443", "tag:router:*")")), IsEmpty());
    EXPECT_THAT(of(R"("grants": [{"src": ["odin@example.com"], "dst": ["autogroup:internet"], "ip": ["udp:53"]}])"),
                IsEmpty());
    EXPECT_THAT(
        of(R"("grants": [{"src": ["odin@example.com"], "dst": ["autogroup:internet"], "ip": ["*"], "via": ["tag:router"]}])"),
        ElementsAre(kRouter));
    EXPECT_THAT(
        of(R"("grants": [{"src": ["odin@example.com"], "dst": ["autogroup:internet"], "ip": ["*"], "via": ["tag:backup"]}])"),
        IsEmpty());
}

TEST(CompiledPolicy, ViaLeadsToTheInternetThroughAnAppConnector) {
    const auto policy =
        compile(example_policy(connectors(R"("tag:router")",
                                          R"("grants": [{"src": ["odin@example.com"], "dst": ["autogroup:internet"],
            "ip": ["*"], "via": ["tag:router"]}])")),
                tailnet_with_connector());
    EXPECT_EQ(texts(policy->allowed_routes(kOdinPc, kRouter)), "198.51.100.7/32");
    EXPECT_NE(filter_of(policy, kRouter), "");
    EXPECT_EQ(filter_of(policy, kExit), "");
}

TEST(CompiledPolicy, SteersEachViewerThroughTheRouterOfItsGrant) {
    const auto policy = compile_rules(
        R"("grants": [{"src": ["tag:client"], "dst": ["10.33.0.0/16"], "ip": ["*"], "via": ["tag:backup"]},
                                                    {"src": ["tag:prod"], "dst": ["10.33.0.0/16"], "ip": ["*"], "via": ["tag:router"]}])");
    EXPECT_EQ(filter_of(policy, kRouter2), "100.64.0.14 fd7a:115c:a1e0::e > 10.33.0.0/16 *\n");
    EXPECT_EQ(filter_of(policy, kRouter), "100.64.0.15 fd7a:115c:a1e0::f > 10.33.0.0/16 *\n");
    EXPECT_EQ(texts(policy->allowed_routes(kClient, kRouter2)), "10.33.0.0/16");
    EXPECT_EQ(texts(policy->primary_routes(kClient, kRouter2)), "10.33.0.0/16");
    EXPECT_EQ(texts(policy->allowed_routes(kClient, kRouter)), "");
    EXPECT_EQ(texts(policy->allowed_routes(kProd, kRouter)), "10.33.0.0/16");
}

TEST(CompiledPolicy, GivesEachRegionTheRouterThatIsChosenForIt) {
    auto tailnet = example_tailnet();
    const auto route = *IpPrefix::parse("10.33.0.0/16");
    tailnet.nodes[kOdinPc - 1].region = 900;
    tailnet.nodes[kThorPc - 1].region = 901;
    tailnet.nodes[kRouter2 - 1].region = 901;
    tailnet.nodes[kClient - 1].region = 900;
    tailnet.regional[route] = {{900, kRouter}, {901, kRouter2}};
    const auto policy = compile(
        example_policy(
            R"("grants": [{"src": ["odin@example.com", "thor@example.org", "tag:prod"], "dst": ["10.33.0.0/16"], "ip": ["*"]},
                          {"src": ["tag:client"], "dst": ["10.33.0.0/16"], "ip": ["*"], "via": ["tag:backup"]}])"),
        tailnet);
    const auto through = [&](PolicyNodeId viewer) {
        return texts(policy->primary_routes(viewer, kRouter)) + "|" + texts(policy->primary_routes(viewer, kRouter2));
    };
    EXPECT_EQ(through(kOdinPc), "10.33.0.0/16|");
    EXPECT_EQ(through(kThorPc), "|10.33.0.0/16");
    EXPECT_EQ(through(kProd), "10.33.0.0/16|") << "its region is not known: the primary";
    EXPECT_EQ(through(kClient), "|10.33.0.0/16") << "via is stronger than the region";
    EXPECT_EQ(through(kServer), "|") << "a region allows nothing";
    EXPECT_EQ(texts(policy->primary_routes(kRouter, kRouter)), "10.33.0.0/16");
    EXPECT_EQ(texts(policy->primary_routes(kRouter2, kRouter2)), "10.33.0.0/16") << "for region 901";
}

TEST(CompiledPolicy, PrefersThePrimaryWhereAnOrdinaryRuleCoversTheRouteToo) {
    const auto policy = compile_rules(
        R"("grants": [{"src": ["tag:client"], "dst": ["site"], "ip": ["*"], "via": ["tag:backup"]}, {"src": ["tag:client"], "dst": ["site"], "ip": ["*"]}])");
    EXPECT_EQ(texts(policy->allowed_routes(kClient, kRouter)), "10.33.0.0/16");
    EXPECT_EQ(texts(policy->allowed_routes(kClient, kRouter2)), "");
}

TEST(CompiledPolicy, InstallsTheRouteOfAViaGrantThatHasOnlyCapabilities) {
    const auto policy = compile_rules(
        R"("grants": [{"src": ["tag:client"], "dst": ["site"], "app": {"example.com/cap/x": [{}]}, "via": ["tag:backup"]}])");
    EXPECT_EQ(filter_of(policy, kRouter2), "");
    EXPECT_TRUE(policy->visible(kClient, kRouter2));
    EXPECT_FALSE(policy->visible(kClient, kRouter));
    EXPECT_EQ(texts(policy->allowed_routes(kClient, kRouter2)), "10.33.0.0/16");
}

TEST(CompiledPolicy, SendsNobodysRulesToNobody) {
    EXPECT_EQ(filter_of(compile_rules(R"("grants": [{"src": ["group:empty"], "dst": ["*"], "ip": ["*"]}])"), kServer),
              "");
    EXPECT_EQ(
        filter_of(compile_rules(R"("grants": [{"src": ["group:empty"], "dst": ["*"], "app": {"a.com/b": [{}]}}])"),
                  kServer),
        "> 100.64.0.16/32 fd7a:115c:a1e0::10/128 a.com/b({})\n");
    EXPECT_EQ(filter_of(compile_rules(R"("grants": [{"src": [], "dst": ["*"], "app": {"a.com/b": [{}]}}])"), kServer),
              "");
}

TEST(CompiledPolicy, KeepsAddressesBesideTheWildcard) {
    const auto policy = compile_rules(acl(R"("*","tag:client")", R"("tag:server:22,80-90")"));
    EXPECT_EQ(filter_of(policy, kServer),
              "10.33.0.0/16 100.115.94.0-100.127.255.255 100.64.0.0-100.115.91.255 100.64.0.14 fd7a:115c:a1e0::/48 "
              "fd7a:115c:a1e0::e > "
              "100.64.0.16 22 100.64.0.16 80-90 fd7a:115c:a1e0::10 22 fd7a:115c:a1e0::10 80-90\n");
}

TEST(CompiledPolicy, MatchesOneFamilyByAnAddress) {
    const auto policy = compile_rules(acl(R"("webserver")", R"("tag:prod:22")"));
    EXPECT_EQ(filter_of(policy, kProd), "100.64.0.16 > 100.64.0.15 22 fd7a:115c:a1e0::f 22\n");
}

TEST(CompiledPolicy, FiltersSourcesByPosture) {
    auto tailnet = example_tailnet();
    tailnet.nodes[0].attributes["node:os"] = std::string{"linux"};
    tailnet.nodes[1].attributes["node:os"] = std::string{"macos"};
    const auto policy = compile(example_policy(R"("postures": {"posture:p": ["node:os == 'linux'"]},
        "acls": [{"action": "accept", "src": ["autogroup:member"], "srcPosture": ["posture:p"], "dst": ["tag:server:22"]}])"),
                                tailnet);
    EXPECT_EQ(filter_of(policy, kServer), "100.64.0.19 fd7a:115c:a1e0::13 > 100.64.0.16 22 fd7a:115c:a1e0::10 22\n");
    EXPECT_FALSE(policy->visible(kThorPc, kServer));
}

TEST(CompiledPolicy, TakesIPv4AwayByAttribute) {
    const auto policy = compile_rules(acl(R"("*")", R"("tag:server:22")") +
                                      R"(, "nodeAttrs": [{"target": ["tag:server"], "attr": ["disable-ipv4"]}])");
    EXPECT_EQ(filter_of(policy, kServer), kEveryone + "> fd7a:115c:a1e0::10 22\n");
    EXPECT_EQ(policy->addresses(kServer, kOdinPc).size(), 1U);
    EXPECT_EQ(policy->addresses(kOdinPc, kServer).size(), 1U);
    EXPECT_EQ(policy->addresses(kOdinPc, kProd).size(), 2U);
}

TEST(CompiledPolicy, SeesSymmetrically) {
    for (
        const auto* rules :
        {R"("acls": [{"action": "accept", "src": ["tag:client"], "dst": ["tag:server:22", "10.33.0.0/16:80"]}])",
         R"("grants": [{"src": ["10.33.0.0/16"], "dst": ["autogroup:member"], "ip": ["*"]}, {"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]}])"}) {
        const auto policy = compile_rules(rules);
        for (PolicyNodeId a = kOdinPc; a <= kExit; ++a) {
            for (PolicyNodeId b = kOdinPc; b <= kExit; ++b)
                EXPECT_EQ(policy->visible(a, b), policy->visible(b, a)) << a << " " << b;
        }
    }
}

TEST(CompiledPolicy, AnswersNothingAboutStrangers) {
    const auto policy = compile("{}");
    EXPECT_THAT(*policy->rules_for(99), IsEmpty());
    EXPECT_FALSE(policy->visible(kOdinPc, 99));
    EXPECT_FALSE(policy->visible(kOdinPc, kOdinPc));
    EXPECT_THAT(policy->peers_of(99), IsEmpty());
    EXPECT_THAT(policy->allowed_routes(99, kRouter), IsEmpty());
}

TEST(CompiledPolicy, ApprovesRoutesInsideAnEntryAndExitsOnlyByExitNode) {
    const auto policy = compile_rules(
        R"("autoApprovers": {"routes": {"10.0.0.0/8": ["tag:router"], "0.0.0.0/0": ["tag:exit"]}, "exitNode": ["group:admins"]})");
    const auto route = [](const char* text) { return *IpPrefix::parse(text); };
    EXPECT_TRUE(policy->approves_route(kRouter, route("10.33.0.0/16")));
    EXPECT_FALSE(policy->approves_route(kClient, route("10.33.0.0/16")));
    EXPECT_FALSE(policy->approves_route(kRouter, route("0.0.0.0/0")));
    EXPECT_FALSE(policy->approves_route(kExit, route("0.0.0.0/0")));
    EXPECT_TRUE(policy->approves_route(kExit, route("192.168.0.0/24")));
    EXPECT_TRUE(policy->approves_route(kOdinPc, route("::/0")));
}

TEST(CompiledPolicy, ReportsCapabilitiesForAPeer) {
    const auto policy = compile_rules(
        R"("grants": [{"src": ["odin@example.com"], "dst": ["tag:server"], "app": {"a.com/b": [{"x": 1}]}}, {"src": ["*"], "dst": ["tag:server"], "app": {"a.com/b": [{"y": 2}]}}])");
    EXPECT_THAT(policy->capabilities_for(kServer, kOdinPc),
                ElementsAre(testing::Pair("a.com/b", ElementsAre("{\"x\":1}", "{\"y\":2}"))));
    EXPECT_THAT(policy->capabilities_for(kServer, kThorPc),
                ElementsAre(testing::Pair("a.com/b", ElementsAre("{\"y\":2}"))));
    EXPECT_THAT(policy->capabilities_for(kProd, kThorPc), IsEmpty());
}

TEST(CompiledPolicy, LetsRecordedHostsReachTheRecorder) {
    const auto policy = compile_rules(R"("grants": [], "ssh": [{"action": "accept", "src": ["group:admins"],
        "dst": ["tag:server"], "users": ["root"], "recorder": ["tag:prod"], "enforceRecorder": true}])");
    EXPECT_EQ(filter_of(policy, kProd), "100.64.0.16 fd7a:115c:a1e0::10 [6] > 100.64.0.15 80 fd7a:115c:a1e0::f 80\n");
    EXPECT_EQ(filter_of(policy, kServer), "");
    EXPECT_TRUE(policy->visible(kServer, kProd));
    EXPECT_FALSE(policy->visible(kOdinPc, kServer)) << "the ssh section shows nobody else";
}

TEST(CompiledPolicy, CountsCapabilitiesByFamily) {
    const auto policy = compile_rules(
        R"("grants": [{"src": ["fd7a:115c:a1e0::13"], "dst": ["webserver"], "app": {"a.com/b": [{}]}}, {"src": ["100.64.0.19"], "dst": ["webserver"], "app": {"a.com/c": [{}]}}])");
    EXPECT_THAT(policy->capabilities_for(kServer, kOdinPc), ElementsAre(testing::Pair("a.com/c", ElementsAre("{}"))));
}

TEST(CompiledPolicy, ApprovesServicesByNameAndByTag) {
    const auto policy =
        compile_rules(R"("autoApprovers": {"services": {"svc:web": ["tag:server"], "tag:prod": ["group:admins"]}})");
    EXPECT_TRUE(policy->approves_service(kServer, "svc:web"));
    EXPECT_FALSE(policy->approves_service(kProd, "svc:web"));
    EXPECT_FALSE(policy->approves_service(kServer, "svc:other"));
    EXPECT_TRUE(policy->approves_service(kOdinPc, "svc:other", {"tag:prod"}));
}

TEST(CompiledPolicy, NamesThePoolThatAnAddressComesFrom) {
    const auto policy = compile_rules(
        R"("nodeAttrs": [{"target": ["tag:server"], "ipPool": ["100.81.0.0/16"]}, {"target": ["*"], "attr": ["x"]}])");
    EXPECT_EQ(texts(policy->ip_pool(kServer)), "100.81.0.0/16");
    EXPECT_EQ(texts(policy->ip_pool(kProd)), "");
}

TEST(CompiledPolicy, ViaEverythingLeadsToItsRouters) {
    const auto grant = [](const char* tag) {
        return fmt::format(R"("grants": [{{"src": ["tag:client"], "dst": ["*"], "ip": ["*"], "via": ["{}"]}}])", tag);
    };
    const auto policy = compile_rules(grant("tag:router"));
    EXPECT_EQ(filter_of(policy, kRouter), "100.64.0.14 fd7a:115c:a1e0::e > * *\n") << "words stay as they are";
    for (const auto other : {kRouter2, kServer, kExit}) EXPECT_EQ(filter_of(policy, other), "") << other;
    EXPECT_EQ(texts(policy->allowed_routes(kClient, kRouter)), "10.33.0.0/16");
    EXPECT_EQ(texts(policy->allowed_routes(kOdinPc, kRouter)), "");
    EXPECT_THAT(policy->peers_of(kClient), testing::Contains(kRouter));
    // Its own addresses are no routes.
    EXPECT_EQ(filter_of(compile_rules(grant("tag:server")), kServer), "");
}

TEST(CompiledPolicy, APublicNetworkOpensAnExitNodeForItAlone) {
    const auto policy = compile_rules(acl(R"("tag:client")", R"("8.8.8.0/24:53")"));
    EXPECT_EQ(filter_of(policy, kExit), "100.64.0.14 fd7a:115c:a1e0::e > 8.8.8.0/24 53\n");
    EXPECT_EQ(filter_of(policy, kRouter), "");
    EXPECT_THAT(policy->peers_of(kClient), ElementsAre(kExit));
    EXPECT_EQ(filter_of(compile_rules(acl(R"("tag:client")", R"("10.44.0.0/16:53")")), kExit), "")
        << "what is private is not the internet";
    EXPECT_EQ(filter_of(compile_rules(acl(R"("tag:client")", R"("169.254.169.254:80")")), kExit), "");
}

TEST(ChoosePrimaries, KeepsThePrimaryUntilItGoesOffline) {
    auto tailnet = example_tailnet();
    EXPECT_EQ(texts(tailnet.nodes[5].primaries), "10.33.0.0/16");
    tailnet.nodes[5].online = false;
    choose_primaries(tailnet);
    EXPECT_EQ(texts(tailnet.nodes[5].primaries), "");
    EXPECT_EQ(texts(tailnet.nodes[6].primaries), "10.33.0.0/16");
    tailnet.nodes[5].online = true;
    choose_primaries(tailnet);
    EXPECT_EQ(texts(tailnet.nodes[6].primaries), "10.33.0.0/16")
        << "it came back, but nothing is gained by moving again";
}

TEST(MayTag, AsksOwnersGroupsRolesAndTags) {
    auto document = Document::parse(R"({"groups": {"group:ops": ["thor@example.org"]},
        "tagOwners": {"tag:a": ["group:ops"], "tag:b": ["tag:a"], "tag:c": ["tag:c", "freya@example.com"], "tag:d": []}})");
    ASSERT_TRUE(document) << document.error().message();
    const TailnetUser odin{1, "odin@example.com", UserRole::Owner};
    const TailnetUser thor{2, "thor@example.org", UserRole::Member};
    const TailnetUser freya{3, "freya@example.com", UserRole::Member};
    EXPECT_TRUE(may_tag(*document, thor, "tag:a"));
    EXPECT_TRUE(may_tag(*document, thor, "tag:b"));
    EXPECT_FALSE(may_tag(*document, thor, "tag:c"));
    EXPECT_TRUE(may_tag(*document, freya, "tag:c"));
    EXPECT_TRUE(may_tag(*document, odin, "tag:d"));
    EXPECT_FALSE(may_tag(*document, odin, "tag:unknown"));
    // The same for all at once.
    const std::vector<TailnetUser> users{odin, thor, freya};
    std::vector<std::set<std::string>> rights(users.size());
    for_each_tag_right(*document, users,
                       [&](std::size_t user, const std::string& tag) { EXPECT_TRUE(rights[user].insert(tag).second); });
    for (std::size_t i = 0; i < users.size(); ++i) {
        for (const char* tag : {"tag:a", "tag:b", "tag:c", "tag:d"})
            EXPECT_EQ(rights[i].count(tag) != 0, may_tag(*document, users[i], tag)) << users[i].login << ' ' << tag;
    }
    EXPECT_TRUE(may_tag(*document, std::vector<std::string>{"tag:a"}, "tag:b"));
    EXPECT_FALSE(may_tag(*document, std::vector<std::string>{"tag:b"}, "tag:a"));
}

TEST(SshRules, ChecksBeforeItAccepts) {
    const auto policy = compile_rules(R"("ssh": [
        {"action": "accept", "src": ["autogroup:member"], "dst": ["tag:server"], "users": ["root"]},
        {"action": "check", "checkPeriod": "1h", "src": ["group:admins"], "dst": ["tag:server"], "users": ["autogroup:nonroot", "ubuntu"], "acceptEnv": ["GIT_*"]}])");
    const auto rules = policy->ssh_rules_for(kServer);
    ASSERT_EQ(rules.size(), 2U);
    EXPECT_EQ(
        ssh_rules_json({rules[0]}),
        R"([{"principals":[{"nodeIP":"100.64.0.19"},{"nodeIP":"fd7a:115c:a1e0::13"}],"sshUsers":{"*":"=","root":"","ubuntu":"ubuntu"},)"
        R"("action":{"holdAndDelegate":"https://unused/machine/ssh/action/$SRC_NODE_ID/to/$DST_NODE_ID?local_user=$LOCAL_USER"},"acceptEnv":["GIT_*"]}])");
    EXPECT_EQ(match_ssh_rule(rules, *IpAddress::parse("100.64.0.19"), "ubuntu"), &rules[0]);
    EXPECT_EQ(match_ssh_rule(rules, *IpAddress::parse("100.64.0.19"), "root"), &rules[1]);
    EXPECT_EQ(match_ssh_rule(rules, *IpAddress::parse("100.64.0.14"), "root"), nullptr);
    EXPECT_THAT(policy->ssh_rules_for(kProd), IsEmpty());
}

} // namespace
} // namespace tailrace
