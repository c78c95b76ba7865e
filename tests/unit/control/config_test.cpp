#include "control/config/config.hpp"
#include "control/map/wire_json.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tailrace {
namespace {

using testing::HasSubstr;

TEST(ControlConfig, AnEmptyFileMeansTheDefaults) {
    auto config = parse_config("", "control.yaml");
    ASSERT_TRUE(config) << config.error().message();
    EXPECT_EQ(config->listen.text, "127.0.0.1:8080");
    EXPECT_EQ(config->listen_tls.text, ":443");
    EXPECT_TRUE(config->listen_tls_is_default);
    EXPECT_EQ(config->prefix_v4.text(), "100.64.0.0/10");
}

TEST(ControlConfig, ReadsEveryKey) {
    auto config = parse_config(R"(
server_url: http://10.99.0.1:8080/
listen: 0.0.0.0:8080
listen_tls: ":8443"
metrics_listen: ""
state_dir: /tmp/state
socket: /tmp/state/control.sock
base_domain: tail.lab
prefixes:
  v4: 100.64.0.0/16
  v6: fd7a:115c:a1e0::/64
relay: embedded
relay_stun_port: -1
derp_map_file: /tmp/derp.json
policy_file: /tmp/policy.hujson
ephemeral_timeout: 90s
device_approval: true
route_choice: region
log:
  level: debug
  format: json
)",
                               "control.yaml");
    ASSERT_TRUE(config) << config.error().message();
    EXPECT_EQ(config->server_url, "http://10.99.0.1:8080");
    EXPECT_EQ(config->server_host(), "10.99.0.1");
    EXPECT_FALSE(config->listen_tls_is_default);
    EXPECT_FALSE(config->metrics_listen.enabled);
    EXPECT_EQ(config->prefix_v4.text(), "100.64.0.0/16");
    EXPECT_TRUE(config->embedded_relay);
    EXPECT_EQ(config->relay_stun_port, -1);
    EXPECT_EQ(config->ephemeral_timeout, std::chrono::seconds{90});
    EXPECT_TRUE(config->device_approval);
    EXPECT_FALSE(default_config().device_approval);
    EXPECT_EQ(config->log_format, log::Format::Json);
    EXPECT_EQ(config->route_choice, RouteChoice::Region);
    EXPECT_EQ(default_config().route_choice, RouteChoice::Primary);
}

TEST(ControlConfig, SaysHowNodesLookNamesUp) {
    EXPECT_EQ(default_config().dns, DnsSettings{});
    auto config = parse_config(R"(
base_domain: tail.lab
dns:
  magic_dns: true
  nameservers:
    global: [1.1.1.1, "[2606:4700::1111]:5353", https://dns.nextdns.io/abc]
    split:
      Corp.example.: 10.0.0.53
      eu.corp.example: [10.1.0.53, 10.1.0.54]
  search_domains: [corp.example]
  extra_records:
    - {name: Grafana.corp.example, type: A, value: 100.64.0.3}
    - {name: grafana.corp.example, value: "fd7a:115c:a1e0::3"}
)",
                               "control.yaml");
    ASSERT_TRUE(config) << config.error().message();
    EXPECT_EQ(config->dns.nameservers.size(), 3u);
    EXPECT_EQ(config->dns.split.at("corp.example").at(0).addr, "10.0.0.53");
    EXPECT_EQ(config->dns.split.at("eu.corp.example").size(), 2u);
    EXPECT_EQ(config->dns.extra_records.at(0).name, "grafana.corp.example");
    EXPECT_EQ(config->dns.extra_records.at(1).type, "AAAA");
    wire::DnsConfig sent = dns_config("tail.lab", config->dns);
    EXPECT_TRUE(sent.proxied);
    EXPECT_THAT(sent.domains, testing::ElementsAre("tail.lab", "corp.example"));
    EXPECT_TRUE(sent.routes.at("tail.lab").empty());
    EXPECT_EQ(sent.routes.at("corp.example").size(), 1u);
    EXPECT_EQ(sent.resolvers.size(), 3u);
    config->dns.magic_dns = false;
    sent = dns_config("tail.lab", config->dns);
    EXPECT_FALSE(sent.proxied || sent.routes.contains("tail.lab"));
    EXPECT_THAT(sent.domains, testing::ElementsAre("corp.example"));
}

TEST(ControlConfig, RefusesDnsSettingsThatMakeNoSense) {
    auto complaint = [](const std::string& dns) {
        auto config = parse_config("base_domain: tail.lab\ndns:\n" + dns, "control.yaml");
        return config ? std::string{"no complaint"} : config.error().message();
    };
    EXPECT_THAT(complaint("  nameserver: 1.1.1.1\n"), HasSubstr("control.yaml:3: unknown key \"nameserver\""));
    EXPECT_THAT(complaint("  nameservers: {global: [one]}\n"),
                HasSubstr("control.yaml:3: global: \"one\" is no address"));
    EXPECT_THAT(complaint("  nameservers: {global: [1.1.1.1, 1.1.1.1]}\n"), HasSubstr("twice"));
    EXPECT_THAT(complaint("  nameservers: {split: {corp.example: }}\n"), HasSubstr("needs a resolver"));
    EXPECT_THAT(complaint("  nameservers: {split: {-x.example: 10.0.0.1}}\n"), HasSubstr("is not a domain name"));
    EXPECT_THAT(complaint("  nameservers: {split: {tail.lab: 10.0.0.1}}\n"), HasSubstr("is base_domain"));
    EXPECT_THAT(complaint("  search_domains: [a..b]\n"), HasSubstr("is not a domain name"));
    EXPECT_THAT(complaint("  extra_records: [{name: a.b, type: A, value: \"::1\"}]\n"), HasSubstr("has type AAAA"));
    EXPECT_THAT(complaint("  extra_records: [{name: a.b, value: x}]\n"), HasSubstr("wants an IP address"));
    EXPECT_THAT(complaint("  extra_records: [{value: 10.0.0.1}]\n"), HasSubstr("name is missing"));
    EXPECT_THAT(complaint("  magic_dns: perhaps\n"), HasSubstr("neither true nor false"));
}

TEST(ControlConfig, NamesTheLineOfAnUnknownKey) {
    auto config = parse_config("listen: 0.0.0.0:80\n\nlsiten: x\n", "control.yaml");
    ASSERT_FALSE(config);
    EXPECT_THAT(config.error().message(), HasSubstr("control.yaml:3: unknown key \"lsiten\""));
    config = parse_config("log:\n  levl: debug\n", "control.yaml");
    ASSERT_FALSE(config);
    EXPECT_THAT(config.error().message(), HasSubstr("control.yaml:2: unknown key \"levl\""));
}

TEST(ControlConfig, NamesTheLineOfABadValue) {
    for (const char* text :
         {"listen: nowhere", "server_url: ftp://x", "prefixes: {v4: 10.0.0.0/8}", "prefixes: {v6: fd00::/48}",
          "log: {level: loud}", "listen: [1]", "base_domain: a..b", "listen: :80\nlisten: :81", "a: [", "tls_key: /x",
          "relay: yes", "relay_stun_port: 0", "relay: embedded\nlisten_tls: \"\""}) {
        auto config = parse_config(text, "control.yaml");
        ASSERT_FALSE(config) << text;
        EXPECT_THAT(config.error().message(), HasSubstr("control.yaml")) << text;
    }
}

} // namespace
} // namespace tailrace
