#include "agent/dataplane/quirks.hpp"
#include "agent/doctor/examine.hpp"
#include "agent/doctor/ruleset.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace tailrace {
namespace {

using testing::HasSubstr;

DoctorFacts healthy() {
    DoctorFacts facts;
    facts.is_root = true;
    facts.kernel = "6.1.0-28-amd64";
    facts.bpf_programs = facts.bpf_maps = facts.bpffs = facts.btf = Answer::Yes;
    facts.wireguard_module = facts.nftables = facts.policy_routing = Answer::Yes;
    facts.backstop_hold = "plain";
    facts.ip_forward = 1;
    facts.ipv6_forward = 1;
    facts.rp_filter = 2;
    facts.src_valid_mark = 1;
    facts.advertises = AdvertisedFamilies{true, true};
    facts.interfaces = {{"tailrace0", 1280, false, Answer::No, Answer::Unknown, Answer::Unknown},
                        {"eth0", 1500, true, Answer::No, Answer::Yes, Answer::No}};
    facts.clock_is_synchronised = Answer::Yes;
    facts.now = WallTime::from_unix(1'800'000'000);
    facts.nameservers = {"192.0.2.53"};
    facts.agent_answers = Answer::Yes;
    facts.agent_state = "Running";
    return facts;
}

/// The findings that are not all right, a line each: "error routing: ...".
std::string complaints(const DoctorFacts& facts) {
    std::string out;
    for (const Finding& finding : examine(facts)) {
        if (finding.severity == Severity::Ok) continue;
        EXPECT_FALSE(finding.why.empty()) << finding.what;
        out += fmt::format("{} {}: {}\n", finding.severity == Severity::Error ? "error" : "warning", finding.subject,
                           finding.what);
    }
    return out;
}

TEST(Doctor, FindsNothingWrongWithAHealthyMachine) {
    EXPECT_EQ(complaints(healthy()), "");
    EXPECT_EQ(exit_status(examine(healthy())), 0);
}

TEST(Doctor, SaysWhatItCouldNotReadAndWhyThereIsNoFastPath) {
    DoctorFacts facts = healthy();
    facts.firewall_read = Answer::No;
    EXPECT_THAT(complaints(facts), HasSubstr("warning firewall: the rules of this host could not be read"));
    facts = healthy();
    facts.silent_rules = "rules of iptables-legacy in the table filter";
    EXPECT_THAT(complaints(facts),
                HasSubstr("warning firewall: there are rules of iptables-legacy in the table filter"));
    facts.advertises = AdvertisedFamilies{};
    EXPECT_EQ(complaints(facts), "") << "nothing is forwarded";
}

TEST(Doctor, AKernelWithoutWireGuardIsAnErrorOrAWarning) {
    DoctorFacts facts = healthy();
    facts.wireguard_module = Answer::No;
    facts.wireguard_go = Answer::Yes;
    EXPECT_THAT(complaints(facts), HasSubstr("warning wireguard: this kernel has no WireGuard module"));
    EXPECT_EQ(exit_status(examine(facts)), 1);
    facts.wireguard_go = Answer::No;
    EXPECT_THAT(complaints(facts), HasSubstr("error wireguard: there is neither"));
    EXPECT_EQ(exit_status(examine(facts)), 2);
}

// Its verifier refuses the policy program: seen with user-mode Linux 6.12.
TEST(Doctor, AKernelWithoutTypeInformationIsAnError) {
    DoctorFacts facts = healthy();
    facts.btf = Answer::No;
    EXPECT_THAT(complaints(facts), HasSubstr("error kernel: this kernel has no type information"));
    EXPECT_EQ(exit_status(examine(facts)), 2);
}

TEST(Doctor, ForwardingMattersToWhoAdvertisesRoutes) {
    DoctorFacts facts = healthy();
    facts.ip_forward = 0;
    EXPECT_THAT(complaints(facts), HasSubstr("error routing: net.ipv4.ip_forward is 0"));
    facts.advertises = AdvertisedFamilies{};
    EXPECT_EQ(complaints(facts), "");
    facts.advertises.reset();
    EXPECT_EQ(complaints(facts), "");
}

TEST(Doctor, AFamilyThatIsNotAdvertisedNeedsNoForwarding) {
    DoctorFacts facts = healthy();
    facts.ipv6_forward = 0;
    EXPECT_THAT(complaints(facts), HasSubstr("net.ipv6.conf.all.forwarding is 0"));
    facts.advertises->v6 = false;
    EXPECT_EQ(complaints(facts), "");
    facts.ip_forward = 0;
    EXPECT_THAT(complaints(facts), HasSubstr("net.ipv4.ip_forward is 0"));
    facts.advertises = AdvertisedFamilies{false, true};
    EXPECT_THAT(complaints(facts), testing::Not(HasSubstr("ip_forward")));
}

TEST(Doctor, StrictReversePathFilterNeedsTheMark) {
    DoctorFacts facts = healthy();
    facts.rp_filter = 1;
    EXPECT_EQ(complaints(facts), "");
    facts.src_valid_mark = 0;
    EXPECT_THAT(complaints(facts), HasSubstr("net.ipv4.conf.all.rp_filter is 1 (strict)"));
}

TEST(Doctor, TheGreaterOfTwoReversePathFiltersCounts) {
    DoctorFacts facts = healthy();
    facts.src_valid_mark = 0;
    facts.rp_filter = 0;
    EXPECT_EQ(complaints(facts), "");
    facts.interfaces[1].rp_filter = 1;
    EXPECT_THAT(complaints(facts), HasSubstr("net.ipv4.conf.eth0.rp_filter is 1 (strict)"));
    facts.interfaces[1].src_valid_mark = 1;
    EXPECT_EQ(complaints(facts), "");
    facts.interfaces[1].src_valid_mark = 0;
    facts.rp_filter = 2;
    EXPECT_EQ(complaints(facts), "") << "loose for all is more than strict for one";
    facts.rp_filter = 0;
    facts.interfaces[1].is_uplink = false;
    EXPECT_EQ(complaints(facts), "");
}

/// As `nft -j list ruleset` shows a chain FORWARD or INPUT that drops, with these rules.
std::string closed_chain(const std::string& name, const std::string& hook, const std::vector<std::string>& rules) {
    std::string text = R"({"nftables":[{"chain":{"family":"ip","table":"filter","name":")" + name + R"(","hook":")" +
                       hook + R"(","prio":0,"policy":"drop"}})";
    for (const std::string& rule : rules)
        text += R"(,{"rule":{"family":"ip","table":"filter","chain":")" + name + R"(","expr":[)" + rule + "]}}";
    return text + "]}";
}
std::string told_of(const std::string& ruleset) {
    DoctorFacts facts = healthy();
    EXPECT_TRUE(read_ruleset(ruleset, facts));
    return complaints(facts);
}

TEST(Doctor, AChainThatLetsTheTunnelThroughIsAllRight) {
    const std::string device = R"({"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"tailrace0"}})";
    const std::string other = R"({"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"docker0"}})";
    const std::string several =
        R"({"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":{"set":["lan0","tailrace0"]}}})";
    const std::string tcp = R"({"match":{"op":"==","left":{"meta":{"key":"l4proto"}},"right":"tcp"}})";
    const std::string accept = R"(,{"counter":{"packets":1,"bytes":2}},{"accept":null})";
    const std::string port =
        R"({"match":{"op":"==","left":{"meta":{"key":"l4proto"}},"right":"udp"}},)"
        R"({"match":{"op":"==","left":{"payload":{"protocol":"udp","field":"dport"}},"right":41641}})";
    auto forward = [](std::vector<std::string> rules) { return told_of(closed_chain("FORWARD", "forward", rules)); };
    auto input = [](std::vector<std::string> rules) { return told_of(closed_chain("INPUT", "input", rules)); };
    const std::string jump = R"({"jump":{"target":"DOCKER-USER"}})", drop = R"({"counter":{}},{"drop":null})";

    EXPECT_EQ(forward({device + accept, jump}), "");
    EXPECT_EQ(forward({tcp + R"(,{"drop":null})", several + accept}), "");
    EXPECT_EQ(forward({accept.substr(1)}), "") << "everything is accepted";
    for (const auto& rules : std::vector<std::vector<std::string>>{{},
                                                                   {jump},
                                                                   {other + accept},
                                                                   {device + "," + tcp + accept},
                                                                   {device + "," + drop},
                                                                   {drop, device + accept},
                                                                   {port + accept}})
        EXPECT_THAT(forward(rules), HasSubstr("chain FORWARD of table ip filter drops"))
            << testing::PrintToString(rules);
    EXPECT_EQ(input({device + accept, port + accept}), "");
    EXPECT_THAT(input({device + accept}), HasSubstr("chain INPUT")) << "our port is shut";
    EXPECT_THAT(input({port + accept}), HasSubstr("chain INPUT")) << "what comes from the tunnel is shut out";
}

TEST(Doctor, KnowsOtherPeoplesFirewallsFromNft) {
    DoctorFacts facts = healthy();
    auto read = read_ruleset(R"({"nftables":[{"metainfo":{"version":"1.0.6"}},
        {"chain":{"family":"ip","table":"filter","name":"FORWARD","hook":"forward","prio":0,"policy":"drop"}},
        {"chain":{"family":"inet","table":"tailrace-tailrace0","name":"input","hook":"input","policy":"drop"}},
        {"chain":{"family":"inet","table":"firewalld","name":"filter_INPUT","hook":"input","policy":"accept"}},
        {"rule":{"family":"ip","table":"nat","chain":"POSTROUTING","expr":[{"counter":{}},{"masquerade":null}]}},
        {"rule":{"family":"ip","table":"nat","chain":"lan","expr":[{"match":{}},{"masquerade":null}]}}]})",
                             facts);
    ASSERT_TRUE(read) << read.error().message();
    EXPECT_EQ(facts.base_chains.size(), 2u);
    EXPECT_THAT(facts.masquerades_all, testing::ElementsAre("chain POSTROUTING of table ip nat"));
    std::string told = complaints(facts);
    EXPECT_THAT(told, HasSubstr("warning firewall: chain FORWARD of table ip filter drops what is forwarded"));
    EXPECT_THAT(told, HasSubstr("masquerades whatever leaves"));
    EXPECT_THAT(findings_text(examine(facts)), HasSubstr("firewalld is in use"));
    EXPECT_FALSE(read_ruleset("[]", facts));
}

TEST(Doctor, MtuOffloadsClockAndNamesAreLookedAt) {
    DoctorFacts facts = healthy();
    facts.interfaces[1].mtu = 1300;
    facts.interfaces[1].udp_gro_forwarding = Answer::No;
    facts.interfaces[1].gro_list = Answer::Yes;
    facts.now = WallTime::from_unix(0);
    facts.nameservers.reset();
    std::string told = complaints(facts);
    for (const char* expected : {"warning mtu: eth0", "UDP GRO forwarding is off on eth0", "rx-gro-list is on on eth0",
                                 "error clock: the clock says 1970", "error dns: /etc/resolv.conf names no server"})
        EXPECT_THAT(told, HasSubstr(expected));
}

TEST(Doctor, WhatIsInOrderIsSaidToo) {
    DoctorFacts facts = healthy();
    facts.firewall_read = Answer::Yes;
    std::string told = findings_text(examine(facts));
    for (const char* expected :
         {"ok       firewall: this host has no rules but ours\n", "ok       mtu: tailrace0 has 1280, eth0 has 1500\n",
          "ok       offloads: those of eth0", "ok       routing: the kernel forwards what this node advertises\n",
          "ok       routing: replies of WireGuard pass the reverse path filter"})
        EXPECT_THAT(told, HasSubstr(expected));

    facts.base_chains = {{"ip", "filter", "OUTPUT", "output"}};
    facts.advertises = AdvertisedFamilies{};
    facts.ip_forward = facts.src_valid_mark = 0;
    facts.rp_filter = 0;
    told = findings_text(examine(facts));
    for (const char* expected : {"firewall: none of 1 chains of others is in the way", "nothing need be forwarded",
                                 "the reverse path filter (rp_filter) is not strict"})
        EXPECT_THAT(told, HasSubstr(expected));

    // What is not in order, or was not seen, is not said to be.
    facts.firewall_read = Answer::Unknown;
    facts.advertises.reset();
    facts.rp_filter = 1;
    facts.interfaces[1].mtu = 1300;
    facts.interfaces[1].gro_list = Answer::Yes;
    told = findings_text(examine(facts));
    for (const char* subject : {"firewall", "mtu", "offloads", "routing"})
        EXPECT_THAT(told, testing::Not(HasSubstr(fmt::format("ok       {}", subject))));
}

TEST(Doctor, WhatTheAgentCountsAsTroubleHasAReasonAndACure) {
    DoctorFacts facts = healthy();
    facts.health = {"The exit node berlin is offline: nothing leaves to the internet until then; \"tailrace set "
                    "--exit-node=\" stops using it.",
                    "Some peers are advertising routes but --accept-routes is false", "Your plan ends soon"};
    std::map<std::string, Finding> found;
    for (const Finding& one : examine(facts))
        if (one.severity != Severity::Ok) found[one.what] = one;
    ASSERT_EQ(found.size(), 3u);
    for (const auto& [what, one] : found) EXPECT_TRUE(!one.why.empty() && !one.cure.empty()) << what;
    const Finding& exit = found["The exit node berlin is offline"];
    EXPECT_EQ(exit.why, "nothing leaves to the internet until then");
    EXPECT_THAT(exit.cure, HasSubstr("sudo tailrace set --exit-node="));
    EXPECT_THAT(found["Some peers are advertising routes but --accept-routes is false"].cure,
                HasSubstr("tailrace set --accept-routes"));
    EXPECT_THAT(found["Your plan ends soon"].cure, HasSubstr("journalctl"));
}

TEST(Doctor, AnAgentThatIsNotThereIsAWarning) {
    DoctorFacts facts = healthy();
    facts.agent_answers = Answer::No;
    EXPECT_THAT(complaints(facts), HasSubstr("warning agent: the agent does not answer"));
    facts.health = {"Forwarding is off.\nSee a page."};
    EXPECT_THAT(complaints(facts), HasSubstr("Forwarding is off. See a page"));
    facts.config_trouble = "tailraced.yaml:2: unknown key";
    EXPECT_THAT(complaints(facts), HasSubstr("error configuration: tailraced.yaml:2"));
}

TEST(Doctor, JsonIsForScripts) {
    std::string json = findings_json({{Severity::Warning, "mtu", "a \"b\"", "why", "cure"}});
    EXPECT_EQ(json,
              R"({"Findings":[{"Severity":"warning","Subject":"mtu","What":"a \"b\"","Why":"why","Cure":"cure"}],)"
              R"("ExitStatus":1})");
}

TEST(Quirks, GoByVersionAndByWhatTheyNeed) {
    EXPECT_EQ(KernelVersion::parse("6.1.0-28-amd64"), (KernelVersion{6, 1, 0}));
    EXPECT_EQ(KernelVersion::parse("7.0-rc1"), (KernelVersion{7, 0, 0}));
    EXPECT_EQ(KernelVersion::parse("6.18.44-fc-v669"), (KernelVersion{6, 18, 44}));
    EXPECT_FALSE(KernelVersion::parse("Linux"));
    DoctorFacts facts = healthy();
    facts.interfaces[0].threaded_napi = Answer::Yes;
    EXPECT_THAT(complaints(facts), HasSubstr("threaded-napi-stall"));
    facts.kernel = "6.18.1";
    EXPECT_EQ(complaints(facts), "");
    facts.kernel = "7.1.4";
    facts.wireguard_module = Answer::No;
    facts.wireguard_go = Answer::Yes;
    EXPECT_THAT(complaints(facts), HasSubstr("udp-gso-mangled"));
    facts.kernel = "5.4.0";
    EXPECT_THAT(complaints(facts), HasSubstr("too-old"));
}

} // namespace
} // namespace tailrace
