#include "proto/portmap/igd.hpp"

#include <gmock/gmock.h>

namespace tailrace::igd {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string service(std::string_view type, std::string_view url) {
    return fmt::format("<service><serviceType>{}</serviceType><serviceId>x</serviceId><controlURL>{}</controlURL>"
                       "<eventSubURL>/evt</eventSubURL></service>",
                       type, url);
}
std::string description(const std::string& services, const std::string& before = "") {
    return "<?xml version=\"1.0\"?>\n" + before +
           "<root xmlns=\"urn:schemas-upnp-org:device-1-0\"><specVersion><major>1</major></specVersion><device>"
           "<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><deviceList><device>"
           "<deviceList><device><serviceList>" +
           services + "</serviceList></device></deviceList></device></deviceList></device></root>";
}
std::string envelope(const std::string& inside) {
    return "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body>" +
           inside + "</s:Body></s:Envelope>";
}

TEST(Igd, FindsTheServicesThatForwardPortsBestFirst) {
    auto found = parse_description(description(
        service(kIp1, "/ctl/ip1") + service("urn:schemas-upnp-org:service:Layer3Forwarding:1", "/ctl/l3f") +
        service(kOldIp1, "/old") + service(kIp2, " http://192.168.1.1:5000/ctl/ip2\n") + service(kPpp1, "/ctl/ppp")));
    ASSERT_TRUE(found);
    EXPECT_THAT(found->services,
                ElementsAre(Service{kIp2, "http://192.168.1.1:5000/ctl/ip2"}, Service{kIp1, "/ctl/ip1"},
                            Service{kPpp1, "/ctl/ppp"}, Service{kOldIp1, "/old"}));
    EXPECT_EQ(found->url_base, "");
}

TEST(Igd, ReadsDescriptionsWithPrefixesAndABase) {
    std::string xml =
        "<u:root xmlns:u=\"x\"><u:URLBase>http://192.168.1.1:49152</u:URLBase><u:device><u:serviceList>"
        "<u:service><u:serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</u:serviceType>"
        "<u:controlURL><![CDATA[/a?b=1&c=2]]></u:controlURL></u:service></u:serviceList></u:device></u:root>";
    auto found = parse_description(xml);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->url_base, "http://192.168.1.1:49152");
    EXPECT_THAT(found->services, ElementsAre(Service{kIp1, "/a?b=1&c=2"}));
}

TEST(Igd, ResolvesNoEntityOfADocumentType) {
    std::string doctype = "<!DOCTYPE root [<!ENTITY path \"/ctl\"><!ENTITY file SYSTEM \"file:///etc/passwd\">]>\n";
    auto found = parse_description(description(service(kIp1, "/&path;&file;"), doctype));
    ASSERT_TRUE(found);
    EXPECT_THAT(found->services, ElementsAre(Service{kIp1, "/&path;&file;"}));
    // A "billion laughs": ten entities of ten entities each.
    std::string laughs = "<!DOCTYPE root [<!ENTITY l0 \"ha\">";
    for (int i = 1; i < 10; ++i) {
        laughs += fmt::format("<!ENTITY l{} \"", i);
        for (int k = 0; k < 10; ++k) laughs += fmt::format("&l{};", i - 1);
        laughs += "\">";
    }
    found = parse_description(description(service(kIp1, "/&l9;"), laughs + "]>"));
    ASSERT_TRUE(found);
    EXPECT_EQ(found->services.at(0).control_url, "/&l9;");
}

TEST(Igd, RefusesWhatIsTooLongTooDeepOrNoXml) {
    auto elements_in_each_other = [](std::size_t count) {
        std::string out;
        for (std::size_t i = 0; i < count; ++i) out += "<a>";
        for (std::size_t i = 0; i < count; ++i) out += "</a>";
        return out;
    };
    EXPECT_TRUE(parse_description(elements_in_each_other(kMaxDepth)));
    for (std::size_t depth : {kMaxDepth + 1, std::size_t{18000}}) {
        auto refused = parse_description(elements_in_each_other(depth));
        ASSERT_FALSE(refused) << depth;
        EXPECT_THAT(refused.error().message(), HasSubstr("nested deeper than 32"));
    }
    EXPECT_FALSE(parse_description("<a><b></a>"));
    auto longer = parse_description(description(std::string(kMaxXmlBytes, ' ')));
    ASSERT_FALSE(longer);
    EXPECT_THAT(longer.error().message(), HasSubstr("longer than 131072 bytes"));
    EXPECT_FALSE(parse_description(""));
    EXPECT_FALSE(parse_description("<!-- nothing -->"));
    EXPECT_FALSE(parse_description(description(service(kIp1, "/")).substr(0, 300)));
    EXPECT_THAT(parse_description("<html><body>Login</body></html>")->services, IsEmpty());
}

TEST(Igd, LooksAtABoundedNumberOfServices) {
    std::string many;
    for (int i = 0; i < 100; ++i) many += service(kIp1, fmt::format("/{}", i));
    EXPECT_EQ(parse_description(description(many))->services.size(), kMaxServices);
    EXPECT_THAT(parse_description(description(service(kIp1, std::string(kMaxValue + 1, 'x'))))->services, IsEmpty());
}

TEST(Igd, WritesItsCalls) {
    AddPortMapping mapping{5000, 41641, *IpAddress::parse("192.168.1.10"), 7200s};
    Call add = write_add(kIp1, mapping);
    EXPECT_EQ(add.action, "\"urn:schemas-upnp-org:service:WANIPConnection:1#AddPortMapping\"");
    EXPECT_THAT(add.body, HasSubstr("<u:AddPortMapping xmlns:u=\"urn:schemas-upnp-org:service:WANIPConnection:1\">"
                                    "<NewRemoteHost></NewRemoteHost><NewExternalPort>5000</NewExternalPort>"
                                    "<NewProtocol>UDP</NewProtocol><NewInternalPort>41641</NewInternalPort>"
                                    "<NewInternalClient>192.168.1.10</NewInternalClient><NewEnabled>1</NewEnabled>"));
    EXPECT_THAT(add.body, HasSubstr("<NewLeaseDuration>7200</NewLeaseDuration></u:AddPortMapping>"));
    EXPECT_THAT(write_add(kIp2, mapping).action, HasSubstr("#AddAnyPortMapping"));
    EXPECT_THAT(write_delete(kPpp1, 5000).body, HasSubstr("<NewExternalPort>5000</NewExternalPort>"));
    EXPECT_EQ(write_get_external_address(kOldIp1).action,
              "\"urn:dslforum-org:service:WANIPConnection:1#GetExternalIPAddress\"");
    for (const Call& call : {add, write_delete(kIp1, 1), write_get_status(kIp1)})
        EXPECT_TRUE(parse_answer(call.body)) << "is XML: " << call.body;
}

TEST(Igd, ReadsAnswersAndFaults) {
    auto answer =
        parse_answer(envelope("<u:GetExternalIPAddressResponse xmlns:u=\"x\"><NewExternalIPAddress>203.0.113.9"
                              "</NewExternalIPAddress></u:GetExternalIPAddressResponse>"));
    ASSERT_TRUE(answer);
    EXPECT_FALSE(answer->fault);
    EXPECT_EQ(answer->value("NewExternalIPAddress"), "203.0.113.9");
    EXPECT_EQ(answer->value("Other"), "");
    auto fault = parse_answer(envelope("<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring>"
                                       "<detail><UPnPError xmlns=\"urn:schemas-upnp-org:control-1-0\"><errorCode>725"
                                       "</errorCode><errorDescription>x</errorDescription></UPnPError></detail>"
                                       "</s:Fault>"));
    ASSERT_TRUE(fault);
    EXPECT_EQ(fault->fault, kOnlyPermanentLeases);
    EXPECT_EQ(parse_answer(envelope("<s:Fault/>"))->fault, 0) << "a fault that says nothing";
}

TEST(Igd, RefusesAnswersThatAreNone) {
    EXPECT_FALSE(parse_answer("<html><body/></html>"));
    EXPECT_FALSE(parse_answer(envelope("")));
    EXPECT_FALSE(parse_answer(envelope("text")));
    EXPECT_FALSE(parse_answer(envelope("<u:A><x></u:A>")));
    std::string many;
    for (int i = 0; i < 100; ++i) many += fmt::format("<v{0}>1</v{0}>", i);
    EXPECT_FALSE(parse_answer(envelope("<u:A>" + many + "</u:A>")));
}

} // namespace
} // namespace tailrace::igd
