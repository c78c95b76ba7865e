#include "agent/config/config.hpp"
#include "agent/local/metrics_server.hpp"
#include "agent/local/prometheus.hpp"
#include "agent/path/path_traffic.hpp"

#include <gtest/gtest.h>

namespace tailrace {
namespace {

TEST(PrometheusText, WritesFamiliesAndEscapes) {
    PrometheusText out;
    out.family("a_total", PrometheusText::Type::Counter, "First\nof \\ \"two\".");
    out.sample(std::uint64_t{18446744073709551615u}, {{"x", "a\"b\\c\nd"}, {"y", ""}});
    out.single("b", PrometheusText::Type::Gauge, "Second.", 0.5);
    EXPECT_EQ(out.take(), "# HELP a_total First\\nof \\\\ \"two\".\n# TYPE a_total counter\n"
                          "a_total{x=\"a\\\"b\\\\c\\nd\",y=\"\"} 18446744073709551615\n"
                          "# HELP b Second.\n# TYPE b gauge\nb 0.5\n");
}

TEST(PrometheusText, HasNoNumbersThatNobodyReads) {
    PrometheusText out;
    out.single("b", PrometheusText::Type::Gauge, "x", 1.0 / 0.0);
    EXPECT_EQ(out.take(), "# HELP b x\n# TYPE b gauge\nb NaN\n");
}

TEST(MetricsAddress, IsOneAndHasAPort) {
    EXPECT_EQ(parse_metrics_address("127.0.0.1:9442")->text(), "127.0.0.1:9442");
    EXPECT_EQ(parse_metrics_address("[::1]:9442")->text(), "[::1]:9442");
    for (const char* bad :
         {"", ":9442", "9442", "0.0.0.0:9442", "[::]:9442", "127.0.0.1", "127.0.0.1:0", "224.0.0.1:9442"})
        EXPECT_FALSE(parse_metrics_address(bad)) << bad;
}

class PathTrafficTest : public ::testing::Test {
protected:
    void take(std::initializer_list<std::tuple<std::uint8_t, const char*, std::uint64_t, std::uint64_t>> peers) {
        WireGuardState state;
        for (const auto& [key, endpoint, received, sent] : peers) {
            WireGuardPeerState peer;
            peer.public_key[0] = std::byte{key};
            if (*endpoint) peer.endpoint = *Endpoint::parse(endpoint);
            peer.rx_bytes = received;
            peer.tx_bytes = sent;
            state.peers.push_back(peer);
        }
        traffic_.take(
            state, [](const Endpoint& endpoint) { return endpoint.address.is_loopback(); },
            [this](const WireGuardKey& key) { return key[0] == std::byte{1} ? carrier_ : std::nullopt; });
    }
    std::optional<Endpoint> carrier_; ///< of the first peer
    PathTraffic traffic_;
};

TEST_F(PathTrafficTest, PutsWhatMovedDownToThePathInForce) {
    take({{1, "203.0.113.1:1", 1000, 2000}}); // what an earlier agent saw
    take({{1, "203.0.113.1:1", 1500, 2100}, {2, "[2001:db8::1]:1", 70, 80}});
    take({{1, "127.64.0.1:1", 1600, 2100}, {2, "[2001:db8::1]:1", 70, 81}});
    EXPECT_EQ(traffic_.of(PathTraffic::DirectV4).received, 500u);
    EXPECT_EQ(traffic_.of(PathTraffic::DirectV4).sent, 100u);
    EXPECT_EQ(traffic_.of(PathTraffic::DirectV6).received, 70u);
    EXPECT_EQ(traffic_.of(PathTraffic::DirectV6).sent, 81u);
    EXPECT_EQ(traffic_.of(PathTraffic::Relay).received, 100u);
    EXPECT_EQ(traffic_.of(PathTraffic::Relay).sent, 0u);
}

TEST_F(PathTrafficTest, TellsRelayServersOfTheTailnetFromDerp) {
    take({{1, "127.64.0.1:1", 10, 10}, {2, "127.64.0.2:1", 10, 10}});
    carrier_ = *Endpoint::parse("203.0.113.5:40000");
    take({{1, "127.64.0.1:1", 15, 10}, {2, "127.64.0.2:1", 11, 10}});
    carrier_ = *Endpoint::parse("[2001:db8::5]:40000");
    take({{1, "127.64.0.1:1", 15, 17}, {2, "127.64.0.2:1", 11, 10}});
    take({{1, "203.0.113.1:1", 15, 18}, {2, "127.64.0.2:1", 11, 10}});
    EXPECT_EQ(traffic_.of(PathTraffic::PeerRelayV4).received, 5u);
    EXPECT_EQ(traffic_.of(PathTraffic::PeerRelayV6).sent, 7u);
    EXPECT_EQ(traffic_.of(PathTraffic::Relay).received, 1u);
    EXPECT_EQ(traffic_.of(PathTraffic::DirectV4).sent, 1u);
}

TEST_F(PathTrafficTest, NeverGoesBack) {
    take({{1, "203.0.113.1:1", 1000, 2000}});
    take({{1, "203.0.113.1:1", 10, 20}}); // the device was made anew
    EXPECT_EQ(traffic_.of(PathTraffic::DirectV4).received, 10u);
    take({});
    take({{1, "203.0.113.1:1", 5, 5}, {3, "", 9, 9}});
    EXPECT_EQ(traffic_.of(PathTraffic::DirectV4).received, 15u);
    EXPECT_EQ(traffic_.of(PathTraffic::DirectV4).sent, 25u);
}

} // namespace
} // namespace tailrace
