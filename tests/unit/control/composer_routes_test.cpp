// Which router each viewer is given for a route.
#include "tests/unit/control/composer_fixture.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;

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

} // namespace
} // namespace tailrace
