#include "agent/engine/wanted.hpp"
#include "tests/unit/addresses.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Not;

wire::Node node(wire::NodeId id, std::vector<IpPrefix> allowed) {
    wire::Node out;
    out.id = id;
    out.stable_id = std::to_string(id);
    out.key = NodeKey{std::array<std::byte, 32>{static_cast<std::byte>(id), static_cast<std::byte>(id >> 8)}};
    out.disco_key = DiscoKey{std::array<std::byte, 32>{static_cast<std::byte>(id), static_cast<std::byte>(id >> 8)}};
    out.addresses = {IpPrefix::single(IpAddress::v4(0x64400000u + static_cast<std::uint32_t>(id)))};
    allowed.push_back(out.addresses[0]);
    out.allowed_ips = allowed;
    return out;
}

Wanted wanted(const std::vector<wire::Node>& peers, const Prefs& prefs, const std::vector<HostNetwork>& networks = {}) {
    std::vector<const wire::Node*> list;
    for (const wire::Node& peer : peers) list.push_back(&peer);
    return compute_wanted(node(1, {}), list, prefs, networks, WallTime::now());
}

TEST(Wanted, TakesSubnetRoutesOnlyWhenAsked) {
    Prefs prefs;
    auto router = node(2, {prefix("10.7.0.0/24")});
    EXPECT_THAT(wanted({router}, prefs).peers[0].allowed_ips, ElementsAre(prefix("100.64.0.2/32")));
    prefs.route_all = true;
    EXPECT_THAT(wanted({router}, prefs).peers[0].allowed_ips, Contains(prefix("10.7.0.0/24")));
    EXPECT_THAT(wanted({router}, prefs).router.routes, Contains(prefix("10.7.0.0/24")));
}

TEST(Wanted, LeavesTheNetworksOfTheHostAloneUnlessAsked) {
    Prefs prefs;
    prefs.route_all = true;
    auto router = node(2, {prefix("10.0.0.0/8"), prefix("192.168.1.0/24"), prefix("192.168.1.7/32")});
    const std::vector<HostNetwork> networks = {{prefix("192.168.1.5/24"), false, "eth0"},
                                               {prefix("10.1.2.3/24"), false, "eth1"}};
    auto result = wanted({router}, prefs, networks);
    EXPECT_THAT(result.router.routes, Contains(prefix("10.0.0.0/8")));
    EXPECT_THAT(result.router.routes, Not(Contains(prefix("192.168.1.0/24"))));
    EXPECT_THAT(result.router.routes, Not(Contains(prefix("192.168.1.7/32"))));
    EXPECT_THAT(result.router.throw_routes, ElementsAre(prefix("10.1.2.0/24"), prefix("192.168.1.0/24")));
    EXPECT_THAT(result.notes, testing::SizeIs(3));
    EXPECT_TRUE(result.forwarding.answer_as_asked);

    prefs.routes_over_lan = true;
    result = wanted({router}, prefs, networks);
    EXPECT_THAT(result.router.routes, Contains(prefix("192.168.1.7/32")));
    EXPECT_THAT(result.router.throw_routes, IsEmpty());
    EXPECT_FALSE(result.forwarding.answer_as_asked);

    prefs.exit_node_id = "3"; // goes by the exit node, unless that is allowed
    result = wanted({router}, prefs, networks);
    EXPECT_THAT(result.router.routes, Contains(prefix("192.168.1.0/24")));
    prefs.exit_node_allow_lan_access = true;
    result = wanted({router}, prefs, networks);
    EXPECT_THAT(result.router.routes, Not(Contains(prefix("192.168.1.7/32"))));
    EXPECT_THAT(result.router.throw_routes, ElementsAre(prefix("10.1.2.0/24"), prefix("192.168.1.0/24")));
    EXPECT_FALSE(result.forwarding.answer_as_asked) << "nothing leaves past an exit node";
}

TEST(Wanted, GivesTheInternetOnlyToTheChosenExitNode) {
    Prefs prefs;
    prefs.exit_node_id = "3";
    auto all = std::vector<IpPrefix>{prefix("0.0.0.0/0"), prefix("::/0")};
    auto result = wanted({node(2, all), node(3, all)}, prefs);
    EXPECT_THAT(result.peers[0].allowed_ips, Not(Contains(prefix("0.0.0.0/0"))));
    EXPECT_THAT(result.peers[1].allowed_ips, Contains(prefix("0.0.0.0/0")));
}

TEST(Wanted, RoutesNowhereRatherThanPastAMissingExitNode) {
    Prefs prefs;
    prefs.exit_node_id = "gone";
    EXPECT_THAT(wanted({}, prefs).router.routes, Contains(prefix("0.0.0.0/0")));
}

TEST(Wanted, JoinsTheAddressesOfPeersWhenControlSaysSo) {
    const auto range = prefix("100.64.0.0/10");
    auto routes = [](std::initializer_list<const char*> attributes, wire::NodeId peers) {
        wire::Node self = node(1, {});
        for (const char* name : attributes) self.cap_map[name];
        std::vector<wire::Node> nodes;
        for (wire::NodeId id = 2; id < 2 + peers; ++id) nodes.push_back(node(id, {}));
        std::vector<const wire::Node*> list;
        for (const wire::Node& one : nodes) list.push_back(&one);
        return compute_wanted(self, list, {}, {}, WallTime::now()).router.routes;
    };
    EXPECT_THAT(routes({}, 3), Not(Contains(range)));
    EXPECT_THAT(routes({"one-cgnat?v=false"}, 3), Contains(prefix("100.64.0.3/32")));
    auto joined = routes({"one-cgnat?v=true"}, 3);
    EXPECT_THAT(joined, Contains(range));
    EXPECT_THAT(joined, Not(Contains(prefix("100.64.0.3/32"))));
    EXPECT_THAT(routes({"one-cgnat?v=true"}, 1), Contains(prefix("100.64.0.2/32"))) << "one is no crowd";
}

TEST(Wanted, JoinsTheAddressesOfMoreThanTenThousandPeers) {
    std::vector<wire::Node> peers;
    for (wire::NodeId id = 2; id < 10002; ++id) peers.push_back(node(id, {}));
    EXPECT_THAT(wanted(peers, {}).router.routes, Not(Contains(prefix("100.64.0.0/10"))));
    peers.push_back(node(10002, {}));
    auto routes = wanted(peers, {}).router.routes;
    EXPECT_THAT(routes, Contains(prefix("100.64.0.0/10")));
    EXPECT_LT(routes.size(), 5u);
}

TEST(Wanted, LeavesOutPeersThatCannotBeReached) {
    auto expired = node(2, {});
    expired.expired = true;
    auto homeless = node(3, {});
    homeless.disco_key = DiscoKey{};
    EXPECT_THAT(wanted({expired, homeless}, Prefs{}).peers, IsEmpty());
}

TEST(Wanted, GivesAPrefixToTheLowestId) {
    Prefs prefs;
    prefs.route_all = true;
    auto result = wanted({node(3, {prefix("10.0.0.0/8")}), node(2, {prefix("10.0.0.0/8")})}, prefs);
    ASSERT_EQ(result.peers.size(), 2u);
    EXPECT_THAT(result.peers[0].allowed_ips, Contains(prefix("10.0.0.0/8")));
    EXPECT_THAT(result.peers[1].allowed_ips, Not(Contains(prefix("10.0.0.0/8"))));
}

TEST(ShrinkDefaultRoute, KeepsTheInternetAndDropsTheLan) {
    auto nets = shrink_default_route(false, {{prefix("203.0.113.5/24"), false}});
    auto inside = [&](const char* address) {
        return std::ranges::any_of(nets, [&](const IpPrefix& net) { return net.contains(*IpAddress::parse(address)); });
    };
    EXPECT_TRUE(inside("8.8.8.8"));
    EXPECT_TRUE(inside("203.0.113.5"));  // this host itself
    EXPECT_FALSE(inside("203.0.113.6")); // its neighbours
    EXPECT_FALSE(inside("192.168.0.1"));
    EXPECT_FALSE(inside("100.64.0.9"));
}

TEST(LocalNets, RoutesStandAsTheyAre) {
    Prefs prefs;
    prefs.advertise_routes = {prefix("10.33.0.0/16"), prefix("10.33.4.0/24"), prefix("169.254.169.254/32")};
    EXPECT_THAT(local_nets({prefix("100.64.0.1/32")}, prefs, {}),
                ElementsAre(prefix("10.33.0.0/16"), prefix("100.64.0.1/32"), prefix("169.254.169.254/32")));
}

TEST(LocalNets, LoopbackIsNeverAmongThem) {
    Prefs prefs;
    prefs.advertise_routes = {prefix("0.0.0.0/0"), prefix("::/0"), prefix("127.0.0.0/16"), prefix("126.0.0.0/7")};
    auto nets =
        local_nets({prefix("100.64.0.1/32")}, prefs, {{prefix("127.0.0.1/8"), true}, {prefix("::1/128"), true}});
    for (const IpPrefix& net : nets) {
        EXPECT_FALSE(net.overlaps(prefix("127.0.0.0/8"))) << net.text();
        EXPECT_FALSE(net.contains(*IpAddress::parse("::1"))) << net.text();
    }
    EXPECT_TRUE(std::ranges::any_of(nets, [](auto& net) { return net.contains(*IpAddress::parse("126.0.0.1")); }));
}

TEST(Wanted, ClosesTheWayPastTheTunnelWhileAnExitNodeIsChosen) {
    Prefs prefs;
    EXPECT_FALSE(wanted({}, prefs).router.closed);
    for (auto choose : {&Prefs::exit_node_id, &Prefs::exit_node_ip, &Prefs::auto_exit_node}) {
        Prefs chosen;
        chosen.*choose = "auto:any";
        EXPECT_TRUE(wanted({}, chosen).router.closed);
    }
}

TEST(Wanted, MasqueradesOnlyWhatARouterForwards) {
    Prefs prefs;
    EXPECT_FALSE(wanted({}, prefs).forwarding.masquerade);
    EXPECT_FALSE(wanted({}, prefs).forwarding.keep_marks);
    prefs.advertise_routes = {{prefix("10.7.0.0/24")}};
    EXPECT_TRUE(wanted({}, prefs).forwarding.masquerade);
    prefs.no_snat = true;
    EXPECT_FALSE(wanted({}, prefs).forwarding.masquerade);
    EXPECT_FALSE(wanted({}, prefs).forwarding.stateful);
    prefs.no_stateful_filtering = false;
    EXPECT_TRUE(wanted({}, prefs).forwarding.stateful);
    prefs.exit_node_id = "3";
    EXPECT_TRUE(wanted({}, prefs).forwarding.keep_marks);
}

TEST(Wanted, LetsInForgedTailnetSourcesOnlyWhereControlSaysSo) {
    wire::Node self = node(1, {});
    auto drops = [&] { return compute_wanted(self, {}, Prefs{}, {}, WallTime::now()).forwarding.drop_spoofed; };
    EXPECT_TRUE(drops());
    self.cap_map["disable-linux-cgnat-drop-rule"];
    EXPECT_FALSE(drops());
}

TEST(Wanted, HasAnEndToTheRoutesThatItTakes) {
    Prefs prefs;
    prefs.route_all = true;
    std::vector<IpPrefix> many;
    for (std::uint32_t i = 0; i < 30000; ++i) many.push_back(IpPrefix{IpAddress::v4(0x0a000000u + (i << 4)), 28});
    auto result = wanted({node(2, many)}, prefs);
    EXPECT_EQ(result.peers[0].allowed_ips.size(), 20001u); // and its own address
    EXPECT_THAT(result.notes, Contains(testing::HasSubstr("only 20000 are in force, 10000 are too many")));
}

TEST(Wanted, SaysThatAnAcceptedRouteCoversOurNetwork) {
    Prefs prefs;
    auto router = node(2, {prefix("192.168.0.0/16")});
    EXPECT_THAT(wanted({router}, prefs, {{prefix("192.168.1.5/24"), false, "eth0"}}).notes, IsEmpty());
    prefs.route_all = true;
    EXPECT_THAT(wanted({router}, prefs, {{prefix("192.168.1.5/24"), false, "eth0"}}).notes,
                Contains(testing::HasSubstr("covers the network 192.168.1.0/24 of eth0")));
}

TEST(Wanted, KeepsTheServiceAddressesForThisHost) {
    const IpPrefix v4 = prefix("100.100.100.100/32"), v6 = prefix("fd7a:115c:a1e0::53/128");
    auto self = node(1, {});
    EXPECT_THAT(compute_wanted(self, {}, Prefs{}, {}, WallTime::now()).router.quiet_addresses, ElementsAre(v4));
    self.addresses.push_back(prefix("fd7a:115c:a1e0::1/128"));
    Prefs prefs;
    prefs.advertise_routes = {prefix("100.64.0.0/10"), prefix("fd7a:115c:a1e0::/48")};
    auto greedy = node(2, {v4, v6});
    auto out = compute_wanted(self, {&greedy}, prefs, {}, WallTime::now());
    EXPECT_THAT(out.router.quiet_addresses, ElementsAre(v4, v6));
    EXPECT_THAT(out.peers.at(0).allowed_ips, ElementsAre(prefix("100.64.0.2/32"))) << "a peer is not one of them";
    for (const IpPrefix& local : out.local_nets)
        EXPECT_FALSE(local.contains(v4) || local.contains(v6)) << local.text() << " lets peers ask";
}

TEST(Wanted, TranslatesViaRoutesThatAreOffered) {
    const IpPrefix offered = prefix("fd7a:115c:a1e0:b1a:0:7:a01:0/112");
    Prefs prefs;
    prefs.advertise_routes = {offered, prefix("10.1.0.0/16"), prefix("fd00:7::/64")};
    auto self = node(1, {prefix("10.1.0.0/16")}); // what Headscale tells a router of its own routes is not all
    self.addresses.push_back(prefix("fd7a:115c:a1e0::1/128"));
    auto both = node(2, {}), old = node(3, {});
    both.addresses.push_back(prefix("fd7a:115c:a1e0::2/128"));
    both.allowed_ips->push_back(both.addresses[1]);
    auto via = [&] { return compute_wanted(self, {&both, &old}, prefs, {}, WallTime::now()).via; };
    EXPECT_THAT(via().nets, ElementsAre(offered));
    EXPECT_EQ(via().own4.text(), "100.64.0.1");
    EXPECT_EQ(via().own6.text(), "fd7a:115c:a1e0::1");
    EXPECT_THAT(via().peers, ElementsAre(std::pair{both.addresses[1].address(), both.addresses[0].address()}));
    prefs.advertise_routes = {prefix("10.1.0.0/16")};
    EXPECT_THAT(via().nets, IsEmpty());
}

} // namespace
} // namespace tailrace
