#include "agent/cli/commands.hpp"
#include "agent/path/captive_portal.hpp"
#include "agent/path/echo.hpp"
#include "agent/path/net_report.hpp"

#include <gmock/gmock.h>

using namespace tailrace;
using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

namespace {

constexpr std::string_view kMap = R"({"Regions":{
    "1":{"RegionID":1,"RegionCode":"a","RegionName":"Aden","Nodes":[
        {"Name":"1a","RegionID":1,"HostName":"a","IPv4":"192.0.2.1","CanPort80":true},
        {"Name":"1b","RegionID":1,"HostName":"b","IPv4":"192.0.2.2"}]},
    "2":{"RegionID":2,"RegionCode":"b","RegionName":"Bern","Nodes":[
        {"Name":"2a","RegionID":2,"HostName":"c","IPv4":"192.0.2.3","CanPort80":true},
        {"Name":"2b","RegionID":2,"HostName":"d","IPv4":"none","CanPort80":true}]},
    "3":{"RegionID":3,"RegionCode":"c","RegionName":"Caen","Avoid":true,"Nodes":[
        {"Name":"3a","RegionID":3,"HostName":"e","IPv4":"192.0.2.4","CanPort80":true}]}}})";

wire::DerpMap map() {
    return *wire::parse_derp_map(kMap);
}

TEST(CaptivePortalTest, AsksTheHomeRegionFirstAndOnlyWhoAnswersOnPort80) {
    const PortalQuestion first{"192.0.2.1", PortalQuestion::To::Relay}, third{"192.0.2.3", PortalQuestion::To::Relay};
    EXPECT_THAT(captive_portal_questions(map(), 2, "control.example.com"), ElementsAre(third, first));
    EXPECT_THAT(captive_portal_questions(map(), 0, "control.example.com"), ElementsAre(first, third));
}

TEST(CaptivePortalTest, AsksControlWhereNoRelayAnswersOnPort80) {
    auto none = map();
    for (auto& [number, region] : *none.regions)
        for (auto& node : region->nodes) node.can_port_80 = false;
    EXPECT_THAT(captive_portal_questions(none, 2, "control.example.com"),
                ElementsAre(PortalQuestion{"control.example.com", PortalQuestion::To::Control}));
    EXPECT_THAT(captive_portal_questions({}, 1, ""), IsEmpty());
}

TEST(CaptivePortalTest, OfControlOnlyWhatAPortalAloneSaysCounts) {
    const PortalQuestion control{"control.example.com", PortalQuestion::To::Control};
    auto answer = [](int status, std::string_view location) {
        HttpResponse response;
        response.status = status;
        if (!location.empty()) response.headers.add("Location", std::string{location});
        return response;
    };
    EXPECT_EQ(is_captive_portal(answer(204, ""), control), false);
    EXPECT_EQ(is_captive_portal(answer(404, ""), control), std::nullopt) << "a server that does not know the page";
    EXPECT_EQ(is_captive_portal(answer(301, "https://control.example.com/generate_204"), control), std::nullopt);
    EXPECT_EQ(is_captive_portal(answer(302, "/elsewhere"), control), std::nullopt);
    EXPECT_EQ(is_captive_portal(answer(302, "http://hotel.example.net/login"), control), true);
    EXPECT_EQ(is_captive_portal(answer(511, ""), control), true);
}

TEST(CaptivePortalTest, IsAnythingButTheAnswerToOurChallenge) {
    HttpResponse response;
    response.status = 204;
    const PortalQuestion first{"192.0.2.1", PortalQuestion::To::Relay}, third{"192.0.2.3", PortalQuestion::To::Relay};
    EXPECT_EQ(is_captive_portal(response, first), true) << "somebody who knows the page, but not the challenge";
    response.headers.add("X-Tailscale-Response", "response ts_192.0.2.1");
    EXPECT_EQ(is_captive_portal(response, first), false);
    EXPECT_EQ(is_captive_portal(response, third), true);
    response.status = 302;
    EXPECT_EQ(is_captive_portal(response, first), true);
}

TEST(EchoTest, TakesOnlyTheAnswerToItsRequest) {
    Bytes packet(20 + 16);
    packet[0] = std::byte{0x45};
    packet[24] = std::byte{0x77};
    packet[25] = std::byte{0x88};
    for (int i = 0; i < 8; ++i) packet[static_cast<std::size_t>(28 + i)] = static_cast<std::byte>(0x11 * (i + 1));
    constexpr std::uint64_t kNumber = 0x1122334455667788;
    EXPECT_TRUE(is_echo_reply(packet, kNumber));
    EXPECT_FALSE(is_echo_reply(packet, kNumber + 1));
    for (std::size_t size = 0; size < packet.size(); ++size)
        EXPECT_FALSE(is_echo_reply(BytesView{packet}.first(size), kNumber)) << size;
    packet[20] = std::byte{8}; // a request
    EXPECT_FALSE(is_echo_reply(packet, kNumber));
}

TEST(EchoTest, OfIpv6ThereIsNoHeaderBeforeTheAnswer) {
    Bytes message(16);
    message[0] = std::byte{129};
    message[4] = std::byte{0x77};
    message[5] = std::byte{0x88};
    for (int i = 0; i < 8; ++i) message[static_cast<std::size_t>(8 + i)] = static_cast<std::byte>(0x11 * (i + 1));
    constexpr std::uint64_t kNumber = 0x1122334455667788;
    EXPECT_TRUE(is_echo_reply6(message, kNumber));
    EXPECT_FALSE(is_echo_reply6(message, kNumber + 1));
    EXPECT_FALSE(is_echo_reply(message, kNumber));
    for (std::size_t size = 0; size < message.size(); ++size)
        EXPECT_FALSE(is_echo_reply6(BytesView{message}.first(size), kNumber)) << size;
    message[0] = std::byte{128}; // a request
    EXPECT_FALSE(is_echo_reply6(message, kNumber));
}

TEST(NetReportTest, IsWrittenAsStockClientsWriteIt) {
    NetReport report;
    report.ipv4 = report.icmp_v4 = true;
    report.preferred_derp = 2;
    report.region_latency = {{1, 30ms}, {2, 12'345us}};
    report.captive_portal = false;
    std::string text = write_net_report(report, WallTime::from_unix(0, 5));
    EXPECT_EQ(text,
              R"({"Now":"1970-01-01T00:00:00.000000005Z","UDP":false,"IPv6":false,"IPv4":true,"IPv6CanSend":false,)"
              R"("IPv4CanSend":false,"OSHasIPv6":false,"ICMPv4":true,"MappingVariesByDestIP":null,"UPnP":null,)"
              R"("PMP":null,"PCP":null,"PreferredDERP":2,"RegionLatency":{"1":30000000,"2":12345000},)"
              R"("RegionV4Latency":{},"RegionV6Latency":{},"GlobalV4Counters":{},"GlobalV6Counters":{},)"
              R"("GlobalV4":"","GlobalV6":"","CaptivePortal":false})");
    report.region_v4_latency = {{2, 12'345us}};
    auto families =
        cli::netcheck_text(write_net_report(report, WallTime::from_unix(0, 5)), kMap, cli::NetcheckDetail::Families);
    ASSERT_TRUE(families);
    EXPECT_THAT(*families, testing::HasSubstr(") IPv4 12.3ms\n"));
    auto shown = cli::netcheck_text(text, kMap);
    ASSERT_TRUE(shown);
    EXPECT_EQ(*shown, "\nReport:\n"
                      "\t* Time: 1970-01-01 00:00:00.000000005Z\n"
                      "\t* UDP: false\n"
                      "\t* IPv4: (no addr found)\n"
                      "\t* IPv6: no, unavailable in OS\n"
                      "\t* MappingVariesByDestIP: \n"
                      "\t* PortMapping: not checked\n"
                      "\t* CaptivePortal: false\n"
                      "\t* Nearest DERP: Bern\n"
                      "\t* DERP latency:\n"
                      "\t\t-   b: 12.3ms  (Bern)\n"
                      "\t\t-   a: 30.0ms  (Aden)\n"
                      "\t\t-   c:         (Caen)\n");
}

TEST(NetReportTest, ShowsWhatStunSaw) {
    NetReport report;
    report.udp = report.ipv4 = report.os_has_ipv6 = true;
    report.global_v4 = *Endpoint::parse("203.0.113.9:4000");
    report.seen_v4 = {{*report.global_v4, 2}};
    report.mapping_varies_by_destination = false;
    std::string text = write_net_report(report, WallTime::from_unix(0));
    EXPECT_THAT(text, HasSubstr(R"("GlobalV4Counters":{"203.0.113.9:4000":2})"));
    auto shown = cli::netcheck_text(text, kMap);
    ASSERT_TRUE(shown);
    EXPECT_THAT(*shown,
                HasSubstr("* IPv4: yes, 203.0.113.9:4000\n\t* IPv6: no, but OS has support\n"
                          "\t* MappingVariesByDestIP: false\n\t* PortMapping: not checked\n\t* Nearest DERP: unknown"));
    EXPECT_THAT(*shown, Not(HasSubstr("DERP latency")));
}

} // namespace
