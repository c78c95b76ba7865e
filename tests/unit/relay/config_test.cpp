#include "relay/config/config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tailrace::relay {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string problem_of(std::string_view yaml) {
    auto config = parse_config(yaml, "relay.yaml");
    if (!config) return config.error().message();
    auto good = check_config(*config);
    return good ? "" : good.error().message();
}

TEST(RelayConfig, ReadsEveryKey) {
    auto config = parse_config(R"(
listen: ":8443"
listen_http: "0.0.0.0:80"
metrics_listen: 127.0.0.1:9092
stun_port: 3479
hostname: relay.example.com
cert_mode: files
tls_certificate: /etc/c.pem
tls_key: /etc/k.pem
state_dir: /tmp/x
verify_clients:
  control_url: https://control.example.com/verify
  key_file: /etc/keys
  fail_open: false
mesh:
  key_file: /etc/mesh.key
  with: ["https://b.example.com", "http://192.0.2.1:3340"]
rate_limit:
  bytes_per_second: 1000000
  burst_bytes: 70000
write_timeout: 3s
drain: 0s
cores: 2
log: {level: debug, format: json}
)",
                               "relay.yaml");
    ASSERT_TRUE(config) << config.error().message();
    ASSERT_TRUE(check_config(*config));
    EXPECT_EQ(config->listen->text(), "[::]:8443");
    EXPECT_EQ(config->stun_port, 3479);
    EXPECT_EQ(config->cert_mode, CertMode::Files);
    EXPECT_EQ(config->verify_url, "https://control.example.com/verify");
    EXPECT_FALSE(config->verify_fail_open);
    ASSERT_EQ(config->mesh_with.size(), 2U);
    EXPECT_EQ(config->mesh_with[1].port, 3340);
    EXPECT_FALSE(config->mesh_with[1].tls);
    EXPECT_EQ(config->rate_burst_bytes, 70000);
    EXPECT_EQ(config->cores, 2);
}

TEST(RelayConfig, NamesTheLineOfAMistake) {
    EXPECT_THAT(problem_of("hostname: x\nlsiten: \":443\"\n"), HasSubstr("relay.yaml:2: unknown key \"lsiten\""));
    EXPECT_THAT(problem_of("hostname: x\nhostname: y\n"),
                HasSubstr("relay.yaml:2: \"hostname\" is already set in line 1"));
    EXPECT_THAT(problem_of("mesh:\n  kye: x\n"), HasSubstr("relay.yaml:2: unknown key \"kye\""));
    EXPECT_THAT(problem_of("stun_port: 99999\n"), HasSubstr("relay.yaml:1: stun_port:"));
    EXPECT_THAT(problem_of("cert_mode: acme\n"), HasSubstr("self-signed, files, plain"));
    EXPECT_THAT(problem_of("listen: 443\n"), HasSubstr("such as"));
    EXPECT_THAT(problem_of("a: [\n"), HasSubstr("relay.yaml:"));
    EXPECT_THAT(problem_of("verify_clients: {fail_open: perhaps}\n"), HasSubstr("neither true nor false"));
}

TEST(RelayConfig, SaysWhatDoesNotGoTogether) {
    EXPECT_THAT(problem_of(""), HasSubstr("hostname"));
    EXPECT_EQ(problem_of("hostname: 192.0.2.1\n"), "");
    EXPECT_EQ(problem_of("cert_mode: plain\n"), "");
    EXPECT_THAT(problem_of("cert_mode: files\n"), HasSubstr("tls_certificate and tls_key"));
    EXPECT_THAT(problem_of("hostname: x\ntls_key: y\n"), HasSubstr("cert_mode files only"));
    EXPECT_THAT(problem_of("cert_mode: plain\nmesh: {with: [\"https://b\"]}\n"), HasSubstr("mesh.key_file"));
    EXPECT_THAT(problem_of("cert_mode: plain\nrate_limit: {burst_bytes: 1}\n"), HasSubstr("bytes_per_second"));
    EXPECT_THAT(problem_of("cert_mode: plain\nrate_limit: {burst_bytes: 1, bytes_per_second: 5}\n"),
                HasSubstr("65568"));
    EXPECT_THAT(problem_of("listen: \"\"\n"), HasSubstr("nobody could connect"));
    EXPECT_THAT(problem_of("cert_mode: plain\ndrain: 10h\n"), HasSubstr("drain"));
}

TEST(RelayConfig, KnowsWhatCannotChangeWhileItRuns) {
    RelayConfig in_force = *parse_config("hostname: a\nstun_port: 3478\n", "relay.yaml");
    RelayConfig fresh = *parse_config("hostname: a\nrate_limit: {bytes_per_second: 5}\nlog: {level: debug}\n"
                                      "verify_clients: {key_file: /etc/keys}\ndrain: 5s\n",
                                      "relay.yaml");
    EXPECT_THAT(keep_what_is_fixed(in_force, fresh), IsEmpty());
    EXPECT_EQ(fresh.rate_bytes_per_second, 5);
    EXPECT_EQ(fresh.verify_key_file, "/etc/keys");
    EXPECT_EQ(fresh.log_level, log::Level::Debug);

    fresh = *parse_config("hostname: b\nlisten: \":8443\"\ncert_mode: files\ntls_certificate: /c\ntls_key: /k\n"
                          "verify_clients: {control_url: \"https://c\"}\nmesh: {with: [\"https://b\"]}\n",
                          "relay.yaml");
    EXPECT_THAT(keep_what_is_fixed(in_force, fresh),
                ElementsAre("listen", "hostname", "cert_mode", "verify_clients.control_url", "mesh.with"));
    EXPECT_EQ(fresh.listen, in_force.listen);
    EXPECT_EQ(fresh.tls_certificate, "") << "it belongs to the mode that is not in force";

    RelayConfig listed = in_force;
    listed.verify_key_file = "/etc/keys";
    fresh = in_force;
    EXPECT_THAT(keep_what_is_fixed(listed, fresh), ElementsAre("verify_clients.key_file"));
    EXPECT_EQ(fresh.verify_key_file, "/etc/keys") << "nobody else comes in before the restart";
}

TEST(MeshPeer, IsAUrlWithAnOptionalPin) {
    const std::string pin = "sha256-raw:" + std::string(64, 'a');
    auto peer = parse_mesh_peer("https://192.0.2.9:8443#" + pin);
    ASSERT_TRUE(peer);
    EXPECT_EQ(peer->host, "192.0.2.9");
    EXPECT_EQ(peer->port, 8443);
    EXPECT_EQ(peer->cert_name, pin);
    EXPECT_FALSE(parse_mesh_peer("https://x#sha256-raw:12"));
    EXPECT_FALSE(parse_mesh_peer("relay2"));
}

TEST(VerifyFlag, IsAUrlOrAFile) {
    RelayConfig config;
    set_verify(config, "http://10.0.0.1:8080");
    set_verify(config, "/etc/keys");
    EXPECT_EQ(config.verify_url, "http://10.0.0.1:8080");
    EXPECT_EQ(config.verify_key_file, "/etc/keys");
}

} // namespace
} // namespace tailrace::relay
