#include "agent/dataplane/quirks.hpp"
#include "agent/doctor/examine.hpp"
#include "agent/doctor/ruleset.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
    facts.advertises_routes = true;
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

TEST(Doctor, ForwardingMattersToWhoAdvertisesRoutes) {
    DoctorFacts facts = healthy();
    facts.ip_forward = 0;
    EXPECT_THAT(complaints(facts), HasSubstr("error routing: net.ipv4.ip_forward is 0"));
    facts.advertises_routes = false;
    EXPECT_EQ(complaints(facts), "");
}

TEST(Doctor, StrictReversePathFilterNeedsTheMark) {
    DoctorFacts facts = healthy();
    facts.rp_filter = 1;
    EXPECT_EQ(complaints(facts), "");
    facts.src_valid_mark = 0;
    EXPECT_THAT(complaints(facts), HasSubstr("rp_filter is 1 (strict)"));
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

TEST(Doctor, AnAgentThatIsNotThereIsAWarning) {
    DoctorFacts facts = healthy();
    facts.agent_answers = Answer::No;
    EXPECT_THAT(complaints(facts), HasSubstr("warning agent: the agent does not answer"));
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
