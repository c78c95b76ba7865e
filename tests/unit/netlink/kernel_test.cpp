// Links, routes, rules and forwarding against a real kernel, each test in a network namespace of its own. Skips, and
// says why, without the privilege or without what the kernel lacks.
#include "netlink/forwarding.hpp"
#include "netlink/monitor.hpp"
#include "netlink/route_lookup.hpp"
#include "netlink/router.hpp"
#include "netlink/silent_rules.hpp"
#include "tests/unit/netlink/kernel_room.hpp"

#include <gmock/gmock.h>
#include <poll.h>
#include <unistd.h>

namespace tailrace::test {
namespace {

using ::testing::Contains;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST_F(Kernel, LinksAreMadeChangedListedAndRemoved) {
    Link link = device("tr0");
    EXPECT_TRUE(ok(links_->set_mtu(link.index, 1280)));
    auto found = links_->find("tr0");
    ASSERT_TRUE(ok(found));
    ASSERT_TRUE(found->has_value());
    EXPECT_EQ((*found)->mtu, 1280u);
    EXPECT_TRUE((*found)->up);
    EXPECT_FALSE((*found)->kind.empty());

    auto all = links_->list();
    ASSERT_TRUE(ok(all));
    EXPECT_TRUE(all->front().loopback);
    EXPECT_THAT(all->front().addresses, Contains(::testing::Field(&InterfaceAddress::prefix, prefix("127.0.0.1/8"))));

    auto twice = links_->create("tr0", (*found)->kind);
    ASSERT_FALSE(twice);
    EXPECT_EQ(twice.error().code(), EEXIST);
    EXPECT_TRUE(ok(links_->remove("tr0")));
    EXPECT_TRUE(ok(links_->remove("tr0")));
    EXPECT_FALSE((*links_->find("tr0")).has_value());
}

TEST_F(Kernel, RulesThatAskSomethingElseAreSilent) {
    auto none = find_silent_rules();
    ASSERT_TRUE(ok(none));
    EXPECT_EQ(*none, "");
    if (run("nft add table inet site '{ chain pass { type filter hook forward priority 0; tcp dport 22 accept; }; "
            "}'") != 0)
        GTEST_SKIP() << "no nft, or a kernel without";
    EXPECT_EQ(*find_silent_rules(), "");
    EXPECT_EQ(run("nft add rule inet site pass meta hour 08:00-17:00 accept"), 0);
    EXPECT_EQ(*find_silent_rules(), "a rule in chain pass of table inet site that asks the time");
    EXPECT_EQ(run("nft flush chain inet site pass"), 0);
    EXPECT_EQ(run("nft add rule inet site pass ct bytes gt 100000 drop"), 0);
    EXPECT_EQ(*find_silent_rules(), "a rule in chain pass of table inet site that asks how much has passed");
    EXPECT_EQ(run("nft delete table inet site"), 0);
    if (run("iptables-nft -A FORWARD -m recent --name met --rcheck -j DROP") == 0) {
        EXPECT_EQ(*find_silent_rules(),
                  "a rule in chain FORWARD of table ip filter that asks a list of recent addresses");
        EXPECT_EQ(run("nft flush ruleset"), 0);
    }
    EXPECT_EQ(find_legacy_tables(), "");
    if (run("iptables-legacy -L FORWARD") == 0) // few kernels have it still
        EXPECT_EQ(*find_silent_rules(), "rules of iptables-legacy in the table filter");
}

TEST_F(Kernel, RouterStandsTwiceTheSameAndGoes) {
    Link link = device("tr0");
    auto router = Router::create("tr0");
    ASSERT_TRUE(ok(router));
    RouterConfig wanted;
    wanted.addresses = {prefix("100.64.0.1/32"), prefix("fd7a:115c:a1e0::1/128")};
    wanted.routes = {prefix("100.64.0.2/32"), prefix("fd7a:115c:a1e0::/48"), prefix("0.0.0.0/0"), prefix("::/0")};
    wanted.throw_routes = {prefix("127.0.0.0/8"), prefix("2001:db8::/32")};

    auto first = router->reconcile(wanted);
    ASSERT_TRUE(ok(first));
    EXPECT_EQ(first->size(), 2u + 6u + 8u);
    auto second = router->reconcile(wanted);
    ASSERT_TRUE(ok(second));
    EXPECT_TRUE(second->empty());

    // A throw takes the place of a route to the same destination, and gives it back.
    wanted.throw_routes.push_back(prefix("100.64.0.2/32"));
    wanted.throw_routes.push_back(prefix("fd7a:115c:a1e0::/48"));
    ASSERT_TRUE(ok(router->reconcile(wanted)));
    auto state = router->read();
    ASSERT_TRUE(ok(state));
    EXPECT_THAT(state->routes, SizeIs(6));
    EXPECT_THAT(state->routes, Contains(Route{prefix("100.64.0.2/32"), RouteType::Throw, 0}));
    wanted.throw_routes.resize(2);
    ASSERT_TRUE(ok(router->reconcile(wanted)));

    // Somebody's hand is repaired.
    ASSERT_EQ(run("ip rule del pref 5270 && ip -6 rule del pref 5210 && ip route del 100.64.0.2/32 table 52"), 0);
    auto repaired = router->reconcile(wanted);
    ASSERT_TRUE(ok(repaired));
    EXPECT_EQ(repaired->size(), 3u);

    ASSERT_TRUE(ok(router->remove()));
    state = router->read();
    ASSERT_TRUE(ok(state));
    EXPECT_THAT(state->routes, IsEmpty());
    for (const auto& rule : state->rules) EXPECT_FALSE(rule.priority >= 5200 && rule.priority < 5300) << rule.text();
    ASSERT_TRUE(ok(router->remove()));
    EXPECT_EQ((*links_->find("tr0"))->index, link.index);
}

TEST_F(Kernel, RouterCarriesTenThousandRoutes) {
    device("tr0");
    auto router = Router::create("tr0");
    RouterConfig wanted;
    for (std::uint32_t i = 0; i < 10000; ++i) wanted.routes.push_back(IpPrefix::single(IpAddress::v4(0x64400000 + i)));
    auto done = router->reconcile(wanted);
    ASSERT_TRUE(ok(done));
    EXPECT_THAT(done->add_routes, SizeIs(10000));
    wanted.routes.pop_back();
    done = router->reconcile(wanted);
    ASSERT_TRUE(ok(done));
    EXPECT_EQ(done->size(), 1u);
}

TEST_F(Kernel, RouterReplacesRulesOfAnEarlierLife) {
    device("tr0");
    ASSERT_EQ(run("ip rule add pref 5210 lookup main && ip rule add pref 5270 fwmark 1 lookup 52"), 0);
    auto router = Router::create("tr0");
    ASSERT_TRUE(ok(router->reconcile({})));
    auto state = router->read();
    ASSERT_TRUE(ok(state));
    std::vector<PolicyRule> ours;
    for (const auto& rule : state->rules)
        if (!rule.v6 && rule.priority >= 5200 && rule.priority < 5300) ours.push_back(rule);
    EXPECT_EQ(ours, tailnet_rules(false));
}

TEST_F(Kernel, RouterDoesWithoutIpv6WhereItIsOff) {
    Link link = device("tr0");
    ASSERT_TRUE(ok(links_->set_mtu(link.index, 1000))); // takes IPv6 away from the device
    EXPECT_FALSE(probe_ipv6("tr0")->available);
    auto router = Router::create("tr0");
    RouterConfig wanted;
    wanted.addresses = {prefix("100.64.0.1/32"), prefix("fd7a:115c:a1e0::1/128")};
    wanted.routes = {prefix("fd7a:115c:a1e0::/48"), prefix("100.64.0.2/32")};
    auto done = router->reconcile(wanted);
    ASSERT_TRUE(ok(done));
    EXPECT_EQ(done->size(), 1u + 1u + 4u);
}

TEST_F(Kernel, MarkedPacketsGoAroundTheTunnel) {
    device("tr0");
    Link uplink = device("up0");
    ASSERT_EQ(run("ip addr add 192.0.2.1/24 dev up0 && ip route add default via 192.0.2.254"), 0);
    ASSERT_EQ(run("ip -6 addr add 2001:db8::1/64 dev up0 nodad && ip -6 route add default via 2001:db8::fe"), 0);
    auto router = Router::create("tr0");
    RouterConfig wanted;
    wanted.addresses = {prefix("100.64.0.1/32"), prefix("fd7a:115c:a1e0::1/128")};
    wanted.routes = {prefix("0.0.0.0/0"), prefix("::/0")};
    ASSERT_TRUE(ok(router->reconcile(wanted)));

    auto lookup = RouteLookup::open();
    ASSERT_TRUE(ok(lookup));
    auto plain = lookup->find(address("198.51.100.1"), 0);
    ASSERT_TRUE(ok(plain));
    EXPECT_EQ(plain->table, kRoutingTable);
    EXPECT_EQ(plain->source, address("100.64.0.1"));
    for (const char* destination : {"198.51.100.1", "2001:db8:1::1"}) {
        auto marked = lookup->find(address(destination), kBypassMark);
        ASSERT_TRUE(ok(marked)) << destination;
        EXPECT_EQ(marked->device_index, uplink.index);
        EXPECT_EQ(marked->source, address(destination).is_v4() ? address("192.0.2.1") : address("2001:db8::1"));
        EXPECT_TRUE(marked->gateway.has_value());
    }
    auto own = lookup->find(address("192.0.2.1"), kBypassMark);
    ASSERT_TRUE(ok(own));
    EXPECT_TRUE(own->local);

    // Without an uplink a marked packet has nowhere to go; it must not fall into the tunnel.
    ASSERT_EQ(run("ip link set up0 down"), 0);
    for (const char* destination : {"198.51.100.1", "2001:db8:1::1"}) {
        auto refused = lookup->find(address(destination), kBypassMark);
        ASSERT_FALSE(refused) << destination << " by link " << refused->device_index;
        EXPECT_TRUE(refused.error().code() == ENETUNREACH || refused.error().code() == EHOSTUNREACH)
            << refused.error().message();
    }
}

TEST_F(Kernel, ClosedStaysWithoutTheDeviceAndTakesNothingAway) {
    Link link = device("tr0");
    auto router = Router::create("tr0");
    ASSERT_TRUE(ok(router));
    RouterConfig wanted;
    wanted.addresses = {prefix("100.64.0.1/32"), prefix("fd7a:115c:a1e0::1/128")};
    wanted.routes = {prefix("0.0.0.0/0"), prefix("::/0"), prefix("192.168.1.0/24")};
    wanted.closed = true;
    ASSERT_TRUE(ok(router->reconcile(wanted)));
    EXPECT_TRUE(router->reconcile(wanted)->empty());
    ASSERT_TRUE(ok(router->close({prefix("192.168.1.0/24"), prefix("127.0.0.0/8")})));
    auto state = router->read();
    ASSERT_TRUE(ok(state));
    EXPECT_THAT(state->routes, SizeIs(6)); // the throw for 127.0.0.0/8 is new, what was there stays

    ASSERT_TRUE(ok(links_->remove("tr0")));
    EXPECT_NE(run("ip route get 198.51.100.1"), 0);
    EXPECT_NE(run("ip -6 route get 2001:db8:1::1"), 0);
    ASSERT_TRUE(ok(router->remove({prefix("127.0.0.0/8")}, true)));
    EXPECT_THAT(router->read()->routes, SizeIs(3));
    ASSERT_TRUE(ok(router->close({}))); // twice is as once
    EXPECT_THAT(router->read()->routes, SizeIs(3));
    ASSERT_TRUE(ok(router->remove()));
    EXPECT_THAT(router->read()->routes, IsEmpty());

    // A machine whose own devices alone speak IPv6, and no device of ours.
    ASSERT_EQ(run("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"), 0);
    ASSERT_TRUE(ok(router->close({})));
    EXPECT_THAT(router->read()->routes, SizeIs(2));
    ASSERT_TRUE(ok(router->remove()));
}

TEST_F(Kernel, ForwardingStandsIsRepairedAndGoes) {
    auto forwarding = Forwarding::create("tr0");
    ASSERT_TRUE(ok(forwarding));
    ForwardingConfig wanted;
    wanted.routes = wanted.masquerade = wanted.stateful = wanted.keep_marks = wanted.answer_as_asked = true;
    wanted.port = 41641;
    if (run("nft --version") == 0 && run("nft list tables") != 0) GTEST_SKIP() << "the kernel has no nftables";
    ASSERT_TRUE(ok(forwarding->reconcile(wanted)));
    const std::string list = "nft list table inet " + forwarding->table_name();
    if (run("nft --version") != 0) GTEST_SKIP() << "nft is not installed";
    EXPECT_EQ(run(list + " | grep masquerade"), 0);
    EXPECT_EQ(run("nft list chain ip filter FORWARD"), 256) << "chains of others are not made";

    // Whatever is done to it, the same is there again; what is right is not touched: its counters stand.
    auto handle = [&] {
        return run("test \"$(nft -a list tables | grep tr0-forward)\" = \"$(cat /tmp/tr0-handle." +
                   std::to_string(::getpid()) + ")\"");
    };
    ASSERT_EQ(
        std::system(("nft -a list tables | grep tr0-forward > /tmp/tr0-handle." + std::to_string(::getpid())).c_str()),
        0);
    ASSERT_TRUE(ok(forwarding->reconcile(wanted)));
    for (const char* harm :
         {"delete table inet tailrace-tr0-forward", "flush chain inet tailrace-tr0-forward forward",
          "add rule inet tailrace-tr0-forward forward drop",
          "add chain inet tailrace-tr0-forward more; add rule inet tailrace-tr0-forward more drop"}) {
        ASSERT_EQ(run("nft '" + std::string{harm} + "'"), 0) << harm;
        ASSERT_TRUE(ok(forwarding->reconcile(wanted))) << harm;
        EXPECT_EQ(run(list + " | grep -E 'counter packets 0 bytes 0 masquerade'"), 0) << harm;
        EXPECT_NE(run(list + " | grep 'chain more'"), 0) << harm;
        ASSERT_EQ(
            std::system(
                ("nft -a list tables | grep tr0-forward > /tmp/tr0-handle." + std::to_string(::getpid())).c_str()),
            0);
        ASSERT_TRUE(ok(forwarding->reconcile(wanted))) << harm;
        EXPECT_EQ(handle(), 0) << harm << ": made anew though it was right";
    }
    (void)std::remove(("/tmp/tr0-handle." + std::to_string(::getpid())).c_str());

    // Beside iptables.
    if (run("iptables -P INPUT DROP && iptables -A FORWARD -j DROP") == 0) {
        ASSERT_TRUE(ok(forwarding->reconcile(wanted)));
        ASSERT_TRUE(ok(forwarding->reconcile(wanted)));
        EXPECT_EQ(run("test $(iptables -S FORWARD | grep -c tr0) = 2"), 0);
        EXPECT_EQ(run("test $(iptables -S INPUT | grep -c 41641) = 1"), 0);
        EXPECT_EQ(run("iptables -S FORWARD | sed -n 2p | grep -- '-i tr0'"), 0) << "not at the head";
        wanted.mode = ForwardingMode::NoDivert;
        ASSERT_TRUE(ok(forwarding->reconcile(wanted)));
        EXPECT_NE(run("iptables -S | grep tr0"), 0);
        EXPECT_NE(run(list + " | grep hook"), 0);
        wanted.mode = ForwardingMode::On;
        ASSERT_TRUE(ok(forwarding->reconcile(wanted)));
    }
    ASSERT_TRUE(ok(forwarding->remove()));
    ASSERT_TRUE(ok(forwarding->remove()));
    EXPECT_NE(run("nft list ruleset | grep tr0"), 0);
}

TEST_F(Kernel, MonitorTellsWhatHappens) {
    auto monitor = NetworkMonitor::open();
    ASSERT_TRUE(ok(monitor));
    EXPECT_THAT(*monitor->read_events(), IsEmpty());
    Link link = device("tr0");
    ASSERT_EQ(
        run("ip addr add 192.0.2.1/24 dev tr0 && ip rule add pref 5210 lookup main && ip rule del pref 5210 && "
            "ip route add prohibit 10.9.0.0/16 && ip route add 10.0.0.0/8 via 192.0.2.2 && "
            "ip nexthop add id 7 via 192.0.2.2 dev tr0 && ip nexthop del id 7 && ip addr del 192.0.2.1/24 dev tr0"),
        0);
    ASSERT_TRUE(ok(links_->remove("tr0")));
    pollfd wait{monitor->fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&wait, 1, 1000), 1);
    auto events = monitor->read_events();
    ASSERT_TRUE(ok(events));
    bool up = false, gone = false, address_added = false, address_removed = false, rule_removed = false, route = false,
         refused = false, nexthop_added = false, nexthop_removed = false;
    for (const auto& event : *events) {
        if (auto* seen = std::get_if<LinkEvent>(&event); seen && seen->link.index == link.index) {
            up |= seen->link.up && seen->change == Change::Added && seen->link.name == "tr0";
            gone |= seen->change == Change::Removed;
        }
        if (auto* seen = std::get_if<AddressEvent>(&event); seen && seen->address.prefix == prefix("192.0.2.1/24"))
            (seen->change == Change::Added ? address_added : address_removed) = true;
        if (auto* seen = std::get_if<RuleEvent>(&event); seen && seen->rule.priority == 5210 && !seen->rule.v6)
            rule_removed |= seen->change == Change::Removed;
        if (auto* seen = std::get_if<RouteEvent>(&event); seen && seen->route.destination == prefix("10.0.0.0/8"))
            route |= seen->has_gateway && seen->table == 254;
        if (auto* seen = std::get_if<RouteEvent>(&event); seen && seen->route.destination == prefix("10.9.0.0/16"))
            refused |= seen->route.type == RouteType::Prohibit;
        if (auto* seen = std::get_if<NexthopEvent>(&event))
            (seen->change == Change::Added ? nexthop_added : nexthop_removed) = true;
    }
    EXPECT_TRUE(up && gone && address_added && address_removed && rule_removed && route && refused && nexthop_added &&
                nexthop_removed)
        << up << gone << address_added << address_removed << rule_removed << route << refused << nexthop_added
        << nexthop_removed;
}

TEST_F(Kernel, MonitorTellsWhenIpv6IsBack) {
    Link link = device("tr0");
    auto read_all = [](NetworkMonitor& monitor) {
        std::vector<NetworkEvent> out;
        pollfd wait{monitor.fd(), POLLIN, 0};
        if (::poll(&wait, 1, 1000) != 1) return out;
        auto events = monitor.read_events();
        return events ? std::move(*events) : out;
    };
    if (run("test -e /proc/sys/net/ipv6/conf/tr0/disable_ipv6") != 0) GTEST_SKIP() << "this kernel has no IPv6";
    for (int i = 0; i < 300 && !(*links_->find("tr0"))->running; ++i) ::usleep(10'000); // a carrier takes a moment
    ASSERT_EQ(run("(echo 1 >/proc/sys/net/ipv6/conf/tr0/disable_ipv6)"), 0);
    auto monitor = NetworkMonitor::open();
    ASSERT_TRUE(ok(monitor));
    ASSERT_EQ(run("(echo 0 >/proc/sys/net/ipv6/conf/tr0/disable_ipv6)"), 0);
    EXPECT_TRUE(std::ranges::any_of(read_all(*monitor), [&](const NetworkEvent& event) {
        const auto* view = std::get_if<Ipv6LinkEvent>(&event);
        return view != nullptr && view->link_index == link.index;
    }));
}

} // namespace
} // namespace tailrace::test
