#include "agent/config/config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tailrace {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string complaint(const std::string& text) {
    auto config = parse_agent_config(text, "tailraced.yaml");
    return config ? "" : config.error().message();
}

TEST(AgentConfig, AnEmptyFileDeclaresNothing) {
    auto config = parse_agent_config("# nothing\n", "tailraced.yaml");
    ASSERT_TRUE(config) << config.error().message();
    EXPECT_FALSE(config->declares_prefs);
    EXPECT_EQ(config->daemon, DaemonOptions{});
}

TEST(AgentConfig, OptionsOfTheDaemonAloneLeaveThePreferencesToTheCommandLine) {
    auto config =
        parse_agent_config("port: 0\ndevice: tail1\non-stop: down\nport-mapping: no\nlog:\n  level: debug\n", "f");
    ASSERT_TRUE(config) << config.error().message();
    EXPECT_FALSE(config->declares_prefs);
    EXPECT_EQ(config->daemon.port, 0);
    EXPECT_EQ(config->daemon.device, "tail1");
    EXPECT_EQ(config->daemon.on_stop, OnStop::Down);
    EXPECT_FALSE(config->daemon.port_mapping);
    EXPECT_EQ(config->daemon.log_level, log::Level::Debug);
    EXPECT_THAT(changed_options(DaemonOptions{}, config->daemon), ElementsAre("device", "port", "port-mapping"));
}

TEST(AgentConfig, EndpointsThatTheAdministratorKnowsHaveAPort) {
    auto forwarded = parse_agent_config("static-endpoints: [203.0.113.7:41641, \"[2001:db8::7]:1\"]\n", "f");
    ASSERT_TRUE(forwarded) << forwarded.error().message();
    EXPECT_EQ(forwarded->daemon.static_endpoints,
              (std::vector{*Endpoint::parse("203.0.113.7:41641"), *Endpoint::parse("[2001:db8::7]:1")}));
    EXPECT_THAT(changed_options(DaemonOptions{}, forwarded->daemon), ElementsAre("static-endpoints"));
    for (const char* wrong : {"203.0.113.7", "203.0.113.7:0", "[203.0.113.7:1, nowhere]", "0.0.0.0:41641"})
        EXPECT_FALSE(parse_agent_config(fmt::format("static-endpoints: {}\n", wrong), "f")) << wrong;
}

TEST(AgentConfig, PacketSizesAreProbedAsControlSaysUnlessTheAdministratorKnowsBetter) {
    EXPECT_EQ(DaemonOptions{}.probe_path_mtu, "auto");
    for (auto [text, meant] :
         {std::pair{"auto", "auto"}, {"on", "on"}, {"yes", "on"}, {"off", "off"}, {"false", "off"}}) {
        auto config = parse_agent_config(fmt::format("probe-path-mtu: {}\n", text), "f");
        ASSERT_TRUE(config) << config.error().message();
        EXPECT_EQ(config->daemon.probe_path_mtu, meant);
        EXPECT_EQ(changed_options(DaemonOptions{}, config->daemon).empty(), text == std::string{"auto"});
    }
    EXPECT_THAT(complaint("probe-path-mtu: 1400\n"), HasSubstr("tailraced.yaml:1:"));
}

TEST(AgentConfig, TheGuardIsOffUnlessAskedFor) {
    EXPECT_FALSE(DaemonOptions{}.guard);
    auto config = parse_agent_config("guard: yes\nguard-rate: 1000\nguard-burst: 1\n", "f");
    ASSERT_TRUE(config) << config.error().message();
    EXPECT_TRUE(config->daemon.guard);
    EXPECT_EQ(config->daemon.guard_rate, 1000u);
    EXPECT_EQ(config->daemon.guard_burst, 1u);
    EXPECT_THAT(changed_options(DaemonOptions{}, config->daemon), ElementsAre("guard", "guard-rate", "guard-burst"));
    for (const char* wrong : {"0", "-1", "1000001", "many"})
        EXPECT_THAT(complaint(fmt::format("guard-rate: {}\n", wrong)), HasSubstr("tailraced.yaml:1:")) << wrong;
}

TEST(AgentConfig, EveryFlagOfUpAndSetIsAKey) {
    for (const cli::PrefFlag& flag : cli::pref_flags()) {
        std::string value = flag.kind == cli::PrefFlag::Kind::Bool       ? "true"
                            : std::string{flag.name} == "netfilter-mode" ? "off"
                                                                         : "";
        std::string text = std::string{flag.name} == "login-server" ? "" : "login-server: https://control.example\n";
        text +=
            fmt::format("{}: {}\n", flag.name, std::string{flag.name} == "login-server" ? "https://a.example" : value);
        auto config = parse_agent_config(text, "f");
        ASSERT_TRUE(config) << flag.name << ": " << config.error().message();
        EXPECT_TRUE(config->given.contains(flag.name));
    }
}

TEST(AgentConfig, AnOAuthClientNeedsTagsAndStandsAlone) {
    const std::string server = "login-server: https://c.example\n", file = "oauth-client-file: /etc/tailrace/oauth\n";
    auto config = parse_agent_config(server + file + "advertise-tags: [tag:fleet]\n", "f");
    ASSERT_TRUE(config) << config.error().message();
    EXPECT_TRUE(config->declares_prefs);
    EXPECT_EQ(config->oauth_client_file, "/etc/tailrace/oauth");
    EXPECT_THAT(complaint(server + file), HasSubstr("oauth-client-file needs advertise-tags"));
    EXPECT_EQ(complaint(server + file + "locked: false\n"), "") << "the command line may name them";
    EXPECT_THAT(complaint(server + file + "advertise-tags: [tag:a]\nauth-key-file: /k\n"), HasSubstr("are both here"));
    EXPECT_THAT(complaint(server + "oauth-client-file: tskey-client-a-b\n"), HasSubstr("tailraced.yaml:2:"));
}

TEST(AgentConfig, WhatIsNotNamedHasItsDefaultWhenLocked) {
    auto config = parse_agent_config(R"(
login-server: https://control.example.com/
hostname: gw1
accept-routes: yes
advertise-tags: [web, tag:db]
advertise-routes:
  - 10.0.0.0/8
  - 192.168.0.0/24
)",
                                     "f");
    ASSERT_TRUE(config) << config.error().message();
    Prefs current;
    current.shields_up = true;
    current.config.emplace();
    current.config->node_id = "n1";
    auto prefs = declared_prefs(*config, current);
    ASSERT_TRUE(prefs);
    EXPECT_EQ(prefs->control_url, "https://control.example.com");
    EXPECT_TRUE(prefs->want_running);
    EXPECT_TRUE(prefs->route_all);
    EXPECT_FALSE(prefs->shields_up);
    EXPECT_EQ(prefs->config->node_id, "n1");
    EXPECT_THAT(prefs->tags(), ElementsAre("tag:web", "tag:db"));
    EXPECT_EQ(prefs->routes().size(), 2u);
}

TEST(AgentConfig, WhatIsNotNamedStaysWhenUnlocked) {
    auto config = parse_agent_config("locked: false\nhostname: gw1\nenabled: false\n", "f");
    ASSERT_TRUE(config) << config.error().message();
    Prefs current;
    current.shields_up = true;
    current.want_running = true;
    auto prefs = declared_prefs(*config, current);
    ASSERT_TRUE(prefs);
    EXPECT_TRUE(prefs->shields_up);
    EXPECT_EQ(prefs->hostname, "gw1");
    EXPECT_FALSE(prefs->want_running);
}

TEST(AgentConfig, AnExitNodeIsAnAddressANameOrAuto) {
    auto declared = [](const std::string& value, const Prefs& current) {
        auto config = parse_agent_config("login-server: https://a.example\nexit-node: " + value + "\n", "f");
        EXPECT_TRUE(config) << config.error().message();
        return *declared_prefs(*config, current);
    };
    EXPECT_EQ(declared("100.64.0.7", {}).exit_node_ip, "100.64.0.7");
    EXPECT_EQ(declared("gw1", {}).exit_node_id, "gw1") << "whose it is, the network map says";
    Prefs prefs = declared("auto:any", {});
    EXPECT_EQ(prefs.auto_exit_node, "any");
    EXPECT_EQ(prefs.exit_node_id, "auto:any");
    prefs.exit_node_id = "n7"; // found since
    EXPECT_EQ(declared("auto:any", prefs).exit_node_id, "n7") << "to read it again changes nothing";
    EXPECT_EQ(declared("auto:any", declared("gw1", {})).exit_node_id, "auto:any");
}

TEST(AgentConfig, ComplaintsNameTheLine) {
    EXPECT_THAT(complaint("hostname: a\nhostnmae: b\n"), HasSubstr("tailraced.yaml:2: unknown key \"hostnmae\""));
    EXPECT_THAT(complaint("\nadvertise-routes: [10.0.0.0/8, 10.1.2.3/8]\n"),
                HasSubstr("tailraced.yaml:2: advertise-routes: 10.1.2.3/8 has non-address bits set"));
    EXPECT_THAT(complaint("port: 65536\n"), HasSubstr("tailraced.yaml:1: port: "));
    EXPECT_THAT(complaint("accept-dns: maybe\n"), HasSubstr("tailraced.yaml:1: accept-dns: \"maybe\""));
    EXPECT_THAT(complaint("auth-key-file: tskey-auth-x\n"), HasSubstr("tailraced.yaml:1: auth-key-file wants a path"));
    EXPECT_THAT(complaint("exit-node: auto:best\n"),
                HasSubstr("tailraced.yaml:1: exit-node: the only one of the kind"));
    EXPECT_THAT(complaint("hostname: gw1\n"), HasSubstr("login-server is missing"));
    EXPECT_THAT(complaint("login-server: https://a.example\nexit-node: 100.64.0.1\nadvertise-exit-node: true\n"),
                HasSubstr("Cannot advertise an exit node and use an exit node"));
    EXPECT_THAT(complaint("a: [\n"), HasSubstr("tailraced.yaml:"));
}

} // namespace
} // namespace tailrace
