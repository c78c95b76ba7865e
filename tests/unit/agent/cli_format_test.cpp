#include "agent/cli/commands.hpp"
#include "agent/cli/format.hpp"
#include "agent/local/pretty_json.hpp"

#include <gmock/gmock.h>

namespace tailrace::cli {
namespace {

using testing::HasSubstr;

Status two_nodes() {
    Status status;
    status.backend_state = "Running";
    status.magic_dns_suffix = "tail.lab";
    PeerStatus self;
    self.dns_name = "laptop.tail.lab.";
    self.os = "linux";
    self.user_id = 1;
    self.online = true;
    self.tailscale_ips = {*IpAddress::parse("100.64.0.1")};
    status.self = self;
    PeerStatus router = self;
    router.dns_name = "router.tail.lab.";
    router.user_id = 2;
    router.tailscale_ips = {*IpAddress::parse("100.64.0.2")};
    router.active = true;
    router.exit_node_option = true;
    router.cur_addr = "203.0.113.12:41641";
    status.peer.emplace();
    (*status.peer)["nodekey:aa"] = router;
    status.user =
        std::map<std::int64_t, UserProfileStatus>{{1, {1, "alice", "alice", ""}}, {2, {2, "tagged-devices", "", ""}}};
    return status;
}

TEST(NotRunning, AMachineThatWaitsForApprovalIsToldHowItGetsIt) {
    Status status = two_nodes();
    status.backend_state = "NeedsMachineAuth";
    std::string text = not_running_text(status);
    EXPECT_TRUE(text.starts_with("Machine is not yet approved by tailnet admin.\n")) << text;
    EXPECT_THAT(text, HasSubstr("nodes approve laptop.tail.lab\n"));
    status.self->dns_name.clear();
    status.self->host_name = "lap\033[2Jtop";
    EXPECT_THAT(not_running_text(status), HasSubstr("nodes approve lap?[2Jtop\n"));
}

TEST(VersionSkew, IsToldWhenTheAgentSaysAnotherVersion) {
    EXPECT_EQ(version_skew_text("1.2", "1.2"), "");
    EXPECT_EQ(version_skew_text("1.2", ""), "");
    EXPECT_EQ(version_skew_text("1.2", "1.3"), "Warning: client version \"1.2\" != tailraced server version \"1.3\"");
}

TEST(StatusTable, LooksLikeTheReferenceClients) {
    EXPECT_EQ(status_table(two_nodes(), {}, WallTime::now()),
              "100.64.0.1  laptop  alice           linux  -                                                    \n"
              "100.64.0.2  router  tagged-devices  linux  active; offers exit node; direct 203.0.113.12:41641  \n");
}

TEST(StatusTable, SaysSinceWhenAPeerIsAway) {
    Status status = two_nodes();
    auto& router = status.peer->begin()->second;
    router.active = false;
    router.exit_node_option = false;
    router.online = false;
    router.last_seen = *WallTime::parse("2026-01-01T00:00:00Z");
    EXPECT_THAT(status_table(status, {}, *WallTime::parse("2026-01-04T01:00:00Z")),
                HasSubstr("offline, last seen 3d ago"));
}

TEST(StatusTable, EndsWithHealth) {
    Status status = two_nodes();
    status.health = {"control does not answer"};
    EXPECT_THAT(status_table(status, {}, WallTime::now()),
                HasSubstr("\n\n# Health check:\n#     - control does not answer\n"));
}

TEST(PingLine, LooksLikeTheReferenceClients) {
    PingResult result;
    result.node_ip = "100.64.0.2";
    result.node_name = "router";
    result.latency_seconds = 0.0041;
    result.peer_api_port = 46590;
    EXPECT_EQ(ping_line(result, "TSMP"), "pong from router (100.64.0.2, 46590) via TSMP in 4ms\n");
    EXPECT_EQ(ping_line(result, "ICMP"), "pong from router (100.64.0.2) via ICMP in 4ms\n");
    result.endpoint = "203.0.113.12:41641";
    EXPECT_EQ(ping_line(result, "disco"), "pong from router (100.64.0.2) via 203.0.113.12:41641 in 4ms\n");
}

TEST(FindPeer, KnowsAddressesAndNames) {
    Status status = two_nodes();
    EXPECT_TRUE(find_peer(status, "router"));
    EXPECT_TRUE(find_peer(status, "ROUTER.tail.lab"));
    EXPECT_TRUE(find_peer(status, "100.64.0.2"));
    auto missing = find_peer(status, "100.99.99.99");
    ASSERT_FALSE(missing);
    EXPECT_EQ(missing.error().message(), "no matching peer");
}

TEST(ScrubAuthKeys, LeavesNoKeyReadable) {
    EXPECT_EQ(scrub_auth_keys("--auth-key=tskey-auth-k1 --x"), "--auth-key=tskey-XXXXXXX --x");
}

TEST(PrettyJson, IndentsAsGoDoes) {
    EXPECT_EQ(pretty_json(R"({"a":[],"b":{"c":"x,{"},"d":[1,2]})", "  "),
              "{\n  \"a\": [],\n  \"b\": {\n    \"c\": \"x,{\"\n  },\n  \"d\": [\n    1,\n    2\n  ]\n}");
}

TEST(Netcheck, SaysWhatTheGatewaySpeaks) {
    auto line = [](const std::string& fields) {
        auto text = netcheck_text("{" + fields + "}", "{}");
        return text ? text->substr(text->find("PortMapping"))
                          .substr(0, text->substr(text->find("PortMapping")).find('\n'))
                    : text.error().message();
    };
    EXPECT_EQ(line(R"("UPnP":true,"PMP":true,"PCP":true)"), "PortMapping: UPnP, NAT-PMP, PCP");
    EXPECT_EQ(line(R"("UPnP":false,"PMP":true,"PCP":false)"), "PortMapping: NAT-PMP");
    EXPECT_EQ(line(R"("UPnP":false,"PMP":false,"PCP":false)"), "PortMapping: ");
    EXPECT_EQ(line(R"("UPnP":null,"PMP":null,"PCP":null)"), "PortMapping: not checked");
}

TEST(GetSettings, OneIsItsValueAndAllAreATable) {
    Prefs prefs;
    prefs.hostname = "gw 1";
    prefs.route_all = true;
    prefs.advertise_routes =
        std::vector{*IpPrefix::parse("10.0.0.0/8"), *IpPrefix::parse("0.0.0.0/0"), *IpPrefix::parse("::/0")};
    EXPECT_EQ(*settings_text(prefs, {"hostname"}), "gw 1\n");
    EXPECT_EQ(*settings_text(prefs, {"accept-routes"}), "true\n");
    EXPECT_EQ(*settings_text(prefs, {"advertise-routes"}), "10.0.0.0/8\n");
    EXPECT_EQ(*settings_text(prefs, {"advertise-exit-node"}), "true\n");
    std::string table = *settings_text(prefs, {});
    EXPECT_THAT(table, testing::StartsWith("NAME "));
    EXPECT_THAT(table, HasSubstr("\nhostname "));
    EXPECT_EQ(table, *settings_text(prefs, {"all"}));
    EXPECT_EQ(table.find("login-server"), std::string::npos) << "a flag of up alone";
}

TEST(GetSettings, AreJsonAndFlagsOfSet) {
    Prefs prefs;
    prefs.hostname = "gw 1";
    EXPECT_EQ(*settings_text(prefs, {"hostname", true}), "{\n  \"hostname\": \"gw 1\"\n}\n");
    EXPECT_THAT(*settings_text(prefs, {"", true}), HasSubstr("\"accept-routes\": false,"));
    std::string flags = *settings_text(prefs, {"", false, true});
    EXPECT_THAT(flags, HasSubstr("--hostname='gw 1'"));
    EXPECT_THAT(flags, HasSubstr("--accept-routes=false"));
}

TEST(GetSettings, RefuseAnUnknownName) {
    auto text = settings_text(Prefs{}, {"hostnmae"});
    ASSERT_FALSE(text);
    EXPECT_THAT(text.error().message(), HasSubstr("unknown setting \"hostnmae\""));
}

} // namespace
} // namespace tailrace::cli
