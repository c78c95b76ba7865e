// Services: names with addresses of their own, behind which stand the nodes that host them.
#include "policy/check.hpp"
#include "policy/diff.hpp"
#include "policy/lint.hpp"
#include "policy/tailnet_json.hpp"
#include "tests/unit/policy/example_tailnet.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const IpPrefix kWeb4 = *IpPrefix::parse("100.64.0.90/32");
const IpPrefix kWeb6 = *IpPrefix::parse("fd7a:115c:a1e0::5a/128");

void host(TailnetNode& node) {
    node.routes.push_back(kWeb4);
    node.routes.push_back(kWeb6);
}

/// svc:web with port 443, hosted by kServer and kProd; kServer was there first.
Tailnet tailnet_with_service() {
    Tailnet tailnet = example_tailnet();
    tailnet.services = {{"svc:web", {kWeb4.address(), kWeb6.address()}, {{443, 443}}}};
    host(tailnet.nodes[kServer - 1]);
    host(tailnet.nodes[kProd - 1]);
    choose_primaries(tailnet);
    return tailnet;
}

std::shared_ptr<const CompiledPolicy> compile_services(const std::string& rules) {
    return compile(example_policy(rules), tailnet_with_service());
}

std::vector<std::string> names(const std::vector<const TailnetService*>& services) {
    std::vector<std::string> out;
    for (const auto* service : services) out.push_back(service->name);
    return out;
}

const std::string kClientMay = R"("acls": [{"action": "accept", "src": ["tag:client"], "dst": ["svc:web:*"]}],)";

TEST(Services, TheFiltersOfTheHostsNameTheAddressesAndThePortsOfTheService) {
    auto policy = compile_services(kClientMay);
    for (const auto host : {kServer, kProd})
        EXPECT_THAT(brief(*policy->rules_for(host)),
                    HasSubstr("100.64.0.14 fd7a:115c:a1e0::e > 100.64.0.90 443 fd7a:115c:a1e0::5a 443"));
    EXPECT_THAT(*policy->rules_for(kRouter), IsEmpty());
}

TEST(Services, ThePrimaryHostHandsTheAddressesToWhomTheRulesLetIn) {
    auto policy = compile_services(kClientMay);
    EXPECT_TRUE(policy->visible(kClient, kServer));
    EXPECT_TRUE(policy->visible(kClient, kProd));
    EXPECT_THAT(policy->allowed_routes(kClient, kServer), ElementsAre(kWeb4, kWeb6));
    EXPECT_THAT(policy->allowed_routes(kClient, kProd), IsEmpty());
    EXPECT_THAT(policy->primary_routes(kClient, kServer), IsEmpty()); // it is no subnet router
    EXPECT_FALSE(policy->visible(kOdinPc, kServer));
    EXPECT_THAT(names(policy->services_for(kClient)), ElementsAre("svc:web"));
    EXPECT_THAT(policy->services_for(kOdinPc), IsEmpty());
}

TEST(Services, AnotherHostTakesOverFromOneThatIsOffline) {
    auto tailnet = tailnet_with_service();
    tailnet.nodes[kServer - 1].online = false;
    choose_primaries(tailnet);
    auto policy = compile(example_policy(kClientMay), tailnet);
    EXPECT_THAT(policy->allowed_routes(kClient, kServer), IsEmpty());
    EXPECT_THAT(policy->allowed_routes(kClient, kProd), ElementsAre(kWeb4, kWeb6));
}

TEST(Services, APortThatTheServiceDoesNotHaveIsNotOpened) {
    auto policy = compile_services(R"("acls": [{"action": "accept", "src": ["tag:client"], "dst": ["svc:web:80"]}],)");
    EXPECT_THAT(*policy->rules_for(kServer), IsEmpty());
    EXPECT_FALSE(policy->visible(kClient, kServer));
    auto grants = compile_services(
        R"("grants": [{"src": ["tag:client"], "dst": ["svc:web"], "ip": ["tcp:400-500", "udp:53"]}],)");
    EXPECT_THAT(brief(*grants->rules_for(kServer)), HasSubstr("[6] > 100.64.0.90 443 fd7a:115c:a1e0::5a 443"));
    EXPECT_EQ(grants->rules_for(kServer)->size(), 1u);
}

TEST(Services, CapabilitiesAtOneAreGrantedByItsHosts) {
    const std::string grant =
        R"("grants": [{"src": ["tag:client"], "dst": ["DST"], "app": {"example.com/cap/web": [{"role": "reader"}]}}],)";
    const auto to = [&](const std::string& dst) {
        auto text = grant;
        return compile_services(text.replace(text.find("DST"), 3, dst));
    };
    auto policy = to("svc:web");
    for (const auto host : {kServer, kProd}) {
        const auto& rules = *policy->rules_for(host);
        ASSERT_EQ(rules.size(), 1u);
        EXPECT_THAT(rules[0].cap_grant[0].dsts, ElementsAre("100.64.0.90/32", "fd7a:115c:a1e0::5a/128"));
        EXPECT_TRUE(policy->visible(kClient, host));
    }
    EXPECT_THAT(*policy->rules_for(kRouter), IsEmpty());
    EXPECT_NE(policy->filter_id(kServer), to("tag:server")->filter_id(kServer));
    EXPECT_NE(policy->filter_id(kServer), to("100.64.0.90")->filter_id(kServer)) << "the second address";
    EXPECT_THAT(to("100.64.0.90")->rules_for(kProd)->at(0).cap_grant[0].dsts, ElementsAre("100.64.0.90/32"));
    EXPECT_THAT(to("tag:server")->rules_for(kServer)->at(0).cap_grant[0].dsts,
                testing::Not(testing::Contains("100.64.0.90/32")));
}

TEST(Services, WhoMayReachEverythingMayReachThem) {
    auto policy = compile_services(R"("acls": [{"action": "accept", "src": ["tag:client"], "dst": ["*:*"]}],)");
    EXPECT_THAT(policy->allowed_routes(kClient, kServer), ElementsAre(kWeb4, kWeb6));
}

TEST(Services, AHostIsToldItsAddressesAndAsksNobodyForThem) {
    auto policy = compile_services(R"("acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}],)");
    using Value = std::pair<std::string, std::vector<std::string>>;
    for (const auto host : {kServer, kProd}) {
        EXPECT_THAT(policy->self_capabilities(host),
                    ElementsAre(Value{"service-host", {R"({"svc:web":["100.64.0.90","fd7a:115c:a1e0::5a"]})"}}));
        EXPECT_THAT(policy->allowed_routes(host, host), ElementsAre(kWeb4, kWeb6));
    }
    EXPECT_THAT(policy->allowed_routes(kProd, kServer), IsEmpty());
    EXPECT_THAT(policy->self_capabilities(kClient), IsEmpty());
    EXPECT_THAT(names(policy->services_of(kProd)), ElementsAre("svc:web"));
}

TEST(Services, TheirAddressesAreNoSources) {
    auto policy = compile_services(R"("acls": [{"action": "accept", "src": ["*"], "dst": ["tag:client:22"]}],)");
    EXPECT_THAT(brief(*policy->rules_for(kClient)), testing::Not(HasSubstr("100.64.0.90")));
    EXPECT_THAT(policy->allowed_routes(kClient, kServer), IsEmpty()) << "that it is let in is no reason";
    auto near =
        compile_services(R"("acls": [{"action": "accept", "src": ["100.64.0.88/29"], "dst": ["tag:client:22"]}],)");
    EXPECT_FALSE(near->visible(kClient, kServer));
}

TEST(Services, ARuleForOneThatIsNotThereLetsNobodyIn) {
    auto policy = compile(example_policy(R"("acls": [{"action": "accept", "src": ["*"], "dst": ["svc:web:443"]}],)"));
    for (const auto& node : policy->tailnet().nodes) EXPECT_THAT(*policy->rules_for(node.id), IsEmpty());
}

TEST(Services, ANewAddressReachesFiltersAlthoughNoRuleChanged) {
    auto before = compile_services(kClientMay);
    (void)before->filter_id(kServer);
    auto tailnet = tailnet_with_service();
    tailnet.services.front().ports = {{8443, 8443}};
    auto after = CompiledPolicy::compile(before->shared_document(), tailnet, before.get());
    EXPECT_THAT(brief(*after->rules_for(kServer)), HasSubstr("100.64.0.90 8443"));
    EXPECT_NE(after->filter_id(kServer), before->filter_id(kServer));
}

TEST(Services, TestsOfAPolicyMayNameThem) {
    const auto with_test = [](const char* test) { return example_policy(kClientMay + R"("tests": [)" + test + "],"); };
    const std::string good = with_test(R"({"src": "tag:client", "accept": ["svc:web:443"], "deny": ["svc:web:80"]},
                                          {"src": "tag:prod", "deny": ["svc:web:443"]})");
    auto checked = check(good, tailnet_with_service());
    EXPECT_TRUE(checked) << checked.error().message();
    EXPECT_FALSE(check(with_test(R"({"src": "tag:prod", "accept": ["svc:web:443"]})"), tailnet_with_service()));
    EXPECT_FALSE(check(with_test(R"({"src": "tag:client", "accept": ["svc:other:443"]})"), example_tailnet()));
}

std::string service_rule(const std::string& dst, const std::string& more = "") {
    return example_policy(R"("acls": [{"action": "accept", "src": ["tag:client"], "dst": [")" + dst + "\"]}]," + more);
}

TEST(Services, DiffSaysWhoGainsAndLosesThem) {
    const auto difference = [](const std::string& before, const std::string& after) {
        const auto tailnet = tailnet_with_service();
        const auto old_document = Document::parse(before);
        const auto new_document = Document::parse(after);
        EXPECT_TRUE(old_document && new_document);
        return old_document && new_document ? diff_policies(*old_document, *new_document, &tailnet).text() : "";
    };
    EXPECT_EQ(difference(service_rule("tag:prod:22"), service_rule("svc:web:*")),
              "tag:client loses tcp, udp 22 on tag:prod (old line 5)\n"
              "tag:client gains tcp, udp 443 on svc:web (line 5)\n");
    EXPECT_EQ(difference(service_rule("svc:web:*"), service_rule("svc:web:443")), "nobody gains or loses anything\n");
    EXPECT_EQ(difference(service_rule("svc:web:*"),
                         service_rule("svc:web:*", R"("autoApprovers": {"services": {"svc:web": ["tag:prod"]}},)")),
              "tag:prod gains approval as host of svc:web by itself\n");
    const auto app = [](const std::string& dst) {
        return example_policy(R"("grants": [{"src": ["tag:client"], "dst": [")" + dst +
                              R"("], "app": {"example.com/cap/web": []}}],)");
    };
    EXPECT_EQ(difference(app("tag:prod"), app("svc:web")),
              "tag:client loses capability example.com/cap/web on tag:prod (old line 5)\n"
              "tag:client gains capability example.com/cap/web on svc:web (line 5)\n");
}

TEST(Services, LintSaysWhyARuleLeadsToNone) {
    const auto said = [](const std::string& text) {
        const auto tailnet = tailnet_with_service();
        std::string out;
        for (const auto& finding : lint(text, &tailnet)) out += finding.message + "\n";
        return out;
    };
    EXPECT_THAT(said(service_rule("svc:gone:443")), HasSubstr("there is no service svc:gone"));
    EXPECT_THAT(said(service_rule("svc:web:80")), HasSubstr("svc:web has none of these ports"));
    EXPECT_THAT(said(service_rule("svc:web:443")), testing::Not(HasSubstr("svc:web")));
}

TEST(Services, ATailnetInAFileHasThem) {
    auto again = parse_tailnet(tailnet_json(tailnet_with_service()));
    ASSERT_TRUE(again) << again.error().message();
    EXPECT_EQ(again->services, tailnet_with_service().services);
    EXPECT_EQ(again->nodes[kServer - 1].primaries.size(), 2u);
    auto nameless = parse_tailnet(R"({"services": [{"name": "web", "addresses": ["100.64.0.90"]}]})");
    ASSERT_FALSE(nameless);
    EXPECT_THAT(nameless.error().message(), HasSubstr("a service needs a name that begins with svc:"));
}

} // namespace
} // namespace tailrace
