#include "agent/path/port_mapping.hpp"
#include "base/text.hpp"
#include "tests/unit/agent/moments.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Effort = PortMapping::Effort;
using Protocol = PortMapping::Protocol;

const IpAddress kGateway = *IpAddress::parse("192.168.1.1");
const IpAddress kSelf = *IpAddress::parse("192.168.1.10");
const Endpoint kService{kGateway, 5351};
const Endpoint kWeb{kGateway, 1900};
constexpr pcp::Nonce kNonce{std::byte{7}};
constexpr std::uint16_t kPort = 41641;
constexpr Duration kHalf = 251ms + 3600s; // of the lease that get_pmp() and get_pcp() get

// -- what a gateway says

Bytes pmp_address(std::uint32_t epoch, const char* address = "203.0.113.9", std::uint16_t result = 0) {
    Writer out;
    out.be16(0x0080);
    out.be16(result);
    out.be32(epoch);
    out.bytes(IpAddress::parse(address)->bytes());
    return out.take();
}
Bytes pmp_map(std::uint32_t epoch, std::uint16_t external, std::uint32_t lifetime = 7200, std::uint16_t result = 0,
              std::uint16_t internal = kPort) {
    Writer out;
    out.be16(0x0081);
    out.be16(result);
    out.be32(epoch);
    out.be16(internal);
    out.be16(external);
    out.be32(lifetime);
    return out.take();
}
Bytes pcp_announce(std::uint32_t epoch, std::uint8_t result = 0) {
    Writer out;
    out.be16(0x0280);
    out.be16(result);
    out.be32(0);
    out.be32(epoch);
    for (int i = 0; i < 3; ++i) out.be32(0);
    return out.take();
}
Bytes pcp_map(std::uint32_t epoch, std::uint16_t external, pcp::Nonce nonce = kNonce, std::uint8_t result = 0,
              std::uint16_t internal = kPort, std::uint8_t protocol = 17) {
    Writer out;
    out.be16(0x0281);
    out.be16(result);
    out.be32(7200);
    out.be32(epoch);
    for (int i = 0; i < 3; ++i) out.be32(0);
    out.bytes(nonce);
    out.be32(std::uint32_t{protocol} << 24);
    out.be16(internal);
    out.be16(external);
    out.bytes(*hex_decode("00000000000000000000ffffcb007109"));
    return out.take();
}
Bytes ssdp_answer(std::string_view boot = "1", std::string_view location = "http://192.168.1.1:5000/root.xml") {
    return to_bytes(as_bytes(fmt::format("HTTP/1.1 200 OK\r\nUSN: uuid:1::urn:x:device:InternetGatewayDevice:1\r\n"
                                         "LOCATION: {}\r\nBOOTID.UPNP.ORG: {}\r\n\r\n",
                                         location, boot)));
}
UpnpDialogue::Answer soap(const std::string& values) {
    return {200, "<s:Envelope><s:Body><u:Response>" + values + "</u:Response></s:Body></s:Envelope>"};
}

class PortMappingTest : public testing::Test {
protected:
    PortMappingTest() : mapping_(kPort, kNonce, [] { return std::uint16_t{30000}; }) {
        mapping_.set_settings(at(0s), {true, true});
        mapping_.set_network(at(0s), PortMapping::Network{kGateway, kSelf});
    }

    /// What was asked since the last look: "pmp address", "pmp map 0", "pcp announce", "pcp map 0", "ssdp", "GET", a
    /// SOAP action.
    std::vector<std::string> asked() {
        std::vector<std::string> out;
        for (PortMapping::Action& action : mapping_.take_actions()) {
            if (auto* http = std::get_if<PortMapping::AskHttp>(&action)) {
                EXPECT_EQ(http->host, kGateway);
                number_ = http->number;
                auto mark = http->request.soap_action.find('#');
                out.push_back(mark == std::string::npos ? "GET" : http->request.soap_action.substr(mark + 1));
                if (out.back().ends_with('"')) out.back().pop_back();
                continue;
            }
            auto& send = std::get<PortMapping::SendUdp>(action);
            if (send.to.port == 1900) {
                out.emplace_back(send.to.address == kGateway ? "ssdp" : "ssdp to the group");
                continue;
            }
            EXPECT_EQ(send.to, kService);
            Reader in{send.datagram};
            std::uint16_t head = in.be16();
            if (head == 0x0000) out.emplace_back("pmp address");
            if (head == 0x0200) out.emplace_back("pcp announce");
            if (head == 0x0001) {
                (void)in.be16();
                EXPECT_EQ(in.be16(), kPort);
                std::uint16_t wished = in.be16();
                out.push_back(in.be32() == 0 ? "pmp delete" : fmt::format("pmp map {}", wished));
            }
            if (head == 0x0201) {
                (void)in.be16();
                std::uint32_t lifetime = in.be32();
                (void)in.bytes(16);
                EXPECT_EQ(in.array<12>(), kNonce);
                (void)in.bytes(6);
                out.push_back(lifetime == 0 ? "pcp delete" : fmt::format("pcp map {}", in.be16()));
            }
        }
        return out;
    }
    void hear(Duration when, const Bytes& datagram, const Endpoint& from = kService) {
        mapping_.on_datagram(at(when), from, datagram);
    }
    void web(Duration when, const Result<UpnpDialogue::Answer>& answer) { mapping_.on_http(at(when), number_, answer); }
    std::string external(Duration when) {
        auto mapped = mapping_.external(at(when));
        return mapped ? mapped->text() : "none";
    }
    /// Lets time pass up to `until`, timer by timer.
    void pass(Duration until) {
        for (int i = 0; i < 1000; ++i) {
            auto next = mapping_.next_timer();
            if (!next || *next > at(until)) return;
            mapping_.on_timer(*next);
        }
        ADD_FAILURE() << "a thousand timers";
    }
    void get_pmp(std::uint32_t epoch = 100, std::uint32_t lifetime = 7200, Duration from = 0s) {
        mapping_.run(at(from), Effort::Fresh);
        hear(from + 1ms, pmp_address(epoch));
        pass(from + 250ms);
        hear(from + 251ms, pmp_map(epoch, 5000, lifetime));
        ASSERT_EQ(external(from + 251ms), "203.0.113.9:5000");
        (void)asked();
    }
    void get_pcp(Duration from = 0s) {
        mapping_.run(at(from), Effort::Fresh);
        hear(from + 1ms, pcp_announce(100));
        pass(from + 250ms);
        hear(from + 251ms, pcp_map(100, 5000));
        ASSERT_EQ(external(from + 251ms), "203.0.113.9:5000");
        (void)asked();
    }
    void finish_upnp(Duration when) {
        web(when, UpnpDialogue::Answer{200, "<root><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1"
                                            "</serviceType><controlURL>/ctl</controlURL></service></root>"});
        (void)asked();
        web(when, soap(""));
        (void)asked();
        web(when, soap("<NewExternalIPAddress>203.0.113.9</NewExternalIPAddress>"));
        (void)asked();
    }
    void get_upnp(Duration from = 0s) {
        mapping_.run(at(from), Effort::Fresh);
        hear(from + 1ms, ssdp_answer(), kWeb);
        pass(from + 250ms);
        (void)asked();
        finish_upnp(from + 260ms);
        ASSERT_EQ(external(from + 260ms), "203.0.113.9:41641");
    }

    PortMapping mapping_;
    std::uint64_t number_ = 0;
};

TEST_F(PortMappingTest, AsksForEverythingAtOnceAndThenByWhatAnswered) {
    mapping_.run(at(0s), Effort::Usual);
    EXPECT_THAT(asked(), ElementsAre("pmp address", "pcp announce", "ssdp", "ssdp to the group", "ssdp to the group"));
    hear(1ms, pmp_address(100));
    hear(1ms, pcp_announce(100));
    EXPECT_THAT(asked(), IsEmpty()) << "until the window is over";
    pass(250ms);
    EXPECT_EQ(mapping_.services(), (PortMapping::Services{false, true, true}));
    EXPECT_THAT(asked(), ElementsAre("pmp map 0")) << "the address is known";
    hear(260ms, pmp_map(100, 5000));
    EXPECT_EQ(external(260ms), "203.0.113.9:5000");
    EXPECT_EQ(mapping_.protocol(), Protocol::NatPmp);
    EXPECT_FALSE(mapping_.is_busy());
}

TEST_F(PortMappingTest, UsesPcpWhereOnlyThatAnswers) {
    mapping_.run(at(0s), Effort::Usual);
    hear(1ms, pcp_announce(100));
    pass(250ms);
    EXPECT_THAT(asked(), testing::Contains("pcp map 0"));
    hear(260ms, pcp_map(100, 5000));
    EXPECT_EQ(external(260ms), "203.0.113.9:5000");
    EXPECT_EQ(mapping_.services(), (PortMapping::Services{false, false, true}));
}

TEST_F(PortMappingTest, UsesUpnpOnSilence) {
    mapping_.run(at(0s), Effort::Usual);
    hear(1ms, ssdp_answer(), {kGateway, 40000}); // from any port
    pass(250ms);
    EXPECT_EQ(asked().back(), "GET");
    finish_upnp(300ms);
    EXPECT_EQ(external(300ms), "203.0.113.9:41641");
    EXPECT_EQ(mapping_.protocol(), Protocol::Upnp);
}

TEST_F(PortMappingTest, TakesAnAnswerToItsSearchThatComesLate) {
    mapping_.run(at(0s), Effort::Usual);
    pass(1s);
    EXPECT_EQ(mapping_.services().upnp, false);
    (void)asked();
    hear(2s, ssdp_answer(), kWeb);
    EXPECT_THAT(asked(), ElementsAre("GET"));
    finish_upnp(2s);
    EXPECT_EQ(external(2s), "203.0.113.9:41641");
    EXPECT_EQ(mapping_.services().upnp, true);
}

TEST_F(PortMappingTest, ListensToNobodyButTheGateway) {
    const Endpoint mallory{*IpAddress::parse("192.168.1.66"), 5351};
    mapping_.run(at(0s), Effort::Usual);
    hear(1ms, pmp_address(100), mallory);
    hear(1ms, pcp_announce(100), mallory);
    hear(1ms, ssdp_answer(), {mallory.address, 1900});
    hear(1ms, pmp_address(100), kWeb); // the gateway's, but not of the service
    pass(250ms);
    EXPECT_EQ(mapping_.services(), (PortMapping::Services{false, false, false}));
    EXPECT_EQ(external(250ms), "none");

    get_pmp(100, 7200, 1min);
    hear(61s, pmp_address(0, "198.51.100.1"), mallory);
    EXPECT_EQ(external(61s), "203.0.113.9:5000");
    EXPECT_THAT(asked(), IsEmpty());
}

TEST_F(PortMappingTest, BelievesNoAnswerThatItDidNotAskFor) {
    hear(0s, pmp_map(100, 5000));
    hear(0s, pcp_map(100, 5000));
    hear(0s, ssdp_answer(), kWeb);
    EXPECT_EQ(external(0s), "none");
    EXPECT_THAT(asked(), IsEmpty());

    mapping_.run(at(0s), Effort::Usual);
    hear(1ms, pcp_announce(100));
    pass(250ms);
    (void)asked();
    hear(251ms, pcp_map(100, 5000, pcp::Nonce{std::byte{8}}));
    hear(251ms, pcp_map(100, 5000, kNonce, 0, kPort + 1));
    hear(251ms, pcp_map(100, 5000, kNonce, 0, kPort, 6));
    hear(251ms, pmp_map(100, 5000));
    EXPECT_EQ(external(251ms), "none") << "another nonce, port, protocol; another service";
    EXPECT_TRUE(mapping_.is_busy()) << "the right answer may still come";
    hear(252ms, pcp_map(100, 5000));
    EXPECT_EQ(external(252ms), "203.0.113.9:5000");
    mapping_.on_http(at(253ms), 1, soap("")); // nobody asked
    EXPECT_EQ(external(253ms), "203.0.113.9:5000");
}

TEST_F(PortMappingTest, EndsWhereTheGatewayRefuses) {
    mapping_.run(at(0s), Effort::Usual);
    hear(1ms, pmp_address(100));
    hear(1ms, ssdp_answer(), kWeb);
    pass(250ms);
    (void)asked();
    hear(260ms, pmp_map(100, 0, 0, 2));
    EXPECT_FALSE(mapping_.is_busy());
    EXPECT_THAT(asked(), IsEmpty()) << "a refusal is an answer: no UPnP";
    EXPECT_THAT(mapping_.trouble(), HasSubstr("not authorised"));
}

TEST_F(PortMappingTest, TreatsAPcpServiceThatIsOfNoUseAsNone) {
    mapping_.run(at(0s), Effort::Usual);
    hear(1ms, pcp_announce(100, pcp::kAddressMismatch));
    pass(250ms);
    EXPECT_EQ(mapping_.services().pcp, false);
}

TEST_F(PortMappingTest, BelievesNoMappingOfNoUse) {
    for (const Bytes& answer : {pmp_map(100, 0), pmp_map(100, 5000, 0)}) {
        mapping_.run(at(0s), Effort::Fresh);
        hear(1ms, pmp_address(100));
        pass(250ms);
        hear(260ms, answer);
        EXPECT_EQ(external(260ms), "none");
        EXPECT_FALSE(mapping_.is_busy());
    }
    for (const char* address : {"0.0.0.0", "127.0.0.1", "224.0.0.1"}) {
        mapping_.run(at(0s), Effort::Fresh);
        hear(1ms, pmp_address(100, address));
        pass(250ms);
        hear(260ms, pmp_map(100, 5000));
        EXPECT_EQ(external(260ms), "none") << address;
    }
}

TEST_F(PortMappingTest, AsksLessAndLessWhereNobodyAnswers) {
    std::vector<Duration> searches;
    for (Duration now = 0s; now < 2h; now += 20s) { // as the measurements come
        mapping_.run(at(now), Effort::Usual);
        if (!asked().empty()) searches.push_back(now);
        pass(now + 10s);
    }
    std::vector<Duration> gaps;
    for (std::size_t i = 1; i < searches.size(); ++i) gaps.push_back(searches[i] - searches[i - 1]);
    EXPECT_THAT(std::vector(gaps.begin(), gaps.begin() + 6), ElementsAre(80s, 140s, 260s, 500s, 620s, 620s));
    EXPECT_LT(searches.size(), 18u);
    mapping_.run(at(2h), Effort::Fresh);
    EXPECT_EQ(asked().size(), 5u) << "somebody wants to know now";
}

TEST_F(PortMappingTest, RenewsAtHalfLifeForTheSamePort) {
    get_pmp();
    pass(kHalf - 1ms);
    EXPECT_THAT(asked(), IsEmpty());
    pass(kHalf);
    EXPECT_THAT(asked(), ElementsAre("pmp address", "pmp map 5000"));
    Duration answered = kHalf + 5ms;
    hear(answered, pmp_map(3700, 5000));
    EXPECT_TRUE(mapping_.is_busy()) << "half of the answer";
    hear(answered, pmp_address(3700, "198.51.100.7"));
    EXPECT_EQ(external(answered), "198.51.100.7:5000");
    pass(answered + 3599s);
    EXPECT_THAT(asked(), IsEmpty());
    EXPECT_EQ(external(answered + 7199s), "198.51.100.7:5000");
}

TEST_F(PortMappingTest, RenewsByPcpAndUpnpToo) {
    get_pcp();
    pass(kHalf);
    EXPECT_THAT(asked(), ElementsAre("pcp map 5000"));

    mapping_.set_network(at(2h), std::nullopt);
    mapping_.set_network(at(2h), PortMapping::Network{kGateway, kSelf});
    get_upnp(2h);
    pass(2h + kHalf + 9ms);
    EXPECT_THAT(asked(), ElementsAre("GET"));
    finish_upnp(2h + kHalf + 10ms);
    EXPECT_EQ(external(4h + 1s), "203.0.113.9:41641");
}

TEST_F(PortMappingTest, AMappingThatCannotBeRenewedIsKeptUntilItsEnd) {
    get_pmp();
    int attempts = 0;
    for (Duration now = 300ms; now < 7200s; now += 5s) {
        pass(now);
        auto questions = asked();
        attempts += static_cast<int>(std::ranges::count(questions, "pmp map 5000"));
        ASSERT_EQ(external(now), "203.0.113.9:5000") << now.count();
    }
    EXPECT_GE(attempts, 5);
    EXPECT_LE(attempts, 15);
    pass(7201s);
    EXPECT_EQ(external(7201s), "none");
    (void)asked();
    mapping_.run(at(7202s), Effort::Usual);
    EXPECT_EQ(asked().size(), 5u) << "all over again";
}

TEST_F(PortMappingTest, AnotherServiceHelpsWhereTheOldOneIsGone) {
    get_pmp();
    pass(kHalf + 250ms);
    EXPECT_THAT(asked(), testing::SizeIs(2 + 5)) << "looks around after the silence";
    hear(kHalf + 300ms, ssdp_answer(), kWeb);
    pass(kHalf + 500ms);
    EXPECT_THAT(asked(), ElementsAre("GET"));
    finish_upnp(3602s);
    EXPECT_EQ(mapping_.protocol(), Protocol::Upnp);
    EXPECT_EQ(external(3602s), "203.0.113.9:5000");
}

TEST_F(PortMappingTest, AGatewayThatStartedOverIsAskedAgain) {
    get_pmp(100);
    hear(60s, pmp_address(160));
    hear(120s, pmp_address(211)); // a clock may be an eighth slow, and two seconds more
    EXPECT_THAT(asked(), IsEmpty());
    hear(130s, pmp_address(1));
    EXPECT_THAT(asked(), ElementsAre("pmp map 5000"));
    EXPECT_EQ(external(130s), "203.0.113.9:5000") << "no flapping while we ask";
    hear(131s, pmp_map(2, 5000));
    EXPECT_EQ(external(131s), "203.0.113.9:5000");
    hear(131s + 500ms, pmp_address(2));
    EXPECT_THAT(asked(), IsEmpty()) << "its new clock is known";
}

TEST_F(PortMappingTest, WhatTheOneProtocolAnnouncesHoldsForTheOther) {
    get_pmp(100);
    hear(60s, pcp_announce(0));
    EXPECT_THAT(asked(), ElementsAre("pmp map 5000"));
}

TEST_F(PortMappingTest, AMappingThatIsLostAndNotGivenAgainEnds) {
    get_pmp(100);
    hear(60s, pmp_address(0));
    (void)asked();
    hear(61s, pmp_map(1, 0, 0, 4));
    EXPECT_EQ(external(61s), "none");
    EXPECT_THAT(mapping_.trouble(), HasSubstr("out of resources"));
}

TEST_F(PortMappingTest, FalseAlarmsCostOneQuestionASecond) {
    get_pmp(1000);
    int questions = 0;
    for (int i = 0; i < 100; ++i) { // within two seconds, each as if the gateway had started over
        Duration now = 60s + i * 20ms;
        hear(now, pmp_address(1000));
        hear(now, pmp_address(0));
        pass(now);
        questions += static_cast<int>(asked().size());
        if (mapping_.is_busy()) hear(now, pmp_map(1000, 5000));
    }
    EXPECT_GE(questions, 1);
    EXPECT_LE(questions, 3);
}

TEST_F(PortMappingTest, AUpnpGatewayWithAnotherBootIsAskedAgain) {
    get_upnp();
    mapping_.run(at(60s), Effort::Fresh);
    (void)asked();
    hear(60s, ssdp_answer("1"), kWeb);
    pass(61s);
    EXPECT_THAT(asked(), IsEmpty()) << "the same";
    mapping_.run(at(90s), Effort::Fresh);
    (void)asked();
    hear(90s, ssdp_answer("2"), kWeb);
    pass(91s);
    EXPECT_THAT(asked(), ElementsAre("GET"));
}

TEST_F(PortMappingTest, AServiceIsBelievedForTenMinutes) {
    get_pmp();
    mapping_.run(at(5min), Effort::Usual);
    EXPECT_THAT(asked(), IsEmpty());
    mapping_.run(at(11min), Effort::Usual);
    EXPECT_THAT(asked(), testing::Contains("pmp address"));
}

TEST_F(PortMappingTest, AnotherGatewayMakesEverythingNew) {
    get_pmp();
    mapping_.set_network(at(60s), PortMapping::Network{kGateway, *IpAddress::parse("192.168.1.11")});
    EXPECT_EQ(external(60s), "none");
    EXPECT_EQ(mapping_.services(), PortMapping::Services{});
    EXPECT_THAT(asked(), IsEmpty()) << "the old mapping ends by itself";
    hear(60s, pmp_map(160, 5000));
    EXPECT_EQ(external(60s), "none");
    mapping_.run(at(60s), Effort::Usual);
    EXPECT_EQ(asked().size(), 5u);
    mapping_.set_network(at(61s), std::nullopt);
    EXPECT_FALSE(mapping_.is_busy());
    mapping_.run(at(62s), Effort::Fresh);
    EXPECT_THAT(asked(), IsEmpty());
    EXPECT_FALSE(mapping_.next_timer());
}

TEST_F(PortMappingTest, GivesTheMappingBackWhenSwitchedOff) {
    get_pmp();
    mapping_.set_settings(at(60s), {false, true});
    EXPECT_THAT(asked(), ElementsAre("pmp delete"));
    EXPECT_EQ(external(60s), "none");
    mapping_.run(at(61s), Effort::Fresh);
    EXPECT_THAT(asked(), IsEmpty());
    mapping_.set_settings(at(70s), {true, true});
    get_pcp(70s);
    mapping_.set_settings(at(80s), {false, true});
    EXPECT_THAT(asked(), ElementsAre("pcp delete"));
    mapping_.set_settings(at(90s), {true, true});
    get_upnp(90s);
    mapping_.set_settings(at(100s), {false, true});
    EXPECT_THAT(asked(), ElementsAre("DeletePortMapping"));
    EXPECT_EQ(number_, 0u) << "nobody waits for the answer";
}

TEST_F(PortMappingTest, WhatIsOnItsWayWhenSwitchedOffIsGivenBackToo) {
    mapping_.run(at(0s), Effort::Usual);
    hear(1ms, pcp_announce(100));
    pass(250ms);
    (void)asked();
    mapping_.set_settings(at(251ms), {false, true});
    EXPECT_THAT(asked(), ElementsAre("pcp delete"));
    hear(252ms, pcp_map(100, 5000));
    EXPECT_EQ(external(252ms), "none");
}

TEST_F(PortMappingTest, WhatUpnpHasBegunIsGivenBackToo) {
    mapping_.run(at(0s), Effort::Usual);
    hear(1ms, ssdp_answer(), kWeb);
    pass(250ms);
    (void)asked();
    web(260ms, UpnpDialogue::Answer{200, "<root><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1"
                                         "</serviceType><controlURL>/ctl</controlURL></service></root>"});
    EXPECT_THAT(asked(), ElementsAre("AddPortMapping"));
    mapping_.set_settings(at(261ms), {false, true});
    EXPECT_THAT(asked(), ElementsAre("DeletePortMapping"));
}

TEST_F(PortMappingTest, UpnpAloneCanBeSwitchedOff) {
    get_upnp();
    mapping_.set_settings(at(60s), {true, false});
    EXPECT_THAT(asked(), ElementsAre("DeletePortMapping"));
    mapping_.run(at(61s), Effort::Fresh);
    EXPECT_THAT(asked(), ElementsAre("pmp address", "pcp announce"));
    hear(61s, ssdp_answer(), kWeb);
    pass(62s);
    EXPECT_EQ(mapping_.services(), (PortMapping::Services{false, false, false}));
}

TEST_F(PortMappingTest, AUpnpGatewayThatHangsEndsTheAttempt) {
    mapping_.run(at(0s), Effort::Usual);
    hear(1ms, ssdp_answer(), kWeb);
    pass(250ms);
    pass(4s);
    EXPECT_TRUE(mapping_.is_busy());
    pass(6s);
    EXPECT_FALSE(mapping_.is_busy());
    (void)asked();
    web(7s, UpnpDialogue::Answer{200, "<root/>"});
    EXPECT_THAT(asked(), IsEmpty()) << "too late";
}

TEST_F(PortMappingTest, AShortLeaseIsNotRenewedAllTheTime) {
    get_pmp(100, 1);
    int questions = 0;
    for (Duration now = 300ms; now < 60s; now += 100ms) {
        pass(now);
        questions += static_cast<int>(asked().size());
    }
    EXPECT_EQ(questions, 0) << "its end comes before the earliest renewal";
    EXPECT_EQ(external(3s), "none");
}

TEST_F(PortMappingTest, KeepsABoundedNumberOfGateways) {
    mapping_.run(at(0s), Effort::Usual);
    for (int i = 0; i < 1000; ++i) hear(1ms, ssdp_answer("1", fmt::format("http://192.168.1.1:5000/{}", i)), kWeb);
    pass(250ms);
    std::size_t questions = 0;
    for (auto more = asked(); !more.empty(); more = asked()) {
        ++questions;
        web(300ms, UpnpDialogue::Answer{404, ""});
    }
    EXPECT_EQ(questions, PortMapping::kMaxGateways);
    EXPECT_FALSE(mapping_.is_busy());
}

TEST_F(PortMappingTest, TakesNoHarmFromGarbage) {
    mapping_.run(at(0s), Effort::Usual);
    for (const char* bad : {"", "00", "02", "ff", "0080", "028000000000", "0281000000000e10"}) {
        hear(1ms, *hex_decode(bad));
        hear(1ms, *hex_decode(bad), kWeb);
    }
    hear(1ms, Bytes(60000, std::byte{0}));
    hear(1ms, Bytes(60000, std::byte{2}));
    hear(1ms, Bytes(60000, std::byte{'H'}), kWeb);
    pass(1s);
    EXPECT_EQ(external(1s), "none");
}

} // namespace
} // namespace tailrace
