#include "agent/coordination/backoff.hpp"
#include "agent/coordination/c2n.hpp"
#include "agent/coordination/dial_plan.hpp"
#include "agent/path/own_endpoints.hpp"
#include "agent/path/udp_packet.hpp"
#include "base/text.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

DialPlan plan(const char* url) {
    return plan_dial(*Url::parse(url));
}

TEST(DialPlan, FollowsTheTableOfTheProtocol) {
    EXPECT_EQ(plan("https://c.example").cleartext.text(), "http://c.example:80");
    EXPECT_EQ(plan("https://c.example").tls->text(), "https://c.example:443");
    EXPECT_EQ(plan("https://c.example:8443").cleartext.text(), "http://c.example:80");
    EXPECT_EQ(plan("https://c.example:8443").tls->text(), "https://c.example:8443");
    EXPECT_EQ(plan("http://203.0.113.1:8080").cleartext.text(), "http://203.0.113.1:8080");
    EXPECT_EQ(plan("http://203.0.113.1:8080").tls->text(), "https://203.0.113.1:443");
    EXPECT_FALSE(plan("http://10.0.0.1:8080").tls.has_value());
    EXPECT_FALSE(plan("http://localhost:8080").tls.has_value());
    EXPECT_TRUE(plan("http://control.lan:8080").tls.has_value());
}

TEST(Backoff, GrowsWithTheSquareUpToHalfAMinute) {
    EXPECT_EQ(Backoff::unjittered(1), 10ms);
    EXPECT_EQ(Backoff::unjittered(10), 1s);
    EXPECT_EQ(Backoff::unjittered(1000), 30s);
    EXPECT_EQ(Backoff::jittered(10s, 0), 5s);
    EXPECT_EQ(Backoff::jittered(10s, 1000), 15s);
}

std::string answer(std::string_view request) {
    return answer_c2n(request, {[] { return std::string{R"({"Domains":{"a.test":["198.51.100.1"]}})"}; },
                                [] { return std::string{R"({"VIPServices":[],"ServicesHash":"ab"})"}; }});
}

TEST(C2n, EchoesAndRefusesTheUnknown) {
    EXPECT_THAT(answer("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"), EndsWith("\r\n\r\nhello"));
    EXPECT_THAT(answer("GET /nothing HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 400 "));
    EXPECT_THAT(answer("GET /nothing HTTP/1.1\r\n\r\n"), HasSubstr("unknown c2n path"));
    EXPECT_THAT(answer("rubbish"), StartsWith("HTTP/1.1 400 "));
}

TEST(C2n, SaysWhatAnAppConnectorHasLearned) {
    std::string said = answer("GET /appconnector/routes HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_THAT(said, StartsWith("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"));
    EXPECT_THAT(said, EndsWith("\r\n\r\n{\"Domains\":{\"a.test\":[\"198.51.100.1\"]}}"));
    EXPECT_THAT(answer("POST /appconnector/routes HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 405 "));
}

TEST(C2n, SaysWhichServicesThisNodeOffers) {
    EXPECT_THAT(answer("GET /vip-services HTTP/1.1\r\nHost: control\r\n\r\n"),
                EndsWith("\r\n\r\n{\"VIPServices\":[],\"ServicesHash\":\"ab\"}"));
    EXPECT_THAT(answer("POST /vip-services HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 405 "));
}

TEST(UdpPacket, HasAChecksumThatReceiversAccept) {
    Bytes packet =
        build_udp_packet(*Endpoint::parse("10.0.0.1:41641"), *Endpoint::parse("10.0.0.2:7"), as_bytes("abc"));
    ASSERT_EQ(packet.size(), 31u);
    Writer pseudo;
    pseudo.bytes(BytesView{packet}.subspan(12, 8));
    pseudo.be32(17);
    pseudo.be32(11);
    EXPECT_EQ(checksum_finish(checksum_add(checksum_add(0, pseudo.view()), BytesView{packet}.subspan(20))), 0);
    Bytes v6 =
        build_udp_packet(*Endpoint::parse("[2001:db8::1]:1"), *Endpoint::parse("[2001:db8::2]:2"), as_bytes("abcd"));
    EXPECT_EQ(hex_encode(BytesView{v6}.first(8)), "60000000000c1140");
    EXPECT_EQ(v6.size(), 52u);
}

TEST(OwnEndpoints, LeavesOutWhatNobodyCanReach) {
    Link eth;
    eth.name = "eth0";
    eth.up = true;
    for (const char* text : {"192.168.1.5/24", "fe80::1/64", "100.64.0.9/32"})
        eth.addresses.push_back({*IpPrefix::parse(text)});
    Link own = eth, down = eth;
    own.name = "tailrace0";
    down.up = false;
    EXPECT_THAT(own_endpoints({own, down, eth}, "tailrace0", 41641),
                ElementsAre(*Endpoint::parse("192.168.1.5:41641")));
}

} // namespace
} // namespace tailrace
