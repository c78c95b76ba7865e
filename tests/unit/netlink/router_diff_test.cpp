#include "netlink/router.hpp"
#include "tests/unit/addresses.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tailrace {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr int kDevice = 7;
const Ipv6Support kIpv6{true, {}, true};
const Ipv6Support kNoIpv6{false, "the kernel has none"};
const Ipv6Support kIpv6ElsewhereOnly{false, "switched off", true};

RouterConfig config() {
    RouterConfig config;
    config.addresses = {prefix("100.64.0.1/32"), prefix("fd7a:115c:a1e0::1/128")};
    config.routes = {prefix("100.64.0.2/32"), prefix("fd7a:115c:a1e0::/48")};
    config.throw_routes = {prefix("127.0.0.0/8")};
    return config;
}

/// What there is once `wanted` stands.
RouterState state_of(const RouterConfig& wanted) {
    RouterState state;
    state.addresses = wanted.addresses;
    for (const auto& route : wanted.routes) state.routes.push_back({route, RouteType::Unicast, kDevice});
    for (const auto& route : wanted.throw_routes) state.routes.push_back({route, RouteType::Throw, 0});
    for (bool v6 : {false, true})
        for (const auto& rule : tailnet_rules(v6)) state.rules.push_back(rule);
    return state;
}

TEST(RouterDiff, BuildsEverythingFromNothing) {
    auto changes = diff({}, config(), kDevice, kIpv6);
    EXPECT_THAT(changes.add_addresses, SizeIs(2));
    EXPECT_THAT(changes.add_routes, SizeIs(3));
    EXPECT_THAT(changes.add_rules, SizeIs(8));
    EXPECT_EQ(changes.size(), 13u);
}

TEST(RouterDiff, FindsNothingToDoWhereAllIsRight) {
    EXPECT_TRUE(diff(state_of(config()), config(), kDevice, kIpv6).empty());
}

TEST(RouterDiff, DoesNotTouchIpv6WhereThereIsNone) {
    auto changes = diff({}, config(), kDevice, kNoIpv6);
    EXPECT_THAT(changes.add_addresses, ElementsAre(prefix("100.64.0.1/32")));
    EXPECT_THAT(changes.add_routes, SizeIs(2));
    EXPECT_THAT(changes.add_rules, SizeIs(4));
    EXPECT_TRUE(diff(state_of(config()), RouterConfig{}, kDevice, kNoIpv6).remove_addresses.size() == 1);
}

TEST(RouterDiff, SweepsOnlyAddressesInOurRanges) {
    auto state = state_of(config());
    state.addresses.push_back(prefix("100.64.9.9/32"));
    state.addresses.push_back(prefix("192.168.7.1/24"));
    state.addresses.push_back(prefix("fe80::1/64"));
    auto changes = diff(state, config(), kDevice, kIpv6);
    EXPECT_THAT(changes.remove_addresses, ElementsAre(prefix("100.64.9.9/32")));
    EXPECT_EQ(changes.size(), 1u);
}

TEST(RouterDiff, KeepsQuietAddressesApart) {
    auto wanted = config();
    wanted.quiet_addresses = {prefix("100.100.100.100/32"), prefix("fd7a:115c:a1e0::53/128")};
    auto state = state_of(wanted);
    auto changes = diff(state, wanted, kDevice, kIpv6);
    EXPECT_THAT(changes.add_quiet_addresses, ElementsAre(wanted.quiet_addresses[0], wanted.quiet_addresses[1]));
    EXPECT_EQ(changes.size(), 2u);
    EXPECT_THAT(diff(state, wanted, kDevice, kNoIpv6).add_quiet_addresses, SizeIs(1));
    for (const auto& address : wanted.quiet_addresses) state.addresses.push_back(address);
    EXPECT_TRUE(diff(state, wanted, kDevice, kIpv6).empty());
    EXPECT_THAT(diff(state, config(), kDevice, kIpv6).remove_addresses, SizeIs(2));
}

TEST(RouterDiff, LeavesRoutesOfOtherDevicesAlone) {
    auto state = state_of(config());
    state.routes.push_back({prefix("10.0.0.0/8"), RouteType::Unicast, kDevice + 1});
    EXPECT_TRUE(diff(state, config(), kDevice, kIpv6).empty());
}

TEST(RouterDiff, ReplacesARouteThatBecomesAThrow) {
    auto wanted = config();
    wanted.throw_routes.push_back(prefix("100.64.0.2/32"));
    auto changes = diff(state_of(config()), wanted, kDevice, kIpv6);
    EXPECT_THAT(changes.add_routes, ElementsAre(Route{prefix("100.64.0.2/32"), RouteType::Throw, 0}));
    EXPECT_THAT(changes.remove_routes, IsEmpty()); // adding replaces
}

TEST(RouterDiff, RemovesWhatIsNoLongerWanted) {
    auto wanted = config();
    wanted.routes.erase(wanted.routes.begin());
    wanted.throw_routes.clear();
    auto changes = diff(state_of(config()), wanted, kDevice, kIpv6);
    EXPECT_THAT(changes.remove_routes, SizeIs(2));
    EXPECT_EQ(changes.size(), 2u);
}

TEST(RouterDiff, ReplacesALeftoverRuleAndKeepsOthers) {
    auto state = state_of(config());
    state.rules[3].mark = 0x1; // 5270 with a mark: somebody's leftover
    state.rules[3].mask = 0xff;
    state.rules.push_back({false, 5270, 0, 0, 254, false, true}); // the same priority, but another table: not ours
    state.rules.push_back({false, 32766, 0, 0, 254, false, true});
    auto changes = diff(state, config(), kDevice, kIpv6);
    EXPECT_THAT(changes.remove_rules, ElementsAre(state.rules[3]));
    EXPECT_THAT(changes.add_rules, ElementsAre(tailnet_rules(false)[3]));
    EXPECT_EQ(changes.size(), 2u);
}

TEST(RouterDiff, RemovesARuleThatIsThereTwice) {
    auto state = state_of(config());
    state.rules.push_back(tailnet_rules(false)[0]);
    auto changes = diff(state, config(), kDevice, kIpv6);
    EXPECT_THAT(changes.remove_rules, SizeIs(1));
    EXPECT_THAT(changes.add_rules, IsEmpty());
}

TEST(RouterDiff, ClosesBothFamiliesAlsoWhereTheDeviceHasNoIpv6) {
    RouterConfig wanted;
    wanted.routes = {prefix("0.0.0.0/0"), prefix("::/0")};
    wanted.closed = true;
    const Route closed4{prefix("0.0.0.0/0"), RouteType::Unreachable, 0, kClosedMetric};
    const Route closed6{prefix("::/0"), RouteType::Unreachable, 0, kClosedMetric};
    auto changes = diff({}, wanted, kDevice, kIpv6ElsewhereOnly);
    EXPECT_THAT(changes.add_routes,
                ElementsAre(closed4, closed6, Route{prefix("0.0.0.0/0"), RouteType::Unicast, kDevice}));
    EXPECT_THAT(changes.add_rules, SizeIs(8));
    EXPECT_THAT(diff({}, wanted, kDevice, kNoIpv6).add_routes, SizeIs(2));

    RouterState state = state_of(wanted);
    state.routes.push_back(closed4);
    state.routes.push_back(closed6);
    EXPECT_TRUE(diff(state, wanted, kDevice, kIpv6).empty());
    auto opened = diff(state, RouterConfig{}, kDevice, kIpv6);
    ASSERT_THAT(opened.remove_routes, SizeIs(4)); // what refuses goes last
    EXPECT_EQ(opened.remove_routes[2], closed4);
    EXPECT_EQ(opened.remove_routes[3], closed6);
}

} // namespace
} // namespace tailrace
