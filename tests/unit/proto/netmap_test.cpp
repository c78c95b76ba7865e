#include "proto/netmap.hpp"

#include "base/file.hpp"
#include "base/json/json.hpp"
#include "tests/unit/vectors.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tailrace {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const WallTime kNow = *WallTime::parse("2026-03-01T12:00:00Z");

std::string node_key(int n) {
    return fmt::format("nodekey:{:064x}", n);
}
std::string disco_key(int n) {
    return fmt::format("discokey:{:064x}", n);
}

std::string peer(int id, std::string_view more = "") {
    return fmt::format(R"({{"ID":{0},"Name":"p{0}.tail.example.","User":1,"Key":"{1}","DiscoKey":"{2}",)"
                       R"("Addresses":["100.64.0.{0}/32"],"HomeDERP":900{3}}})",
                       id, node_key(id), disco_key(id), more);
}

std::string first_frame(std::string_view more = "") {
    return R"({"Node":)" + peer(1) + R"(,"Peers":[)" + peer(2) + "," + peer(3) + "]" + std::string{more} + "}";
}

NetmapChanges feed(Netmap& netmap, std::string_view frame, WallTime now = kNow) {
    auto response = wire::parse_map_response(frame);
    EXPECT_TRUE(response) << response.error().message();
    auto changes = netmap.apply(*response, now);
    EXPECT_TRUE(changes) << changes.error().message();
    return changes.value_or({});
}

Netmap netmap_with_two_peers(std::string_view more = "") {
    Netmap netmap;
    feed(netmap, first_frame(more));
    return netmap;
}

std::vector<wire::NodeId> peer_ids(const Netmap& netmap) {
    std::vector<wire::NodeId> ids;
    for (const auto& [id, node] : netmap.peers()) ids.push_back(id);
    return ids;
}

std::vector<std::string> rule_sources(const Netmap& netmap) {
    std::vector<std::string> sources;
    for (const auto& rule : netmap.filter_rules())
        sources.insert(sources.end(), rule.src_ips.begin(), rule.src_ips.end());
    return sources;
}

TEST(Netmap, FirstFrameNeedsANode) {
    Netmap netmap;
    EXPECT_TRUE(netmap.apply(*wire::parse_map_response(R"({"KeepAlive":true})"), kNow));
    EXPECT_FALSE(netmap.apply(*wire::parse_map_response(R"({"PeersRemoved":[2]})"), kNow));
    EXPECT_FALSE(netmap.has_self());
}

TEST(Netmap, FirstFrameFillsEverything) {
    Netmap netmap;
    auto changes =
        feed(netmap, first_frame(R"(,"Domain":"example.com","UserProfiles":[{"ID":1,"LoginName":"alice"}])"));
    EXPECT_TRUE(changes.first_of_stream);
    EXPECT_THAT(changes.peers_changed, ElementsAre(2, 3));
    EXPECT_EQ(netmap.self().id, 1);
    EXPECT_EQ(netmap.domain(), "example.com");
    EXPECT_EQ(netmap.magic_dns_suffix(), "tail.example");
    EXPECT_EQ(netmap.user(1)->login_name, "alice");
    EXPECT_EQ(netmap.find(*NodeKey::parse(node_key(3)))->id, 3);
    EXPECT_EQ(netmap.owner_of(*IpAddress::parse("100.64.0.2"))->id, 2);
    EXPECT_EQ(netmap.owner_of(*IpAddress::parse("100.64.0.1"))->id, 1);
    EXPECT_EQ(netmap.owner_of(*IpAddress::parse("100.64.0.9")), nullptr);
    EXPECT_FALSE(netmap.has_filter());
}

TEST(Netmap, KeepAlivesChangeNothing) {
    Netmap netmap = netmap_with_two_peers();
    EXPECT_FALSE(feed(netmap, R"({"KeepAlive":true,"PeersRemoved":[2],"Domain":"x"})").any());
    EXPECT_EQ(netmap.peers().size(), 2u);
}

TEST(Netmap, AnEmptyPeerListIsNoStatement) {
    Netmap netmap = netmap_with_two_peers();
    EXPECT_FALSE(feed(netmap, R"({"Peers":[]})").any());
    EXPECT_THAT(peer_ids(netmap), ElementsAre(2, 3));
    EXPECT_THAT(feed(netmap, R"({"PeersRemoved":[2,3,99]})").peers_removed, ElementsAre(2, 3));
    EXPECT_THAT(peer_ids(netmap), IsEmpty());
    EXPECT_EQ(netmap.find(*NodeKey::parse(node_key(2))), nullptr);
}

TEST(Netmap, AFullListVoidsTheDeltasBesideIt) {
    Netmap netmap = netmap_with_two_peers();
    auto changes =
        feed(netmap, R"({"Peers":[)" + peer(3) + "," + peer(4) + R"(],"PeersRemoved":[4],"OnlineChange":{"3":true}})");
    EXPECT_THAT(peer_ids(netmap), ElementsAre(3, 4));
    EXPECT_THAT(changes.peers_changed, ElementsAre(4));
    EXPECT_THAT(changes.peers_removed, ElementsAre(2));
    EXPECT_FALSE(netmap.find(3)->online);
}

TEST(Netmap, DeltasAreAppliedInTheReferenceOrder) {
    Netmap netmap = netmap_with_two_peers();
    auto changes = feed(netmap, R"({"PeersRemoved":[2],"PeersChanged":[)" + peer(2, R"(,"Cap":5)") +
                                    R"(],"PeerSeenChange":{"2":true},"OnlineChange":{"2":false,"77":true},)"
                                    R"("PeersChangedPatch":[{"NodeID":2,"Cap":6},{"NodeID":88,"Cap":6}]})");
    EXPECT_THAT(changes.peers_changed, ElementsAre(2));
    EXPECT_THAT(changes.peers_removed, IsEmpty());
    const wire::Node& node = *netmap.find(2);
    EXPECT_EQ(node.cap, 6);
    EXPECT_EQ(node.last_seen, kNow);
    EXPECT_EQ(node.online, false);
    feed(netmap, R"({"PeerSeenChange":{"2":false}})");
    EXPECT_FALSE(netmap.find(2)->last_seen);
}

TEST(Netmap, PatchesTouchOnlyWhatTheyName) {
    Netmap netmap = netmap_with_two_peers();
    feed(
        netmap,
        R"({"PeersChangedPatch":[{"NodeID":2,"Endpoints":["1.2.3.4:5"],"DERPRegion":7,"KeyExpiry":"2026-03-02T00:00:00Z","CapMap":{"a":[1]}}]})");
    const wire::Node* node = netmap.find(2);
    EXPECT_EQ(node->endpoints[0].text(), "1.2.3.4:5");
    EXPECT_EQ(node->home_derp, 7);
    EXPECT_EQ(node->disco_key.text(), disco_key(2));
    EXPECT_TRUE(node->has_cap("a"));
    feed(netmap, R"({"PeersChangedPatch":[{"NodeID":2,"Endpoints":[],"KeyExpiry":"0001-01-01T00:00:00Z","Key":")" +
                     node_key(22) + R"("}]})");
    EXPECT_THAT(node->endpoints, IsEmpty());
    EXPECT_TRUE(node->key_expiry.is_zero());
    EXPECT_EQ(netmap.find(*NodeKey::parse(node_key(22))), node);
    EXPECT_EQ(netmap.find(*NodeKey::parse(node_key(2))), nullptr);
}

TEST(Netmap, StaleDiscoKeysAreRefused) {
    Netmap netmap = netmap_with_two_peers();
    EXPECT_TRUE(netmap.learn_disco_key(2, *DiscoKey::parse(disco_key(50)), kNow));
    EXPECT_FALSE(netmap.learn_disco_key(2, *DiscoKey::parse(disco_key(50)), kNow));
    EXPECT_FALSE(netmap.learn_disco_key(2, DiscoKey{}, kNow));
    EXPECT_FALSE(netmap.learn_disco_key(2, netmap.find(3)->disco_key, kNow)) << "it is another's";
    EXPECT_FALSE(netmap.learn_disco_key(9, *DiscoKey::parse(disco_key(50)), kNow));
    auto patch = [](std::string_view more) {
        return R"({"PeersChangedPatch":[{"NodeID":2,"DERPRegion":3,"DiscoKey":")" + disco_key(60) + "\"" +
               std::string{more} + "}]}";
    };
    EXPECT_FALSE(feed(netmap, patch(R"(,"Online":false,"LastSeen":"2026-03-01T12:00:00Z")")).any());
    EXPECT_EQ(netmap.find(2)->home_derp, 900);
    feed(netmap, R"({"Peers":[)" + peer(2) + "]}");
    EXPECT_EQ(netmap.find(2)->disco_key.text(), disco_key(50));
    EXPECT_EQ(netmap.find(2)->last_seen, kNow);
    feed(netmap, patch(R"(,"Online":false,"LastSeen":"2026-03-01T12:00:01Z")"));
    EXPECT_EQ(netmap.find(2)->disco_key.text(), disco_key(60));
    feed(netmap, R"({"Peers":[)" + peer(2, R"(,"Online":true)") + "]}");
    EXPECT_EQ(netmap.find(2)->disco_key.text(), disco_key(2));
}

TEST(Netmap, FilterChunksAreReplacedByName) {
    Netmap netmap = netmap_with_two_peers(
        R"(,"PacketFilters":{"b":[{"SrcIPs":["2"]}],"base":[{"SrcIPs":["3"]}],"a":[{"SrcIPs":["1"]}]})");
    EXPECT_THAT(rule_sources(netmap), ElementsAre("1", "2", "3"));
    EXPECT_FALSE(feed(netmap, R"({"Domain":"x"})").filter);
    EXPECT_TRUE(feed(netmap, R"({"PacketFilters":{"base":null}})").filter);
    EXPECT_THAT(rule_sources(netmap), ElementsAre("1", "2"));
    EXPECT_TRUE(feed(netmap, R"({"PacketFilters":{}})").filter);
    feed(netmap, R"({"PacketFilters":{"*":null,"c":[{"SrcIPs":["9"]}]}})");
    EXPECT_THAT(rule_sources(netmap), ElementsAre("9"));
    feed(netmap, R"({"PacketFilter":[{"SrcIPs":["0"]}]})");
    EXPECT_THAT(rule_sources(netmap), ElementsAre("0", "9"));
}

TEST(Netmap, LinesOfThePolicyBelongToTheFilterThatTheyCameWith) {
    Netmap netmap = netmap_with_two_peers(
        R"(,"TailracePolicyLines":[[{"Line":3,"Count":1},{"Line":9}],[{}]],"PacketFilters":{"base":[{},{}]})");
    ASSERT_EQ(netmap.policy_lines().size(), 2u) << "whichever stands first in the frame";
    EXPECT_EQ(netmap.policy_lines()[0], (wire::RuleLines{{3, 1}, {9, 0}}));
    EXPECT_EQ(netmap.policy_lines()[1], (wire::RuleLines{{0, 0}}));
    auto moved = feed(netmap, R"({"TailracePolicyLines":[[{"Line":4}],[{"Line":10}]]})");
    EXPECT_TRUE(moved.any()) << "for the cached netmap";
    EXPECT_FALSE(moved.filter);
    EXPECT_EQ(netmap.policy_lines()[1], (wire::RuleLines{{10, 0}}));
    EXPECT_FALSE(feed(netmap, R"({"TailracePolicyLines":[[{"Line":4}],[{"Line":10}]]})").any());
    feed(netmap, R"({"TailracePolicyLines":[[{"Line":4}]]})");
    EXPECT_EQ(netmap.policy_lines()[1], (wire::RuleLines{{10, 0}})) << "as many as there are rules, or none of them";
    EXPECT_TRUE(feed(netmap, R"({"PacketFilters":{"base":[{},{}]}})").filter);
    EXPECT_THAT(netmap.policy_lines(), IsEmpty());
    feed(netmap, R"({"TailracePolicyLines":[[],[]]})");
    netmap.begin_stream();
    feed(netmap, first_frame(R"(,"PacketFilter":[{},{}])"));
    EXPECT_THAT(netmap.policy_lines(), IsEmpty()) << "this server does not say";
}

TEST(Netmap, AnEmptyPacketFilterBlocksAll) {
    Netmap netmap = netmap_with_two_peers(R"(,"PacketFilter":[{"SrcIPs":["*"]}])");
    feed(netmap, R"({"PacketFilter":[]})");
    EXPECT_THAT(rule_sources(netmap), IsEmpty());
    EXPECT_TRUE(netmap.has_filter());
}

TEST(Netmap, DerpMapsMerge) {
    Netmap netmap = netmap_with_two_peers(
        R"(,"DERPMap":{"HomeParams":{"RegionScore":{"1":0.5}},"Regions":{"1":{"RegionID":1},"2":null},"omitDefaultRegions":true})");
    ASSERT_EQ(netmap.derp_map().regions->size(), 1u);
    feed(netmap, R"({"DERPMap":{"HomeParams":{}}})");
    EXPECT_EQ(netmap.derp_map().regions->size(), 1u);
    EXPECT_TRUE(netmap.derp_map().omit_default_regions);
    EXPECT_EQ(netmap.derp_map().home_params->region_score->at(1), 0.5);
    feed(netmap, R"({"DERPMap":{"HomeParams":{"RegionScore":{}},"Regions":{"5":{"RegionID":5},"6":{"RegionID":6}}}})");
    EXPECT_EQ(netmap.derp_map().regions->size(), 2u);
    EXPECT_FALSE(netmap.derp_map().omit_default_regions);
    EXPECT_THAT(*netmap.derp_map().home_params->region_score, IsEmpty());
}

TEST(Netmap, RoutesAndHomeAreNormalised) {
    Netmap netmap;
    feed(
        netmap,
        R"({"Node":{"ID":1,"Name":"x.","Addresses":["100.64.0.1/32"],"Capabilities":["cap"],"DERP":"127.3.3.40:4"},"Peers":[)"
        R"({"ID":2,"Addresses":["100.64.0.2/32"],"AllowedIPs":[],"DERP":"127.3.3.40:4","HomeDERP":5},)"
        R"({"ID":3,"Addresses":["100.64.0.3/32"],"AllowedIPs":["10.0.0.0/8"],"UnsignedPeerAPIOnly":true}]})");
    EXPECT_EQ(netmap.self().allowed_ips->size(), 1u);
    EXPECT_EQ(netmap.self().home_derp, 4);
    EXPECT_TRUE(netmap.self().has_cap("cap"));
    EXPECT_THAT(*netmap.find(2)->allowed_ips, IsEmpty());
    EXPECT_EQ(netmap.find(2)->home_derp, 5);
    EXPECT_EQ(netmap.find(3)->allowed_ips->at(0).text(), "100.64.0.3/32");
    EXPECT_EQ(netmap.magic_dns_suffix(), "x");
}

TEST(Netmap, HealthReplacesAndMessagesPatch) {
    Netmap netmap =
        netmap_with_two_peers(R"(,"Health":["bad"],"DisplayMessages":{"a":{"Title":"A"},"b":{"Title":"B"}})");
    feed(netmap, R"({"DisplayMessages":{"a":null,"c":{"Title":"C"}}})");
    EXPECT_EQ(netmap.display_messages().size(), 2u);
    EXPECT_EQ(netmap.health().size(), 1u);
    EXPECT_TRUE(feed(netmap, R"({"Health":[],"DisplayMessages":{"*":null,"d":{"Title":"D"}}})").health);
    EXPECT_THAT(netmap.health(), IsEmpty());
    EXPECT_EQ(netmap.display_messages().begin()->first, "d");
}

TEST(Netmap, SshPolicyIsKeptUntilReplaced) {
    Netmap netmap = netmap_with_two_peers(
        R"(,"SSHPolicy":{"rules":[{"principals":[{"any":true}],"sshUsers":{"*":"="},"action":{"accept":true}}]})");
    EXPECT_FALSE(feed(netmap, R"({"SSHPolicy":null})").ssh);
    EXPECT_EQ(netmap.ssh_policy()->rules.size(), 1u);
    EXPECT_TRUE(feed(netmap, R"({"SSHPolicy":{"rules":[]}})").ssh);
    EXPECT_THAT(netmap.ssh_policy()->rules, IsEmpty());
}

TEST(Netmap, DnsIsReplacedWhole) {
    Netmap netmap = netmap_with_two_peers(R"(,"DNSConfig":{"Proxied":true,"Domains":["tail.example"]})");
    EXPECT_TRUE(netmap.dns().proxied);
    EXPECT_TRUE(feed(netmap, R"({"DNSConfig":{}})").dns);
    EXPECT_EQ(netmap.dns(), wire::DnsConfig{});
}

TEST(Netmap, ExpiryFollowsTheServersClock) {
    Netmap netmap = netmap_with_two_peers(R"(,"PeersChanged":null)");
    feed(netmap, R"({"PeersChangedPatch":[{"NodeID":2,"KeyExpiry":"2026-03-01T13:00:00Z"}]})");
    EXPECT_TRUE(netmap.peer_usable(*netmap.find(2), kNow));
    EXPECT_EQ(netmap.next_expiry(kNow)->text(), "2026-03-01T13:00:00Z");
    EXPECT_FALSE(netmap.peer_usable(*netmap.find(2), kNow.plus(std::chrono::hours{1})));
    feed(netmap, R"({"ControlTime":"2026-03-01T14:00:00Z"})"); // our clock is two hours late
    EXPECT_FALSE(netmap.peer_usable(*netmap.find(2), kNow));
    feed(netmap, R"({"KeepAlive":true,"ControlTime":"2026-03-01T12:00:59Z"})");
    EXPECT_EQ(netmap.clock_skew(), Duration{0});
    feed(netmap, R"({"ControlTime":"2022-03-01T12:00:59Z"})");
    EXPECT_EQ(netmap.clock_skew(), Duration{0});
    EXPECT_TRUE(netmap.peer_usable(*netmap.find(2), kNow));
    feed(netmap, R"({"Node":)" + peer(1, R"(,"KeyExpiry":"2026-03-01T11:00:00Z")") + "}");
    EXPECT_TRUE(netmap.self_expired(kNow));
}

TEST(Netmap, ANewStreamReplacesEverythingButTheDialPlan) {
    Netmap netmap = netmap_with_two_peers(
        R"(,"Domain":"old","PacketFilter":[{"SrcIPs":["*"]}],"ControlDialPlan":{"Candidates":[{"IP":"1.2.3.4"}]})");
    netmap.begin_stream();
    EXPECT_EQ(netmap.peers().size(), 2u); // still in force until the new stream speaks
    auto changes = feed(netmap, R"({"Node":)" + peer(1) + R"(,"Peers":[)" + peer(3) + "]}");
    EXPECT_TRUE(changes.first_of_stream && changes.filter && changes.domain);
    EXPECT_THAT(changes.peers_changed, IsEmpty());
    EXPECT_THAT(changes.peers_removed, ElementsAre(2));
    EXPECT_FALSE(netmap.has_filter());
    EXPECT_EQ(netmap.domain(), "");
    EXPECT_EQ(netmap.dial_plan().candidates.size(), 1u);
    netmap.begin_stream();
    EXPECT_THAT(feed(netmap, R"({"Node":)" + peer(1) + "}").peers_removed, ElementsAre(3));
}

TEST(Netmap, AKeyThatMovedBetweenNodesIsStillFound) {
    Netmap netmap = netmap_with_two_peers();
    std::string moved = peer(4);
    moved.replace(moved.find(node_key(4)), node_key(4).size(), node_key(2));
    feed(netmap, R"({"PeersChanged":[)" + moved + "]}");
    feed(netmap, R"({"PeersRemoved":[2]})");
    EXPECT_EQ(netmap.find(*NodeKey::parse(node_key(2)))->id, 4);
}

TEST(Netmap, FollowsARecordedConversation) {
    for (const char* file : {"laptop.jsonl", "router.jsonl"}) {
        Netmap netmap;
        auto data = read_file(vector_file(std::string{"control/"} + file));
        ASSERT_TRUE(data);
        for (std::string_view line : split(*data, '\n')) {
            if (line.empty()) continue;
            auto value = json::parse_value(line);
            const auto& object = value->as_object();
            if (object.at("message") == "RegisterRequest") netmap.begin_stream();
            if (object.at("message") != "MapResponse") continue;
            auto response = wire::parse_map_response(json::write_value(object.at("body")));
            ASSERT_TRUE(response);
            auto changes = netmap.apply(*response, kNow);
            ASSERT_TRUE(changes) << changes.error().message();
        }
        EXPECT_TRUE(netmap.has_self() && netmap.has_filter());
        EXPECT_FALSE(netmap.peers().empty());
        EXPECT_NE(netmap.user(netmap.self().user), nullptr);
    }
}

} // namespace
} // namespace tailrace
