#include "control/config/config.hpp"

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
