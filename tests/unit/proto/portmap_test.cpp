// NAT-PMP and PCP byte for byte (derp-disco-paths.md 5.2 and 5.3, RFC 6886 3, RFC 6887 7 and 11), and SSDP.
#include "base/text.hpp"
#include "proto/portmap/nat_pmp.hpp"
#include "proto/portmap/pcp.hpp"
#include "proto/portmap/ssdp.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;

Bytes hex(std::string_view text) {
    return *hex_decode(text);
}

TEST(NatPmp, WritesItsRequests) {
    EXPECT_EQ(hex_encode(nat_pmp::write_address_request()), "0000");
    EXPECT_EQ(hex_encode(nat_pmp::write_map_request({41641, 0, 7200s})), "00010000a2a9000000001c20");
    EXPECT_EQ(hex_encode(nat_pmp::write_map_request({41641, 5000, 7200s})), "00010000a2a9138800001c20");
    EXPECT_EQ(hex_encode(nat_pmp::write_delete_request(41641)), "00010000a2a9000000000000");
}

TEST(NatPmp, ReadsAnAddress) {
    auto response = nat_pmp::parse_response(hex("0080000000000e10cb007109"));
    ASSERT_TRUE(response);
    const auto& address = std::get<nat_pmp::AddressResponse>(*response);
    EXPECT_EQ(address.result, nat_pmp::kOk);
    EXPECT_EQ(address.epoch, 3600u);
    EXPECT_EQ(address.address.text(), "203.0.113.9");
    auto none = nat_pmp::parse_response(hex("0080000000000e1000000000"));
    EXPECT_FALSE(std::get<nat_pmp::AddressResponse>(*none).address.valid()) << "0.0.0.0 is no address";
}

TEST(NatPmp, ReadsAMapping) {
    auto response = nat_pmp::parse_response(hex("0081000000000e10a2a9138800001c20"));
    ASSERT_TRUE(response);
    const auto& mapping = std::get<nat_pmp::MapResponse>(*response);
    EXPECT_EQ(mapping.internal_port, 41641);
    EXPECT_EQ(mapping.external_port, 5000);
    EXPECT_EQ(mapping.lifetime, 7200s);
    auto refused = nat_pmp::parse_response(hex("0081000200000e10"));
    ASSERT_TRUE(refused) << "a refusal may end after its epoch";
    EXPECT_EQ(std::get<nat_pmp::MapResponse>(*refused).result, 2);
    EXPECT_EQ(nat_pmp::result_text(2), "not authorised");
}

TEST(NatPmp, RefusesWhatIsNoResponse) {
    for (const char* bad : {"", "00", "0080000000000e", "0080000000000e10cb0071", "0080000000000e10cb00710900",
                            "0081000000000e10a2a9138800001c", "0081000000000e10a2a9138800001c2000",
                            "0000000000000e10cb007109", "0082000000000e10a2a9138800001c20", "0180000000000e10cb007109"})
        EXPECT_FALSE(nat_pmp::parse_response(hex(bad))) << bad;
}

const pcp::Nonce kNonce = Reader{hex("0102030405060708090a0b0c")}.array<12>();
const IpAddress kSelf = *IpAddress::parse("192.168.1.10");
const char* const kSelfBytes = "00000000000000000000ffffc0a8010a";
const char* const kNoAddress = "00000000000000000000ffff00000000";

TEST(Pcp, WritesItsRequests) {
    EXPECT_EQ(hex_encode(pcp::write_announce_request(kSelf)), std::string{"0200000000000000"} + kSelfBytes);
    pcp::MapRequest request{kSelf, kNonce, 41641, 0, {}, 7200s};
    EXPECT_EQ(hex_encode(pcp::write_map_request(request)), std::string{"0201000000001c20"} + kSelfBytes +
                                                               "0102030405060708090a0b0c" + "11000000" + "a2a9" +
                                                               "0000" + kNoAddress);
    request.wished_port = 5000;
    request.wished_address = *IpAddress::parse("203.0.113.9");
    EXPECT_EQ(hex_encode(pcp::write_map_request(request)).substr(84), "138800000000000000000000ffffcb007109");
}

std::string map_response(const std::string& result = "00") {
    return "028100" + result + "00000e10" + "00000064" + std::string(24, '0') + "0102030405060708090a0b0c" +
           "11000000" + "a2a9" + "1388" + "00000000000000000000ffffcb007109";
}

TEST(Pcp, ReadsAnAnnouncementAndAMapping) {
    auto announce = pcp::parse_response(hex("0280000000000000000000640000000000000000" + std::string(8, '0')));
    ASSERT_TRUE(announce);
    EXPECT_EQ(announce->kind, pcp::Response::Kind::Announce);
    EXPECT_EQ(announce->epoch, 100u);
    auto map = pcp::parse_response(hex(map_response()));
    ASSERT_TRUE(map && map->mapping);
    EXPECT_EQ(map->lifetime, 3600s);
    EXPECT_EQ(map->mapping->nonce, kNonce);
    EXPECT_EQ(map->mapping->protocol, 17);
    EXPECT_EQ(map->mapping->internal_port, 41641);
    EXPECT_EQ(map->mapping->external_port, 5000);
    EXPECT_EQ(map->mapping->external_address.text(), "203.0.113.9");
    EXPECT_EQ(pcp::parse_response(hex(map_response("0c")))->result, pcp::kAddressMismatch);
    EXPECT_TRUE(pcp::parse_response(hex(map_response() + "00000000"))) << "options are ignored";
}

TEST(Pcp, RefusesWhatIsNoResponse) {
    std::string map = map_response();
    for (std::size_t size = 0; size < map.size(); size += 2)
        EXPECT_FALSE(pcp::parse_response(hex(map.substr(0, size)))) << size;
    EXPECT_FALSE(pcp::parse_response(hex(map + "00"))) << "no multiple of four";
    EXPECT_FALSE(pcp::parse_response(hex(map + std::string(2 * 1044, '0')))) << "too long";
    EXPECT_FALSE(pcp::parse_response(hex("01" + map.substr(2)))) << "another version";
    EXPECT_FALSE(pcp::parse_response(hex("0201" + map.substr(4)))) << "a request";
    EXPECT_FALSE(pcp::parse_response(hex("0282" + map.substr(4)))) << "PEER";
}

const char* const kGatewayAnswer = "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\n"
                                   "ST: urn:schemas-upnp-org:device:InternetGatewayDevice:2\r\n"
                                   "USN: uuid:1::urn:schemas-upnp-org:device:InternetGatewayDevice:2\r\nEXT:\r\n"
                                   "SERVER: Debian UPnP/1.1 MiniUPnPd/2.3.1\r\n"
                                   "location:http://192.168.1.1:5000/rootDesc.xml\r\nBOOTID.UPNP.ORG: 77\r\n\r\n";

TEST(Ssdp, WritesTheSearchOfTheReference) {
    EXPECT_EQ(ssdp::write_search(ssdp::kEverything),
              "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nST: ssdp:all\r\nMAN: \"ssdp:discover\"\r\nMX: "
              "2\r\n\r\n");
}

TEST(Ssdp, ReadsTheAnswerOfAGateway) {
    auto answer = ssdp::parse_answer(as_bytes(kGatewayAnswer));
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->location, "http://192.168.1.1:5000/rootDesc.xml");
    EXPECT_EQ(answer->server, "Debian UPnP/1.1 MiniUPnPd/2.3.1");
    EXPECT_EQ(answer->usn, "uuid:1::urn:schemas-upnp-org:device:InternetGatewayDevice:2");
    EXPECT_EQ(answer->boot_id, 77u);
}

TEST(Ssdp, RefusesOtherDevicesAndOtherText) {
    std::string good = kGatewayAnswer;
    std::string printer = "HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:Printer:1\r\nLOCATION: http://a/\r\n\r\n";
    EXPECT_FALSE(ssdp::parse_answer(as_bytes(printer)));
    EXPECT_FALSE(ssdp::parse_answer(as_bytes("NOTIFY * HTTP/1.1" + good.substr(15))));
    EXPECT_FALSE(ssdp::parse_answer(as_bytes("HTTP/1.1 404" + good.substr(12))));
    EXPECT_FALSE(ssdp::parse_answer(as_bytes(good + std::string(ssdp::kMaxSize, ' '))));
    EXPECT_FALSE(ssdp::parse_answer(as_bytes(good.substr(0, good.find("location"))))) << "no location";
    EXPECT_FALSE(ssdp::parse_answer({}));
    std::string at = "location:http://";
    std::string long_one = good;
    long_one.insert(long_one.find(at) + at.size(), std::string(600, 'x'));
    EXPECT_FALSE(ssdp::parse_answer(as_bytes(long_one))) << "a location longer than we keep";
}

TEST(Ssdp, PutsTheNewerKindFirstAndKeepsOneALocation) {
    ssdp::Answer one{"http://192.168.1.1:1/", "s", "uuid:1::urn:x:device:InternetGatewayDevice:1", {}};
    ssdp::Answer two = one;
    two.usn.back() = '2';
    ssdp::Answer other = one;
    other.location = "http://192.168.1.1:2/";
    std::vector<ssdp::Answer> answers{one, other, two, one};
    ssdp::sort_answers(answers);
    EXPECT_THAT(answers, testing::ElementsAre(two, other));
}

} // namespace
} // namespace tailrace
