#include "tests/unit/control/composer_fixture.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;

constexpr const char* kTwoIslands = R"({
    "tagOwners": {"tag:server": ["alice@"]},
    "acls": [{"action": "accept", "src": ["100.64.0.1"], "dst": ["100.64.0.2:22"]}]
})";

TEST_F(Composer, AFullMapHasEverythingButTheViewerAmongItsPeers) {
    join_some(300);
    use_policy("");
    for (MapCompression compression : {MapCompression::Zstd, MapCompression::None})
        for (NodeId id : {1, 64, 150, 300}) {
            MapViewer viewer = this->viewer(id, compression);
            auto map = read(composer.full(viewer, at(now)), compression);
            ASSERT_TRUE(map.node);
            EXPECT_EQ(map.node->id, id);
            EXPECT_TRUE(map.node->machine_authorized);
            EXPECT_TRUE(map.node->allowed_ips);
            ASSERT_TRUE(map.peers);
            auto peers = ids(*map.peers);
            EXPECT_EQ(peers.size(), 299u);
            EXPECT_TRUE(std::is_sorted(peers.begin(), peers.end()));
            EXPECT_EQ(std::count(peers.begin(), peers.end(), id), 0);
            EXPECT_EQ(map.user_profiles.size(), 1u);
            EXPECT_TRUE(map.packet_filters && map.ssh_policy && map.derp_map && map.dns_config && map.control_time);
        }
}

TEST_F(Composer, ThePolicyAddsRegionsAndTakesThemAway) {
    constexpr const char* kMore = R"({"derpMap": {"Regions": {
        "901": null,
        "902": {"RegionID": 902, "Nodes": [{"Name": "a", "RegionID": 902, "HostName": "relay.example.com"}]}}}})";
    constexpr const char* kOnlyTheirs = R"({"derpMap": {"OmitDefaultRegions": true, "Regions": {
        "7": {"RegionID": 7, "Nodes": [{"Name": "a", "RegionID": 7, "HostName": "relay.example.com"}]}}}})";
    join_some(2);
    use_policy("");
    MapViewer viewer = this->viewer(1);
    EXPECT_THAT(region_ids(read(composer.full(viewer, at(now)))), ElementsAre(900, 901));
    use_policy(kMore);
    EXPECT_THAT(region_ids(read(composer.delta(viewer, at(now)))), ElementsAre(900, 902));
    EXPECT_TRUE(composer.delta(viewer, at(now)).empty());
    use_policy(kOnlyTheirs);
    EXPECT_THAT(region_ids(read(composer.delta(viewer, at(now)))), ElementsAre(7));
    use_policy(R"({"derpMap": {"OmitDefaultRegions": true}})"); // without a region clients would not start
    EXPECT_THAT(region_ids(read(composer.delta(viewer, at(now)))), ElementsAre(900, 901));
}

TEST_F(Composer, SerialisesANodeOnceForAllViewers) {
    join_some(200);
    use_policy("");
    for (NodeId id = 1; id <= 200; ++id) {
        MapViewer viewer = this->viewer(id);
        composer.full(viewer, at(now));
    }
    EXPECT_EQ(composer.counters().nodes_serialised, 200u);
}

TEST_F(Composer, ALonelyNodeGetsNoPeersMember) {
    join_some(1);
    use_policy("");
    MapViewer viewer = this->viewer(1);
    auto map = read(composer.full(viewer, at(now)));
    EXPECT_FALSE(map.peers);
}

TEST_F(Composer, ShowsOnlyWhomThePolicyConnects) {
    join_some(3);
    use_policy(kTwoIslands);
    MapViewer one = viewer(1), two = viewer(2), three = viewer(3);
    EXPECT_THAT(ids(*read(composer.full(one, at(now))).peers), ElementsAre(2));
    EXPECT_THAT(ids(*read(composer.full(two, at(now))).peers), ElementsAre(1));
    EXPECT_FALSE(read(composer.full(three, at(now))).peers);
}

TEST_F(Composer, ThereIsNoNewsWhenNothingHappened) {
    join_some(3);
    use_policy("");
    MapViewer viewer = this->viewer(1);
    composer.full(viewer, at(now));
    EXPECT_TRUE(composer.delta(viewer, at(now)).empty());
    use_policy("");
    EXPECT_TRUE(composer.delta(viewer, at(now)).empty());
}

TEST_F(Composer, TellsOfNewNodesAndOfThoseThatAreGone) {
    join_some(3);
    use_policy("");
    MapViewer viewer = this->viewer(1);
    composer.full(viewer, at(now));
    join_some(1);
    ASSERT_TRUE(tailnet.delete_node(2));
    pass_on();
    use_policy("");
    auto delta = read(composer.delta(viewer, at(now)));
    EXPECT_THAT(ids(delta.peers_changed), ElementsAre(4));
    EXPECT_THAT(delta.peers_removed, ElementsAre(2));
    EXPECT_FALSE(delta.peers);
    EXPECT_TRUE(composer.delta(viewer, at(now)).empty());
}

TEST_F(Composer, AChangeOfPolicyMovesPeersAndFilterOnly) {
    join_some(3);
    use_policy("");
    MapViewer viewer = this->viewer(1);
    composer.full(viewer, at(now));
    use_policy(kTwoIslands);
    auto delta = read(composer.delta(viewer, at(now)));
    EXPECT_THAT(delta.peers_removed, ElementsAre(3));
    EXPECT_TRUE(delta.packet_filters);
    EXPECT_TRUE(delta.peers_changed.empty());
    EXPECT_FALSE(delta.node);
    use_policy("");
    delta = read(composer.delta(viewer, at(now)));
    EXPECT_THAT(ids(delta.peers_changed), ElementsAre(3));
}

TEST_F(Composer, EveryNodeGetsItsOwnFilter) {
    join_some(30);
    use_policy(R"({"acls": [{"action": "accept", "src": ["*"], "dst": ["autogroup:member:22"]}]})");
    for (NodeId id = 1; id <= 30; ++id) {
        MapViewer viewer = this->viewer(id);
        auto map = read(composer.full(viewer, at(now)));
        auto rules = map.packet_filters->at("base");
        ASSERT_TRUE(rules && rules->size() == 1 && !rules->front().dst_ports.empty());
        EXPECT_EQ(rules->front().dst_ports.front().ip, tailnet.node(id)->record.v4.text());
    }
}

TEST_F(Composer, TellsTheLinesOfThePolicyToWhomAsked) {
    join_some(3);
    use_policy(kTwoIslands);
    MapViewer stock = viewer(2), ours = viewer(2);
    ours.wants_lines = true;
    EXPECT_FALSE(read(composer.full(stock, at(now))).policy_lines);
    auto map = read(composer.full(ours, at(now)));
    ASSERT_TRUE(map.policy_lines);
    EXPECT_EQ(*map.policy_lines, (std::vector<wire::RuleLines>{{{3, 0}}}));

    std::string moved = "// one line more\n" + std::string{kTwoIslands};
    use_policy(moved.c_str());
    EXPECT_TRUE(composer.delta(stock, at(now)).empty()) << "a filter that did not change is not sent again";
    auto delta = read(composer.delta(ours, at(now)));
    EXPECT_FALSE(delta.packet_filters) << "nor here";
    EXPECT_EQ(delta.policy_lines, (std::vector<wire::RuleLines>{{{4, 0}}}));

    std::string wider = moved;
    wider.replace(wider.find(":22"), 3, ":23");
    use_policy(wider.c_str());
    EXPECT_TRUE(read(composer.delta(stock, at(now))).packet_filters);
    delta = read(composer.delta(ours, at(now)));
    EXPECT_TRUE(delta.packet_filters);
    EXPECT_EQ(delta.policy_lines, (std::vector<wire::RuleLines>{{{4, 0}}})) << "a new filter comes with its lines";
    join_some(1); // compiled again, nothing else
    use_policy(wider.c_str());
    EXPECT_TRUE(composer.delta(ours, at(now)).empty());
}

TEST_F(Composer, PatchesWhatCanBePatched) {
    join_some(2);
    use_policy("");
    MapViewer viewer = this->viewer(1);
    composer.full(viewer, at(now));
    auto request = machines[1].map_request();
    request.endpoints = {*Endpoint::parse("203.0.113.7:41641")};
    NodePtr before = tailnet.node(2);
    tailnet.on_report(at(now), 2, request);
    pass_on();
    NodeChange change = difference(*before, *tailnet.node(2));
    EXPECT_TRUE(has(change, NodeChange::Endpoints));
    EXPECT_FALSE(has(change, NodeChange::Full));
    viewer.note(2, change);
    auto delta = read(composer.delta(viewer, at(now)));
    EXPECT_TRUE(delta.peers_changed.empty());
    ASSERT_EQ(delta.peers_changed_patch.size(), 1u);
    EXPECT_EQ(delta.peers_changed_patch[0].node_id, 2);
    EXPECT_EQ(delta.peers_changed_patch[0].endpoints, request.endpoints);
    EXPECT_FALSE(delta.peers_changed_patch[0].online);
}

TEST_F(Composer, EqualUpdatesAreOneFrame) {
    join_some(3);
    use_policy("");
    MapViewer one = viewer(1), two = viewer(2);
    composer.full(one, at(now));
    composer.full(two, at(now));
    one.note(3, NodeChange::Online);
    two.note(3, NodeChange::Online);
    auto first = composer.delta(one, at(now)), second = composer.delta(two, at(now));
    ASSERT_EQ(first.size(), 1u);
    EXPECT_EQ(first[0], second[0]);
}

TEST(MapViewerTest, ASlowClientCostsASetAndNoQueue) {
    MapViewer viewer;
    for (int i = 0; i < 100'000; ++i) viewer.note(1 + i % 50, i % 2 == 0 ? NodeChange::Online : NodeChange::Endpoints);
    EXPECT_LT(viewer.changed.size(), 200u);
    viewer.merge_changes();
    EXPECT_EQ(viewer.changed.size(), 50u);
    EXPECT_EQ(viewer.changed[1].first, 2);
}

TEST_F(Composer, ANewUserProfileComesWithItsFirstNode) {
    join_some(1);
    use_policy("");
    MapViewer viewer = this->viewer(1);
    composer.full(viewer, at(now));
    TailnetState::KeyWish wish;
    wish.user = "bob";
    Machine other;
    join(other, make_key(wish));
    pass_on();
    use_policy("");
    auto delta = read(composer.delta(viewer, at(now)));
    ASSERT_EQ(delta.user_profiles.size(), 1u);
    EXPECT_EQ(delta.user_profiles[0].login_name, "bob");
}

TEST_F(Composer, NamesOfAnApplicationAreAskedAtItsConnector) {
    constexpr const char* kApp = R"({
        "nodeAttrs": [{"target": ["*"], "app": {"tailscale.com/app-connectors":
            [{"connectors": ["*"], "domains": ["*.App.example", "other.example"]}]}}],
        "acls": [{"action": "accept", "src": ["*"], "dst": ["autogroup:internet:*"]}]
    })";
    join_some(3);
    use_policy(kApp);
    MapViewer viewer = this->viewer(1);
    EXPECT_TRUE(read(composer.full(viewer, at(now))).dns_config->routes.empty());

    auto says = [&](NodeId id, std::vector<wire::Service> services) {
        auto request = machines[static_cast<std::size_t>(id) - 1].map_request();
        request.hostinfo.value.hostname = "host";
        request.hostinfo.value.app_connector = true;
        request.hostinfo.value.services = std::move(services);
        tailnet.on_report(at(now), id, request);
        bool concerns = false;
        for (const NodeEvent& event : tailnet.take_changes().events) {
            concerns = concerns || concerns_policy(event);
            composer.on_node_event(event);
        }
        EXPECT_TRUE(concerns);
        use_policy(kApp);
    };
    says(2, {});
    auto delta = read(composer.delta(viewer, at(now)));
    EXPECT_FALSE(delta.dns_config) << "it cannot be asked yet";
    says(2, {{"peerapi4", 40002, ""}, {"peerapi6", 40006, ""}});
    delta = read(composer.delta(viewer, at(now)));
    ASSERT_TRUE(delta.dns_config);
    const wire::Resolver second{"http://100.64.0.2:40002/dns-query", {}, true};
    EXPECT_THAT(delta.dns_config->routes, ElementsAre(testing::Pair("app.example", ElementsAre(second)),
                                                      testing::Pair("other.example", ElementsAre(second))));
    MapViewer itself = this->viewer(2);
    EXPECT_TRUE(read(composer.full(itself, at(now))).dns_config->routes.empty());

    says(3, {{"peerapi4", 40003, ""}});
    delta = read(composer.delta(viewer, at(now)));
    ASSERT_TRUE(delta.dns_config);
    EXPECT_EQ(delta.dns_config->routes.at("app.example").size(), 2u);
    EXPECT_TRUE(read(composer.full(itself, at(now))).dns_config->routes.empty()) << "connectors do not ask each other";
}

TEST_F(Composer, AnExpiredNodeSaysSo) {
    join_some(2);
    ASSERT_TRUE(tailnet.expire_node(at(now), 2, at(now)));
    use_policy("");
    MapViewer one = viewer(1), two = viewer(2);
    EXPECT_TRUE(read(composer.full(one, at(1s))).peers->front().expired);
    auto self = read(composer.full(two, at(1s))).node;
    EXPECT_EQ(self->key_expiry, at(0s));
    EXPECT_FALSE(self->machine_authorized);
}

TEST_F(Composer, ANodeThatIsBackAfterItsExpiryIsToldWhole) {
    join_some(2);
    ASSERT_TRUE(tailnet.expire_node(at(now), 2, at(now)));
    use_policy("");
    MapViewer one = viewer(1);
    EXPECT_TRUE(read(composer.full(one, at(1s))).peers->front().expired);
    pass_on();
    machines[1].rotate();
    ASSERT_TRUE(succeeded(join(machines[1], reusable_key())));
    auto events = tailnet.take_changes().events;
    ASSERT_EQ(events.size(), 1u);
    composer.on_node_event(events.front());
    one.note(2, news_of(events.front()).for_peers);
    auto told = read(composer.delta(one, at(1s))).peers_changed; // a patch cannot take "Expired" back
    ASSERT_EQ(told.size(), 1u);
    EXPECT_FALSE(told.front().expired);
    EXPECT_EQ(told.front().key, machines[1].key);
}

TEST_F(Composer, WhoWaitsForApprovalSeesNobodyAndIsSeenByNobody) {
    ask_for_approval();
    join_some(3);
    ASSERT_TRUE(tailnet.approve_node(1));
    ASSERT_TRUE(tailnet.approve_node(2));
    use_policy("");
    MapViewer one = viewer(1), three = viewer(3, MapCompression::None);
    EXPECT_THAT(ids(*read(composer.full(one, at(now))).peers), ElementsAre(2));
    EXPECT_FALSE(composer.knows(3));
    ASSERT_TRUE(composer.has_map_for(3));
    auto map = read(composer.full(three, at(now)), MapCompression::None);
    EXPECT_FALSE(map.node->machine_authorized);
    EXPECT_THAT(*map.peers, ElementsAre());
    EXPECT_THAT(map.packet_filters->at("base").value(), ElementsAre());
    EXPECT_TRUE(map.derp_map->regions); // without any a client does not start
    EXPECT_TRUE(composer.delta(three, at(now)).empty());
    ASSERT_TRUE(tailnet.rename_node(3, "other"));
    pass_on();
    three.self_changed = true;
    EXPECT_EQ(read(composer.delta(three, at(now)), MapCompression::None).node->name, "other.tail.lab.");

    ASSERT_TRUE(tailnet.approve_node(3));
    auto events = tailnet.take_changes().events;
    ASSERT_EQ(events.size(), 1u);
    EXPECT_TRUE(concerns_policy(events.front()));
    EXPECT_TRUE(news_of(events.front()).for_itself);
    composer.on_node_event(events.front());
    EXPECT_TRUE(composer.delta(three, at(now)).empty()); // until there is a policy that knows it
    use_policy("");
    map = read(composer.delta(three, at(now)), MapCompression::None);
    EXPECT_TRUE(map.node->machine_authorized);
    EXPECT_THAT(ids(*map.peers), ElementsAre(1, 2));
    EXPECT_THAT(ids(read(composer.delta(one, at(now))).peers_changed), ElementsAre(3));
}

TEST_F(Composer, KeepAlivesAreAlwaysTheSameBytes) {
    EXPECT_EQ(MapComposer::keep_alive(MapCompression::Zstd), MapComposer::keep_alive(MapCompression::Zstd));
    MapFrameReader reader{MapCompression::Zstd};
    reader.feed(as_bytes(*MapComposer::keep_alive(MapCompression::Zstd)));
    EXPECT_EQ(**reader.next(), R"({"KeepAlive":true})");
}

} // namespace
} // namespace tailrace
