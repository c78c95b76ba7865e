#include "control/routes/route_rules.hpp"
#include "control/routes/route_watch.hpp"
#include "control/server/policy_input.hpp"
#include "tests/unit/control/tailnet_fixture.hpp"

#include <gmock/gmock.h>

namespace tailrace {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

IpPrefix net(const char* text) {
    return *IpPrefix::parse(text);
}

struct Routes : TailnetFixture {
    Machine machine;
    void SetUp() override {
        TailnetFixture::SetUp();
        ASSERT_TRUE(succeeded(join(machine, reusable_key())));
    }
    NodeId id() { return node_of(machine)->id(); }
    const NodeRecord& record() { return node_of(machine)->record; }
    Result<void> approve(std::vector<IpPrefix> routes, Approval by = Approval::Person) {
        return tailnet.approve_routes(at(now), id(), std::move(routes), by);
    }
    Result<void> revoke(std::vector<IpPrefix> routes) {
        return tailnet.revoke_routes(at(now), id(), std::move(routes));
    }
    void offer(std::vector<IpPrefix> routes) {
        auto request = machine.map_request();
        request.hostinfo.value.hostname = "laptop";
        request.hostinfo.value.routable_ips = std::move(routes);
        tailnet.on_report(at(now), id(), request);
    }
};

TEST(RouteRules, HostBitsAndNonsenseAreExplained) {
    EXPECT_EQ(*parse_route(" 10.0.0.0/8"), net("10.0.0.0/8"));
    EXPECT_THAT(parse_route("10.1.2.3/24").error().message(), HasSubstr("the route is 10.1.2.0/24"));
    for (const char* bad : {"", "10.0.0.0", "10.0.0.0/33", "office", "10.0.0.0/8,10.1.0.0/16"})
        EXPECT_THAT(parse_route(bad).error().message(), HasSubstr("is not a route")) << bad;
}

TEST_F(Routes, ExitRoutesComeInPairs) {
    ASSERT_TRUE(approve({net("::/0")}));
    EXPECT_THAT(record().approved_routes, ElementsAre(net("0.0.0.0/0"), net("::/0")));
    ASSERT_TRUE(revoke({net("0.0.0.0/0")}));
    EXPECT_THAT(record().approved_routes, IsEmpty());
}

TEST_F(Routes, NobodyCanTakeTheAddressesOfNodes) {
    for (const char* bad : {"100.64.0.0/10", "100.64.0.7/32", "fd7a:115c:a1e0::/48", "fd7a:115c:a1e0::7/128",
                            "224.0.0.0/8", "127.0.0.0/8", "fe80::/64"}) {
        EXPECT_THAT(approve({net(bad)}).error().message(), HasSubstr("can't be approved")) << bad;
        EXPECT_TRUE(approve({net(bad)}, Approval::Policy));
    }
    EXPECT_THAT(record().approved_routes, IsEmpty());
    for (const char* good : {"fd7a:115c:a1e0:b1a:0:7:a00:0/104", "100.0.0.0/8", "0.0.0.0/0", "203.0.113.1/32"})
        EXPECT_TRUE(approve({net(good)})) << good;
}

TEST_F(Routes, APersonsWordStandsAboveThePolicys) {
    ASSERT_TRUE(approve({net("10.0.0.0/8"), net("10.1.0.0/16")}, Approval::Policy));
    EXPECT_THAT(record().policy_routes, ElementsAre(net("10.0.0.0/8"), net("10.1.0.0/16")));
    ASSERT_TRUE(approve({net("10.1.0.0/16")}));
    EXPECT_THAT(record().policy_routes, ElementsAre(net("10.0.0.0/8"))) << "approved by hand now";
    ASSERT_TRUE(revoke({net("10.0.0.0/8")}));
    ASSERT_TRUE(approve({net("10.0.0.0/8")}, Approval::Policy));
    EXPECT_THAT(record().approved_routes, ElementsAre(net("10.1.0.0/16"))) << "the policy does not bring it back";
    ASSERT_TRUE(approve({net("10.0.0.0/8")}));
    EXPECT_THAT(record().approved_routes, ElementsAre(net("10.0.0.0/8"), net("10.1.0.0/16")));
    EXPECT_THAT(record().revoked_routes, IsEmpty());
    EXPECT_THAT(revoke({net("172.16.0.0/12")}).error().message(), HasSubstr("172.16.0.0/12 is not approved"));
}

TEST_F(Routes, WhatIsApprovedIsInForceWhileItIsOffered) {
    ASSERT_TRUE(approve({net("10.0.0.0/8"), net("10.1.0.0/16")}));
    offer({net("10.1.0.0/16"), net("10.2.0.0/16")});
    EXPECT_THAT(routes_in_force(*node_of(machine)), ElementsAre(net("10.1.0.0/16")));
    offer({});
    EXPECT_THAT(routes_in_force(*node_of(machine)), IsEmpty());
    EXPECT_EQ(record().approved_routes.size(), 2u);
}

TEST_F(Routes, AnOfferIsCleanedAndBounded) {
    std::vector<IpPrefix> many{IpPrefix{}, IpPrefix{*IpAddress::parse("10.0.0.9"), 24}, net("10.0.0.0/24")};
    offer(many);
    EXPECT_THAT(node_of(machine)->report.routable_ips, ElementsAre(net("10.0.0.0/24")));
    many.clear();
    for (std::uint32_t i = 0; i < 100'000; ++i) many.push_back(IpPrefix{IpAddress::v4(0x0a000000 + i), 32});
    offer(many);
    EXPECT_EQ(node_of(machine)->report.routable_ips.size(), kMostRoutes);
    ASSERT_TRUE(approve(node_of(machine)->report.routable_ips));
    EXPECT_FALSE(approve({net("192.168.0.0/24")})) << "and so is what is approved";
}

TEST_F(Routes, APrimaryIsKeptOverARestart) {
    Machine other;
    ASSERT_TRUE(succeeded(join(other, reusable_key())));
    for (const Machine& one : {machine, other}) {
        auto request = one.map_request();
        request.hostinfo.value.routable_ips = {net("10.0.0.0/8")};
        tailnet.on_report(at(now), node_of(one)->id(), request);
        tailnet.on_stream_begin(at(now), node_of(one)->id(), request);
        ASSERT_TRUE(tailnet.approve_routes(at(now), node_of(one)->id(), {net("10.0.0.0/8")}, Approval::Person));
    }
    tailnet.set_primary_routes(node_of(other)->id(), {net("10.0.0.0/8")});
    StoredTailnet stored;
    for (const auto& [id, node] : tailnet.nodes()) stored.nodes.push_back(*node);
    TailnetState again{settings(), stored, owners, at(now)};
    Tailnet compiled = policy_tailnet(*again.snapshot());
    choose_primaries(compiled);
    EXPECT_THAT(compiled.nodes[0].primaries, IsEmpty());
    EXPECT_THAT(compiled.nodes[1].primaries, ElementsAre(net("10.0.0.0/8")));
}

TEST_F(Routes, TheRouterOfARegionIsKeptOverARestart) {
    Machine other;
    ASSERT_TRUE(succeeded(join(other, reusable_key())));
    for (const Machine& one : {machine, other}) {
        auto request = one.map_request();
        request.hostinfo.value.routable_ips = {net("10.0.0.0/8")};
        tailnet.on_report(at(now), node_of(one)->id(), request);
        tailnet.on_stream_begin(at(now), node_of(one)->id(), request);
        ASSERT_TRUE(tailnet.approve_routes(at(now), node_of(one)->id(), {net("10.0.0.0/8")}, Approval::Person));
    }
    const NodeId first = node_of(machine)->id(), second = node_of(other)->id();
    // Both are in the region; the second has its clients, for the first was gone for a while.
    auto regions = std::make_shared<const RegionOfNode>(RegionOfNode{{first, 900}, {second, 900}});
    auto chosen = [&](TailnetState& state) {
        auto document = Document::parse("{}");
        auto compiled =
            compile_for(std::make_shared<const Document>(std::move(*document)), state.snapshot(), nullptr, {}, regions);
        return compiled->tailnet().regional.at(net("10.0.0.0/8")).at(900);
    };
    EXPECT_EQ(chosen(tailnet), first);
    tailnet.set_regional_routes(second, {{net("10.0.0.0/8"), {900}}});
    EXPECT_EQ(chosen(tailnet), second);
    StoredTailnet stored;
    for (const auto& [id, node] : tailnet.nodes()) stored.nodes.push_back(*node);
    TailnetState again{settings(), stored, owners, at(now)};
    EXPECT_EQ(chosen(again), second);
}

TEST_F(Routes, WhoHasGoneAndComesBackIsRemembered) {
    tailnet.on_router_gone(id());
    EXPECT_TRUE(record().router_gone);
    tailnet.on_router_back(at(now), id(), 2);
    EXPECT_FALSE(record().router_gone);
    EXPECT_EQ(record().router_falls, 2);
    EXPECT_EQ(record().router_since, at(now));
}

TEST(Witness, OnlyARelayOrTheInternetIsProof) {
    wire::PingResponse answer;
    EXPECT_FALSE(is_proof(answer));
    answer.derp_region_id = 900;
    EXPECT_TRUE(is_proof(answer));
    answer.err = "timeout";
    EXPECT_FALSE(is_proof(answer));
    answer = {};
    for (const char* local : {"192.168.1.2:41641", "10.0.0.1:1", "[fe80::1]:1", "127.0.0.1:1", "rubbish"}) {
        answer.endpoint = local;
        EXPECT_FALSE(is_proof(answer)) << local;
    }
    answer.endpoint = "203.0.113.7:41641";
    EXPECT_TRUE(is_proof(answer));
}

} // namespace
} // namespace tailrace
