// The recorded conversations in tests/vectors/control are those of a stock client and a stock server.
#include "base/file.hpp"
#include "base/json/json.hpp"
#include "proto/control/map.hpp"
#include "proto/control/register.hpp"
#include "proto/control/requests.hpp"
#include "tests/unit/vectors.hpp"

#include <gtest/gtest.h>

namespace tailrace {
namespace {

const std::string kZeros(64, '0');

// A conversation file as (message, body) pairs.
std::vector<std::pair<std::string, boost::json::value>> conversation(const std::string& name) {
    std::vector<std::pair<std::string, boost::json::value>> out;
    auto data = read_file(vector_file("control/" + name));
    EXPECT_TRUE(data);
    if (!data) return out;
    for (std::string_view line : split(*data, '\n')) {
        if (line.empty()) continue;
        auto value = json::parse_value(line);
        EXPECT_TRUE(value);
        auto& object = value->as_object();
        out.emplace_back(std::string{object.at("message").as_string()}, object.at("body"));
    }
    return out;
}

// Go's nil slices come as null, and mean the same as our empty lists.
boost::json::value without_nulls(const boost::json::value& value) {
    if (value.is_array()) {
        boost::json::array out;
        for (const auto& element : value.get_array()) out.push_back(without_nulls(element));
        return out;
    }
    if (!value.is_object()) return value;
    boost::json::object out;
    for (const auto& [key, member] : value.get_object())
        if (!member.is_null() && !(member.is_array() && member.get_array().empty()) &&
            !(member.is_object() && member.get_object().empty()))
            out[key] = without_nulls(member);
    return out;
}

template <typename T>
void expect_round_trip(const boost::json::value& body) {
    auto parsed = json::parse<T>(json::write_value(body));
    ASSERT_TRUE(parsed) << parsed.error().message();
    auto again = json::parse_value(json::write(*parsed));
    ASSERT_TRUE(again);
    EXPECT_EQ(without_nulls(*again), without_nulls(body));
}

TEST(ControlMessages, RecordedConversationsSurviveReadingAndWriting) {
    for (const char* file : {"laptop.jsonl", "router.jsonl"}) {
        auto messages = conversation(file);
        EXPECT_GT(messages.size(), 30u);
        for (const auto& [name, body] : messages) {
            if (name == "RegisterRequest")
                expect_round_trip<wire::RegisterRequest>(body);
            else if (name == "RegisterResponse")
                expect_round_trip<wire::RegisterResponse>(body);
            else if (name == "MapRequest")
                expect_round_trip<wire::MapRequest>(body);
            else if (name == "MapResponse")
                expect_round_trip<wire::MapResponse>(body);
            else
                ADD_FAILURE() << "unknown message " << name;
        }
    }
}

TEST(ControlMessages, HostinfoTableCoversWhatStockClientsSend) {
    // Kept text hides members that the table lacks, so look at the value itself.
    for (const auto& [name, body] : conversation("laptop.jsonl")) {
        if (name != "MapRequest") continue;
        const auto& hostinfo = body.as_object().at("Hostinfo");
        auto parsed = wire::parse_hostinfo(json::write_value(hostinfo));
        ASSERT_TRUE(parsed);
        EXPECT_EQ(without_nulls(*json::parse_value(wire::write_hostinfo(*parsed))), without_nulls(hostinfo));
    }
}

TEST(ControlMessages, RegisterRequestAlwaysWritesWhatTheReferenceAlwaysWrites) {
    EXPECT_EQ(wire::write_register_request({}),
              R"({"Version":0,"NodeKey":"nodekey:)" + kZeros + R"(","OldNodeKey":"nodekey:)" + kZeros +
                  R"(","NLKey":"nlpub:)" + kZeros +
                  R"(","Expiry":"0001-01-01T00:00:00Z","Followup":"","Hostinfo":{},"NodeKeySignature":null})");
    EXPECT_EQ(wire::write_register_response({}),
              R"({"User":{"ID":0,"DisplayName":""},"Login":{"ID":0,"Provider":"","LoginName":"","DisplayName":""},)"
              R"("NodeKeyExpired":false,"MachineAuthorized":false,"AuthURL":"","NodeKeySignature":null,"Error":""})");
}

TEST(ControlMessages, LogoutExpiryMayCarryAnOffset) {
    auto request = wire::parse_register_request(R"({"Version":131,"Expiry":"1970-01-01T01:02:03+01:00"})");
    ASSERT_TRUE(request);
    EXPECT_EQ(request->expiry, WallTime::from_unix(123));
}

TEST(ControlMessages, HostinfoIsRelayedWithMembersWeDoNotKnow) {
    auto request = wire::parse_map_request(
        R"({"Version":131,"Hostinfo":{"OS":"linux","Hostname":"gw","BrandNew":{"a":[1,2]}},"OmitPeers":true})");
    ASSERT_TRUE(request) << request.error().message();
    EXPECT_TRUE(request->is_lite_update());
    EXPECT_EQ(request->hostinfo.value.hostname, "gw");
    wire::Node node;
    node.hostinfo = request->hostinfo;
    std::string text = wire::write_node(node);
    EXPECT_NE(text.find(R"("Hostinfo":{"OS":"linux","Hostname":"gw","BrandNew":{"a":[1,2]}})"), std::string::npos)
        << text;
}

TEST(ControlMessages, ZonedAndUselessEndpointsAreLeftOut) {
    auto request = wire::parse_map_request(
        R"({"Endpoints":["1.2.3.4:5","[fe80::1%eth0]:7","[fe80::1]:7","[2001:db8::1]:9","0.0.0.0:1","1.2.3.4:0",""]})");
    ASSERT_TRUE(request) << request.error().message();
    auto usable = wire::usable_endpoints(*request);
    ASSERT_EQ(usable.size(), 2u);
    EXPECT_EQ(usable[1].text(), "[2001:db8::1]:9");
}

TEST(ControlMessages, NodeTellsAbsentFromEmptyRoutes) {
    auto absent = wire::parse_node(R"({"ID":1,"Addresses":["100.64.0.1/32"],"DERP":"127.3.3.40:7"})");
    auto empty = wire::parse_node(
        R"({"ID":1,"Addresses":["100.64.0.1/32"],"AllowedIPs":[],"DERP":"127.3.3.40:7","HomeDERP":9})");
    ASSERT_TRUE(absent && empty);
    EXPECT_EQ(absent->routes_to().size(), 1u);
    EXPECT_EQ(empty->routes_to().size(), 0u);
    EXPECT_EQ(absent->home_region(), 7);
    EXPECT_EQ(empty->home_region(), 9);
    EXPECT_NE(wire::write_node(*empty).find(R"("AllowedIPs":[])"), std::string::npos);
    EXPECT_EQ(wire::write_node(*absent).find("AllowedIPs"), std::string::npos);
    EXPECT_EQ(wire::legacy_derp_text(900), "127.3.3.40:900");
}

TEST(ControlMessages, SplicedResponsesAreWrittenLikeWholeOnes) {
    wire::Node node;
    node.id = 7;
    node.name = "a.tail.example.";
    wire::MapResponse whole;
    whole.node = node;
    whole.peers.emplace({node, node});
    whole.domain = "example.com";
    std::string text = wire::write_node(node);
    wire::SplicedMapResponse spliced;
    spliced.node = RawJsonView{text};
    spliced.peers.emplace({RawJsonView{text}, RawJsonView{text}});
    spliced.domain = "example.com";
    EXPECT_EQ(wire::write_map_response(whole), wire::write_map_response(spliced));
}

TEST(ControlMessages, MapResponseKeepsTheDifferencesThatMeanSomething) {
    EXPECT_EQ(wire::write_map_response(wire::MapResponse{}), "{}");
    wire::MapResponse response;
    response.keep_alive = true;
    EXPECT_EQ(wire::write_map_response(response), R"({"KeepAlive":true})");

    constexpr std::string_view kText =
        R"({"Peers":[],"PeersRemoved":[2],"PeersChangedPatch":[{"NodeID":2,"Endpoints":[],"Online":false,"KeyExpiry":"0001-01-01T00:00:00Z"}],)"
        R"("OnlineChange":{"3":true},"PacketFilter":[],"PacketFilters":{"*":null,"a":[]},"Health":[],"DisplayMessages":{"x":null},"SSHPolicy":{"rules":[]}})";
    auto parsed = wire::parse_map_response(kText);
    ASSERT_TRUE(parsed) << parsed.error().message();
    EXPECT_EQ(wire::write_map_response(*parsed), kText);
    EXPECT_FALSE(parsed->dns_config);
}

TEST(ControlMessages, NullIsFineEverywhere) {
    auto response = wire::parse_map_response(
        R"({"Node":null,"DERPMap":null,"Peers":null,"PeersChanged":null,"PacketFilters":null,"Debug":null,"ControlTime":null,"Health":null})");
    ASSERT_TRUE(response) << response.error().message();
    EXPECT_FALSE(response->node || response->peers || response->packet_filters || response->health);
    EXPECT_TRUE(
        wire::parse_node(R"({"Key":null,"Hostinfo":null,"Addresses":null,"CapMap":{"a":null},"Created":null})"));
}

TEST(ControlMessages, MalformedInputIsAnErrorThatNamesThePlace) {
    EXPECT_FALSE(wire::parse_map_request(""));
    EXPECT_FALSE(wire::parse_map_request("[1]"));
    EXPECT_FALSE(wire::parse_map_request(R"({"Version":131,"NodeKey":5})"));
    EXPECT_FALSE(wire::parse_map_request(R"({"Version":131,"NodeKey":""})"));
    EXPECT_EQ(wire::parse_map_request(R"({"Version":1.0})").error().message(),
              "Version: expected an integer in range, got 1E0");
    EXPECT_FALSE(wire::parse_map_response(R"({"Peers":[{"ID":1,"Addresses":["100.64.0.1"]}]})"));
    EXPECT_FALSE(wire::parse_register_request(R"({"Expiry":""})"));
    EXPECT_EQ(wire::parse_register_request(R"({"Version":131,)").error().message(), "JSON ends early, after 15 bytes");
}

TEST(ControlMessages, SmallOnes) {
    auto key = wire::parse_public_key_response(
        R"({"legacyPublicKey":"mkey:)" + kZeros +
        R"(","publicKey":"mkey:07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c"})");
    ASSERT_TRUE(key);
    EXPECT_TRUE(key->legacy_public_key.is_zero());
    EXPECT_FALSE(key->public_key.is_zero());
    EXPECT_TRUE(wire::parse_public_key_response("{}")->public_key.is_zero());
    EXPECT_EQ(wire::write_derp_admit_response({true}), R"({"Allow":true})");
    auto attributes = wire::parse_set_device_attributes_request(R"({"Update":{"a:b":1.5,"c":null,"d":"x"}})");
    ASSERT_TRUE(attributes);
    EXPECT_EQ(attributes->update["a:b"].text, "1.5E0");
    EXPECT_EQ(attributes->update["c"].text, "null");
}

} // namespace
} // namespace tailrace
