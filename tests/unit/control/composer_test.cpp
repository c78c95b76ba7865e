#include "control/map/composer.hpp"

#include "control/server/policy_input.hpp"
#include "tests/unit/control/tailnet_fixture.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kTwoIslands = R"({
    "tagOwners": {"tag:server": ["alice@"]},
    "acls": [{"action": "accept", "src": ["100.64.0.1"], "dst": ["100.64.0.2:22"]}]
})";

struct Composer : TailnetFixture {
    MapComposer composer{tailnet, {two_regions(), proxied(), "tail.lab"}};
    std::vector<Machine> machines;
    std::shared_ptr<const CompiledPolicy> last;

    static wire::DnsConfig proxied() {
        wire::DnsConfig config;
        config.proxied = true;
        return config;
    }
    static wire::DerpMap two_regions() {
        wire::DerpMap map;
        map.regions.emplace();
        for (int id : {900, 901}) {
            wire::DerpRegion region;
            region.region_id = id;
            region.nodes.emplace_back().region_id = id;
            (*map.regions)[id] = region;
        }
        return map;
    }
    static std::vector<int> region_ids(const wire::MapResponse& map) {
        std::vector<int> out;
        for (const auto& [id, region] : *map.derp_map->regions) out.push_back(region ? id : -id);
        return out;
    }
    void join_some(int count) {
        std::string key = reusable_key();
        for (int i = 0; i < count; ++i) {
            Machine& machine = machines.emplace_back();
            machine.hostname = "host";
            ASSERT_TRUE(succeeded(join(machine, key)));
        }
        pass_on();
    }
    void pass_on() {
        for (const NodeEvent& event : tailnet.take_changes().events) composer.on_node_event(event);
    }
    void use_policy(const char* text) {
        auto document = Document::parse(text);
        ASSERT_TRUE(document) << document.error().message();
        composer.set_policy(
            compile_for(std::make_shared<const Document>(std::move(*document)), tailnet.snapshot(), last));
    }
    static std::string text_of(const FramePieces& pieces) {
        std::string body;
        for (const SharedText& piece : pieces) body += *piece;
        return body;
    }
    wire::MapResponse read(const FramePieces& pieces, MapCompression compression = MapCompression::Zstd) {
        MapFrameReader reader{compression};
        reader.feed(as_bytes(text_of(pieces)));
        auto json = reader.next();
        EXPECT_TRUE(json) << json.error().message();
        EXPECT_TRUE(json && json->has_value());
        if (!json || !*json) return {};
        auto response = wire::parse_map_response(**json);
        EXPECT_TRUE(response) << response.error().message() << "\n" << **json;
        auto more = reader.next();
        EXPECT_TRUE(more && !more->has_value());
        return response ? *response : wire::MapResponse{};
    }
    static std::vector<NodeId> ids(const std::vector<wire::Node>& nodes) {
        std::vector<NodeId> out;
        for (const wire::Node& node : nodes) out.push_back(node.id);
        return out;
    }
    MapViewer viewer(NodeId id, MapCompression compression = MapCompression::Zstd) {
        MapViewer viewer;
        viewer.id = id;
        viewer.compression = compression;
        return viewer;
    }
};

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

TEST_F(Composer, RoutesAreShownWhenOfferedApprovedAndUsable) {
    join_some(2);
    auto request = machines[1].map_request();
    request.hostinfo.value.hostname = "host";
    request.hostinfo.value.routable_ips = {*IpPrefix::parse("10.7.0.0/24")};
    tailnet.on_report(at(now), 2, request);
    use_policy("");
    MapViewer viewer = this->viewer(1);
    auto map = read(composer.full(viewer, at(now)));
    EXPECT_EQ(map.peers->front().allowed_ips->size(), 2u);
    ASSERT_TRUE(tailnet.approve_routes(at(now), 2, {*IpPrefix::parse("10.7.0.0/24")}, Approval::Person));
    pass_on();
    use_policy("");
    auto delta = read(composer.delta(viewer, at(now)));
    ASSERT_EQ(delta.peers_changed.size(), 1u);
    EXPECT_EQ(delta.peers_changed[0].allowed_ips->size(), 3u);
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

/// Two routers of one prefix, and a viewer with each.
struct ComposerWithRouters : Composer {
    const IpPrefix route = *IpPrefix::parse("10.7.0.0/24");
    RouterStandings standings;
    std::shared_ptr<const RegionOfNode> regions; ///< null: all have the primary

    void SetUp() override {
        Composer::SetUp();
        join_some(4);
        for (NodeId id : {2, 3}) {
            auto request = machines[static_cast<std::size_t>(id - 1)].map_request();
            request.hostinfo.value.hostname = "host";
            request.hostinfo.value.routable_ips = {route};
            tailnet.on_report(at(now), id, request);
            tailnet.on_stream_begin(at(now), id, request);
            ASSERT_TRUE(tailnet.approve_routes(at(now), id, {route}, Approval::Person));
        }
        pass_on();
    }
    void compile(const char* text = "") {
        auto document = Document::parse(text);
        ASSERT_TRUE(document) << document.error().message();
        composer.set_policy(compile_for(std::make_shared<const Document>(std::move(*document)), tailnet.snapshot(),
                                        composer.policy(), standings, regions));
        for (const TailnetNode& node : composer.policy()->tailnet().nodes)
            tailnet.set_primary_routes(node.id, node.primaries);
        pass_on();
    }
    bool carries(const wire::Node& node) const {
        return std::count(node.allowed_ips->begin(), node.allowed_ips->end(), route) == 1;
    }
    std::vector<NodeId> carriers(const std::vector<wire::Node>& nodes) const {
        std::vector<NodeId> out;
        for (const wire::Node& node : nodes)
            if (carries(node)) out.push_back(node.id);
        return out;
    }
};

TEST_F(ComposerWithRouters, EachRegionIsGivenItsOwnRouter) {
    join_some(2); // 5 and 6
    pass_on();
    regions = std::make_shared<const RegionOfNode>(RegionOfNode{{1, 900}, {2, 900}, {3, 901}, {4, 901}, {5, 901}});
    compile();
    auto serialised = composer.counters().nodes_serialised;
    MapViewer one = viewer(1), two = viewer(2), three = viewer(3), four = viewer(4), five = viewer(5), six = viewer(6);
    auto carriers_for = [&](MapViewer& viewer) { return carriers(*read(composer.full(viewer, at(now))).peers); };
    EXPECT_THAT(carriers_for(one), ElementsAre(2));
    EXPECT_THAT(carriers_for(four), ElementsAre(3));
    EXPECT_THAT(carriers_for(five), ElementsAre(3));
    EXPECT_THAT(carriers_for(six), ElementsAre(2)) << "its region is not known: the primary";
    EXPECT_EQ(composer.counters().nodes_serialised - serialised, 4u + 2 * 2u)
        << "each router in two ways, all else once";
    for (auto* router : {&two, &three}) {
        auto map = read(composer.full(*router, at(now)));
        EXPECT_THAT(carriers(*map.peers), ElementsAre()) << "it carries the route itself";
        EXPECT_THAT(map.node->primary_routes, ElementsAre(route));
    }
    auto seen = read(composer.full(four, at(now)));
    for (const wire::Node& node : *seen.peers)
        EXPECT_EQ(node.primary_routes, carries(node) ? std::vector{route} : std::vector<IpPrefix>{}) << node.id;

    compile();
    for (auto* viewer : {&one, &two, &three, &four}) EXPECT_TRUE(composer.delta(*viewer, at(now)).empty());
    standings[3] = {false, true};
    compile();
    auto delta = read(composer.delta(four, at(now)));
    EXPECT_THAT(ids(delta.peers_changed), ElementsAre(2, 3));
    EXPECT_THAT(carriers(delta.peers_changed), ElementsAre(2));
    EXPECT_TRUE(composer.delta(one, at(now)).empty()) << "it is not concerned";
    EXPECT_TRUE(read(composer.delta(three, at(now))).node->primary_routes.empty());
    standings[3] = {true, false};
    compile();
    EXPECT_TRUE(composer.delta(four, at(now)).empty()) << "on probation";
    standings[3] = {true, true};
    compile();
    EXPECT_THAT(carriers(read(composer.delta(four, at(now))).peers_changed), ElementsAre(3));
    EXPECT_TRUE(composer.delta(one, at(now)).empty());

    regions = std::make_shared<const RegionOfNode>(RegionOfNode{{1, 901}, {2, 900}, {3, 901}, {4, 901}, {5, 901}});
    compile();
    EXPECT_THAT(carriers(read(composer.delta(one, at(now))).peers_changed), ElementsAre(3)) << "its home has moved";
    regions = nullptr;
    compile();
    EXPECT_THAT(carriers(read(composer.delta(four, at(now))).peers_changed), ElementsAre(2)) << "one for all again";
}

TEST_F(ComposerWithRouters, ARouteMovesInOneFrameAndDoesNotComeBack) {
    compile();
    MapViewer one = viewer(1), two = viewer(2);
    EXPECT_THAT(carriers(*read(composer.full(one, at(now))).peers), ElementsAre(2));
    EXPECT_THAT(read(composer.full(two, at(now))).node->primary_routes, ElementsAre(route));
    standings[2] = {false, true};
    compile();
    auto delta = read(composer.delta(one, at(now)));
    EXPECT_THAT(ids(delta.peers_changed), ElementsAre(2, 3));
    EXPECT_THAT(carriers(delta.peers_changed), ElementsAre(3));
    EXPECT_FALSE(delta.peers || delta.node || delta.packet_filters);
    auto self = read(composer.delta(two, at(now))).node;
    ASSERT_TRUE(self) << "it has lost the primary and must know";
    EXPECT_TRUE(self->primary_routes.empty());
    EXPECT_TRUE(carries(*self)) << "its own view keeps what is approved";
    standings[2] = {true, true};
    compile();
    EXPECT_TRUE(composer.delta(one, at(now)).empty());
    standings[3] = {false, true};
    compile();
    EXPECT_THAT(carriers(read(composer.delta(one, at(now))).peers_changed), ElementsAre(2));
}

TEST_F(ComposerWithRouters, ARouterOnProbationIsTakenOnlyWhenNobodyElseIsThere) {
    standings = {{2, {true, false}}, {3, {true, true}}};
    compile();
    MapViewer one = viewer(1);
    EXPECT_THAT(carriers(*read(composer.full(one, at(now))).peers), ElementsAre(3));
    standings[3] = {false, true};
    compile();
    EXPECT_THAT(carriers(read(composer.delta(one, at(now))).peers_changed), ElementsAre(2));
    standings[3] = {true, true};
    compile();
    EXPECT_TRUE(composer.delta(one, at(now)).empty()) << "and then it keeps the route while it is there";
}

TEST_F(ComposerWithRouters, WithoutAnyRouterTheRouteStaysWhereItWas) {
    compile();
    MapViewer one = viewer(1);
    composer.full(one, at(now));
    standings = {{2, {false, true}}, {3, {false, true}}};
    compile();
    EXPECT_TRUE(composer.delta(one, at(now)).empty());
}

TEST_F(ComposerWithRouters, AGroupOfRoutersKeepsItsLeaderToo) {
    ASSERT_TRUE(tailnet.tag_node(2, {"tag:server"}));
    ASSERT_TRUE(tailnet.tag_node(3, {"tag:server"}));
    constexpr const char* kVia = R"({
        "tagOwners": {"tag:server": ["alice@"]},
        "grants": [{"src": ["alice@"], "dst": ["10.7.0.0/24"], "ip": ["*"], "via": ["tag:server"]}]})";
    compile(kVia);
    MapViewer one = viewer(1);
    EXPECT_THAT(carriers(*read(composer.full(one, at(now))).peers), ElementsAre(2));
    standings[2] = {false, true};
    compile(kVia);
    EXPECT_THAT(carriers(read(composer.delta(one, at(now))).peers_changed), ElementsAre(3));
    standings[2] = {true, true};
    tailnet.on_router_back(at(60s), 2, 1);
    compile(kVia);
    EXPECT_TRUE(composer.delta(one, at(now)).empty());
}

TEST_F(ComposerWithRouters, WhoOffersNothingAnyMoreKeepsItsApprovalButNotTheRoute) {
    compile();
    MapViewer one = viewer(1);
    composer.full(one, at(now));
    auto request = machines[1].map_request();
    request.hostinfo.value.hostname = "host";
    tailnet.on_report(at(now), 2, request);
    pass_on();
    compile();
    EXPECT_THAT(carriers(read(composer.delta(one, at(now))).peers_changed), ElementsAre(3));
    EXPECT_THAT(tailnet.node(2)->record.approved_routes, ElementsAre(route));
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
