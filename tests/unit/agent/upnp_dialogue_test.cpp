#include "agent/path/upnp_dialogue.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

const IpAddress kRouter = *IpAddress::parse("192.168.1.1");
const IpAddress kClient = *IpAddress::parse("192.168.1.10");

std::string service(std::string_view type, std::string_view url) {
    return fmt::format("<service><serviceType>{}</serviceType><controlURL>{}</controlURL></service>", type, url);
}
UpnpDialogue::Answer description(const std::string& services, const std::string& base = "") {
    std::string url_base = base.empty() ? "" : "<URLBase>" + base + "</URLBase>";
    return {200, "<root>" + url_base + "<device><serviceList>" + services + "</serviceList></device></root>"};
}
UpnpDialogue::Answer answer_with(const std::string& values) {
    return {200, "<s:Envelope><s:Body><u:Response>" + values + "</u:Response></s:Body></s:Envelope>"};
}
UpnpDialogue::Answer outside(const std::string& address) {
    return answer_with("<NewExternalIPAddress>" + address + "</NewExternalIPAddress>");
}
UpnpDialogue::Answer status(const std::string& text) {
    return answer_with("<NewConnectionStatus>" + text + "</NewConnectionStatus>");
}
UpnpDialogue::Answer fault(int code) {
    return {500, fmt::format("<s:Envelope><s:Body><s:Fault><detail><UPnPError><errorCode>{}</errorCode></UPnPError>"
                             "</detail></s:Fault></s:Body></s:Envelope>",
                             code)};
}
std::string external_port(const UpnpDialogue::Request& request) {
    return request.body.substr(request.body.find("<NewExternalPort>"), 30);
}

class UpnpDialogueTest : public testing::Test {
protected:
    void begin(std::vector<std::string> locations = {"http://192.168.1.1:5000/dev/root.xml"}) {
        UpnpDialogue::Wish wish{kRouter, kClient, 41641, 41641, 7200s};
        dialogue_.emplace(wish, std::move(locations), [this] { return next_port_++; });
    }
    void answer(const UpnpDialogue::Answer& one) { dialogue_->on_answer(one); }
    const UpnpDialogue::Request& question() { return *dialogue_->question(); }

    std::uint16_t next_port_ = 30000;
    std::optional<UpnpDialogue> dialogue_;
};

TEST_F(UpnpDialogueTest, GetsAMappingFromAnOldGateway) {
    begin();
    EXPECT_EQ(question(), (UpnpDialogue::Request{5000, "/dev/root.xml", "", ""}));
    answer(description(service(igd::kIp1, "/ctl")));
    EXPECT_EQ(question().target, "/ctl");
    EXPECT_THAT(question().soap_action, HasSubstr("WANIPConnection:1#AddPortMapping"));
    EXPECT_THAT(question().body, HasSubstr("<NewInternalClient>192.168.1.10</NewInternalClient>"));
    answer(answer_with(""));
    EXPECT_THAT(question().soap_action, HasSubstr("#GetExternalIPAddress"));
    answer(outside("203.0.113.9"));
    EXPECT_FALSE(dialogue_->question());
    ASSERT_TRUE(dialogue_->mapping());
    EXPECT_EQ(dialogue_->mapping()->external.text(), "203.0.113.9:41641");
    auto deletion = UpnpDialogue::deletion(*dialogue_->mapping());
    EXPECT_EQ(deletion.port, 5000);
    EXPECT_EQ(deletion.target, "/ctl");
    EXPECT_THAT(deletion.soap_action, HasSubstr("#DeletePortMapping"));
    EXPECT_THAT(deletion.body, HasSubstr("<NewExternalPort>41641</NewExternalPort>"));
}

TEST_F(UpnpDialogueTest, TakesThePortThatANewGatewayChooses) {
    begin();
    answer(description(service(igd::kIp2, "/ctl")));
    EXPECT_THAT(question().soap_action, HasSubstr("#AddAnyPortMapping"));
    answer(answer_with("<NewReservedPort>5001</NewReservedPort>"));
    answer(outside("203.0.113.9"));
    EXPECT_EQ(dialogue_->mapping()->external.port, 5001);
}

TEST_F(UpnpDialogueTest, UnderstandsEveryKindOfUrlOfTheGateway) {
    struct Case {
        std::string base, url;
        std::uint16_t port;
        std::string target;
    };
    for (const Case& one : {Case{"", "/ctl", 5000, "/ctl"}, Case{"", "ctl", 5000, "/dev/ctl"},
                            Case{"", "http://192.168.1.1:81/ctl?a=b", 81, "/ctl?a=b"},
                            Case{"http://192.168.1.1:82/base/", "ctl", 82, "/base/ctl"}}) {
        begin();
        answer(description(service(igd::kIp1, one.url), one.base));
        ASSERT_TRUE(dialogue_->question()) << one.url;
        EXPECT_EQ(question().port, one.port) << one.url;
        EXPECT_EQ(question().target, one.target) << one.url;
    }
}

TEST_F(UpnpDialogueTest, GoesNowhereButToTheGateway) {
    for (const char* location :
         {"http://192.168.1.2:5000/", "http://example.com/", "https://192.168.1.1/", "http://192.168.1.1@10.0.0.1/",
          "file:///etc/passwd", "http://[::1]/", "/relative", "//10.0.0.1/", "http://192.168.1.1:5000/a b",
          "http://192.168.1.1:5000/a\r\nX: y", "http://192.168.1.1:0/", ""}) {
        begin({location});
        EXPECT_FALSE(dialogue_->question()) << location;
        EXPECT_FALSE(dialogue_->trouble().empty());
    }
    for (const char* url : {"http://10.0.0.1/ctl", "//10.0.0.1/ctl", "https://192.168.1.1/ctl", "/a&#13;&#10;X: y"}) {
        begin();
        answer(description(service(igd::kIp1, url)));
        EXPECT_FALSE(dialogue_->question()) << url;
        begin();
        answer(description(service(igd::kIp1, "/ctl"), url));
        if (std::string_view{url} != "/a&#13;&#10;X: y") EXPECT_FALSE(dialogue_->question()) << "as a base: " << url;
    }
    begin();
    answer(description(service(igd::kIp2, "http://10.0.0.1/ctl") + service(igd::kIp1, "/ctl")));
    EXPECT_EQ(question().target, "/ctl") << "the one that is the gateway's";
}

TEST_F(UpnpDialogueTest, FollowsNoRedirect) {
    begin({"http://192.168.1.1:5000/a", "http://192.168.1.1:5000/b"});
    answer({302, ""});
    EXPECT_EQ(question().target, "/b");
    answer({301, ""});
    EXPECT_FALSE(dialogue_->question());
    EXPECT_THAT(dialogue_->trouble(), HasSubstr("HTTP status 301"));
}

TEST_F(UpnpDialogueTest, PrefersTheServiceThatIsConnectedToTheWorld) {
    auto services = service(igd::kIp1, "/down") + service(igd::kIp1, "/private") + service(igd::kPpp1, "/public");
    begin();
    answer(description(services));
    EXPECT_THAT(question().soap_action, HasSubstr("#GetStatusInfo"));
    answer(status("Disconnected"));
    EXPECT_EQ(question().target, "/private");
    answer(status("Connected"));
    answer(outside("10.0.0.5"));
    answer(status("Up"));
    answer(outside("203.0.113.9"));
    EXPECT_EQ(question().target, "/public");
    EXPECT_THAT(question().soap_action, HasSubstr("#AddPortMapping"));

    begin();
    answer(description(services));
    answer(fault(401));
    answer(status("Connected"));
    answer(outside("10.0.0.5"));
    answer({404, ""});
    EXPECT_EQ(question().target, "/private") << "better than one that is not up";
}

TEST_F(UpnpDialogueTest, AsksForAMappingForEverWhereLeasesAreNotKnown) {
    for (int code : {igd::kOnlyPermanentLeases, igd::kInvalidArgs}) {
        begin();
        answer(description(service(igd::kIp1, "/ctl")));
        answer(fault(code));
        EXPECT_THAT(question().body, HasSubstr("<NewLeaseDuration>0</NewLeaseDuration>"));
        answer(fault(code));
        EXPECT_FALSE(dialogue_->question()) << "once";
        EXPECT_THAT(dialogue_->trouble(), HasSubstr(std::to_string(code)));
    }
}

TEST_F(UpnpDialogueTest, TriesOtherPortsWhereOneIsTaken) {
    begin();
    answer(description(service(igd::kIp1, "/ctl")));
    EXPECT_THAT(external_port(question()), HasSubstr("41641"));
    answer(fault(igd::kConflict));
    EXPECT_THAT(external_port(question()), HasSubstr("30000"));
    answer(fault(igd::kConflict));
    EXPECT_THAT(external_port(question()), HasSubstr("30001"));
    answer(fault(igd::kConflict));
    EXPECT_FALSE(dialogue_->question());
}

TEST_F(UpnpDialogueTest, BelievesNoAddressThatIsNone) {
    for (const char* address : {"0.0.0.0", "127.0.0.1", "", "::1", "2001:db8::1", "gateway"}) {
        begin();
        answer(description(service(igd::kIp1, "/ctl")));
        answer(answer_with(""));
        answer(outside(address));
        EXPECT_FALSE(dialogue_->question());
        EXPECT_FALSE(dialogue_->mapping()) << address;
    }
}

TEST_F(UpnpDialogueTest, EndsOnAnythingElse) {
    for (const UpnpDialogue::Answer& bad :
         {UpnpDialogue::Answer{200, "<html/>"}, UpnpDialogue::Answer{200, ""}, UpnpDialogue::Answer{200, "\xff\xfe"},
          UpnpDialogue::Answer{404, ""}, fault(501)}) {
        begin();
        answer(bad);
        EXPECT_FALSE(dialogue_->question()) << bad.body;
        begin();
        answer(description(service(igd::kIp2, "/ctl")));
        answer(bad);
        EXPECT_FALSE(dialogue_->question()) << bad.body;
    }
    begin();
    answer(description(service(igd::kIp2, "/ctl")));
    answer(answer_with("<NewReservedPort>0</NewReservedPort>"));
    EXPECT_FALSE(dialogue_->question()) << "no port";
    begin();
    dialogue_->on_answer(Error::make("timed out"));
    EXPECT_EQ(dialogue_->trouble(), "timed out");
}

} // namespace
} // namespace tailrace
