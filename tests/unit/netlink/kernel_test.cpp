// The same calls against a real kernel, each test in a network namespace of its own. Skips, and says why, without the
// privilege or without what the kernel lacks.
#include "base/random.hpp"
#include "netlink/forwarding.hpp"
#include "netlink/link.hpp"
#include "netlink/monitor.hpp"
#include "netlink/nftables.hpp"
#include "netlink/route_lookup.hpp"
#include "netlink/router.hpp"
#include "netlink/wireguard.hpp"
#include "tests/unit/addresses.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

namespace tailrace {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

IpAddress address(std::string_view text) {
    return *IpAddress::parse(text);
}

template <typename T>
::testing::AssertionResult ok(const Result<T>& result) {
    if (result) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << result.error().message();
}

/// Runs a program as an operator would.
int run(const std::string& command) {
    return std::system((command + " >/dev/null 2>&1").c_str());
}

class Kernel : public ::testing::Test {
protected:
    void SetUp() override {
        if (::unshare(CLONE_NEWNET) != 0) GTEST_SKIP() << "no privilege to make a network namespace";
        links_.emplace(*Links::open());
        ASSERT_TRUE(ok(links_->set_state(1, LinkState::Up)));
    }
    /// A device that carries routes: a dummy where the kernel has them, else one end of a veth pair.
    Link device(const std::string& name) {
        auto made = links_->create(name, "dummy");
        if (!made) made = links_->create(name, "veth");
        EXPECT_TRUE(ok(made));
        EXPECT_TRUE(ok(links_->set_state(made->index, LinkState::Up)));
        return *made;
    }
    std::optional<Links> links_;
};

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
    wanted.routes = wanted.masquerade = wanted.stateful = wanted.keep_marks = true;
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
    ASSERT_EQ(run("ip addr add 192.0.2.1/24 dev tr0 && ip rule add pref 5210 lookup main && ip rule del pref 5210 && "
                  "ip route add 10.0.0.0/8 via 192.0.2.2 && ip addr del 192.0.2.1/24 dev tr0"),
              0);
    ASSERT_TRUE(ok(links_->remove("tr0")));
    pollfd wait{monitor->fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&wait, 1, 1000), 1);
    auto events = monitor->read_events();
    ASSERT_TRUE(ok(events));
    bool up = false, gone = false, address_added = false, address_removed = false, rule_removed = false, route = false;
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
    }
    EXPECT_TRUE(up && gone && address_added && address_removed && rule_removed && route)
        << up << gone << address_added << address_removed << rule_removed << route;
}

// The backstop, with lo in the part of the device: packets keep their mark across lo.

constexpr std::uint32_t kPassed = 0x01000000;

/// Sends one datagram with this mark to ourselves and tells whether it arrived. Nothing waits: across lo it is there at
/// once.
bool arrives(std::uint32_t mark) {
    Fd receiver{::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0)};
    Fd sender{::socket(AF_INET, SOCK_DGRAM, 0)};
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof to;
    EXPECT_EQ(::bind(receiver.get(), reinterpret_cast<sockaddr*>(&to), size), 0);
    EXPECT_EQ(::getsockname(receiver.get(), reinterpret_cast<sockaddr*>(&to), &size), 0);
    EXPECT_EQ(::setsockopt(sender.get(), SOL_SOCKET, SO_MARK, &mark, sizeof mark), 0);
    EXPECT_EQ(::sendto(sender.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&to), size), 1);
    char byte = 0;
    return ::recv(receiver.get(), &byte, 1, 0) == 1;
}

class BackstopOnKernel : public Kernel {
protected:
    void SetUp() override {
        Kernel::SetUp();
        if (IsSkipped()) return;
        if (run("nft --version") == 0 && run("nft list tables") != 0) GTEST_SKIP() << "the kernel has no nftables";
    }
};

TEST_F(BackstopOnKernel, DropsWhatHasNoMarkAndCounts) {
    EXPECT_TRUE(arrives(0));
    auto backstop = Backstop::create("lo", kPassed);
    ASSERT_TRUE(ok(backstop));
    EXPECT_FALSE(backstop->check()->intact);
    auto made = backstop->ensure();
    ASSERT_TRUE(ok(made));
    EXPECT_TRUE(made->intact);
    EXPECT_FALSE(arrives(0));
    EXPECT_FALSE(arrives(~kPassed));
    EXPECT_TRUE(arrives(kPassed));
    EXPECT_TRUE(arrives(kPassed | 0x80000));
    auto state = backstop->ensure();
    ASSERT_TRUE(ok(state));
    EXPECT_EQ(state->dropped_packets, 2u);
    ASSERT_TRUE(ok(backstop->remove()));
    ASSERT_TRUE(ok(backstop->remove()));
    EXPECT_TRUE(arrives(0));
}

TEST_F(BackstopOnKernel, MeansItsDeviceOnly) {
    auto backstop = Backstop::create("l", kPassed); // "lo" begins with it
    ASSERT_TRUE(ok(backstop->ensure()));
    EXPECT_TRUE(arrives(0));
}

TEST_F(BackstopOnKernel, OutlivesItsMakerAndIsAdopted) {
    {
        auto first = Backstop::create("lo", kPassed);
        ASSERT_TRUE(ok(first->ensure()));
    }
    EXPECT_FALSE(arrives(0));
    auto second = Backstop::create("lo", kPassed);
    auto before = second->check();
    ASSERT_TRUE(ok(before));
    EXPECT_TRUE(before->intact);
    EXPECT_EQ(before->dropped_packets, 1u);
    auto adopted = second->ensure();
    ASSERT_TRUE(ok(adopted));
    if (adopted->hold == BackstopHold::OwnedAndPersistent) {
        EXPECT_EQ(adopted->dropped_packets, 1u); // adopted, not made anew
    }
}

TEST_F(BackstopOnKernel, SurvivesAFlushWhereTheKernelLetsItBeOwned) {
    if (run("nft --version") != 0) GTEST_SKIP() << "nft is not installed";
    auto backstop = Backstop::create("lo", kPassed);
    auto made = backstop->ensure();
    ASSERT_TRUE(ok(made));
    if (made->hold == BackstopHold::Plain) GTEST_SKIP() << "this kernel knows no owned tables";
    ASSERT_EQ(run("nft flush ruleset"), 0);
    EXPECT_FALSE(arrives(0));
    if (made->hold == BackstopHold::OwnedAndPersistent) { // else the flush took the plain one of the two
        EXPECT_NE(run("nft delete table inet tailrace-lo"), 0);
    }
    EXPECT_FALSE(arrives(0));
    ASSERT_TRUE(ok(backstop->ensure()));
}

TEST_F(BackstopOnKernel, IsSeenAndRepairedWhenItIsTouched) {
    if (run("nft --version") != 0) GTEST_SKIP() << "nft is not installed";
    auto watch = NftablesWatch::open("lo");
    ASSERT_TRUE(ok(watch));
    {
        auto first = Backstop::create("lo", kPassed);
        ASSERT_TRUE(ok(first->ensure()));
    } // its maker is gone: anybody may touch it
    ASSERT_TRUE(*watch->take_changes());
    ASSERT_EQ(run("nft add table inet other"), 0);
    EXPECT_FALSE(*watch->take_changes());

    for (const char* harm :
         {"nft flush ruleset", "nft flush table inet tailrace-lo", "nft insert rule inet tailrace-lo backstop accept",
          "nft flush chain inet tailrace-lo relayed", "nft add table inet tailrace-lo '{ flags dormant; }'",
          "nft delete table inet tailrace-lo"}) {
        run(harm); // an old nft knows no flags persist and refuses some of it
        auto backstop = Backstop::create("lo", kPassed);
        const bool was_intact = backstop->check()->intact;
        EXPECT_EQ(*watch->take_changes(), !was_intact) << harm;
        auto repaired = backstop->ensure();
        ASSERT_TRUE(ok(repaired)) << harm;
        EXPECT_TRUE(repaired->intact);
        EXPECT_FALSE(arrives(0)) << harm;
        EXPECT_TRUE(arrives(kPassed)) << harm;
        (void)watch->take_changes();
        backstop = Error::make("gone");
        (void)watch->take_changes();
    }
}

TEST_F(BackstopOnKernel, TakesThePlaceOfAnotherTableOfItsName) {
    if (run("nft add table inet tailrace-lo '{ chain backstop { type filter hook input priority 0; }; }'") != 0)
        GTEST_SKIP() << "nft is not installed";
    auto backstop = Backstop::create("lo", kPassed);
    EXPECT_FALSE(backstop->check()->intact);
    ASSERT_TRUE(ok(backstop->ensure()));
    EXPECT_FALSE(arrives(0));
}

TEST_F(BackstopOnKernel, IsNotTakenFromALivingOwner) {
    auto first = Backstop::create("lo", kPassed);
    auto made = first->ensure();
    ASSERT_TRUE(ok(made));
    if (made->hold != BackstopHold::OwnedAndPersistent) GTEST_SKIP() << "this kernel knows no such tables";
    auto second = Backstop::create("lo", kPassed);
    auto refused = second->ensure();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), EPERM);
}

// WireGuard, the same test for both kinds.

class WireGuardOnKernel : public Kernel, public ::testing::WithParamInterface<WireGuardChoice> {
protected:
    void SetUp() override {
        Kernel::SetUp();
        if (IsSkipped()) return;
        const auto support = probe_wireguard();
        if (GetParam() == WireGuardChoice::Kernel && !support.kernel) GTEST_SKIP() << support.kernel_reason;
        if (GetParam() == WireGuardChoice::Uapi && !support.uapi) GTEST_SKIP() << support.uapi_reason;
    }
    void TearDown() override {
        if (auto left = find_wireguard(name_); left && *left) (void)(*left)->remove();
    }
    // The sockets of userspace devices are in one directory for the whole machine.
    std::string name_ = fmt::format("tr{}", ::getpid() % 1000000);
};

WireGuardConfig config_with_peers(int count) {
    WireGuardConfig config;
    config.private_key = Secret<32>{random_array<32>()};
    config.listen_port = 41641;
    config.fwmark = kBypassMark;
    for (int i = 0; i < count; ++i) {
        WireGuardPeer peer;
        peer.public_key = random_array<32>();
        peer.public_key[31] &= std::byte{0x7f};
        peer.endpoint = Endpoint{IpAddress::v4(0xc0000201), static_cast<std::uint16_t>(1000 + i)};
        if (i % 2) peer.endpoint->address = address("2001:db8::1");
        peer.allowed_ips = {IpPrefix::single(IpAddress::v4(0x64400000 + static_cast<std::uint32_t>(i))),
                            IpPrefix{IpAddress::v4(0x0a000000 + (static_cast<std::uint32_t>(i) << 8)), 24}};
        peer.keepalive_seconds = i % 3 ? 0 : 25;
        config.peers.push_back(peer);
    }
    return config;
}

TEST_P(WireGuardOnKernel, IsMadeConfiguredAdoptedAndRemoved) {
    EXPECT_EQ(*find_wireguard(name_), nullptr);
    auto opened = open_wireguard(name_, GetParam());
    ASSERT_TRUE(ok(opened));
    EXPECT_EQ(opened->how, OpenedWireGuard::How::Created);
    auto& device = *opened->device;
    EXPECT_EQ(device.kind(), GetParam() == WireGuardChoice::Kernel ? WireGuardKind::Kernel : WireGuardKind::Uapi);

    auto wanted = config_with_peers(5);
    ASSERT_TRUE(ok(device.reconcile(wanted)));
    auto again = device.reconcile(wanted);
    ASSERT_TRUE(ok(again));
    EXPECT_TRUE(again->empty());

    auto adopted = open_wireguard(name_, WireGuardChoice::Auto);
    ASSERT_TRUE(ok(adopted));
    EXPECT_EQ(adopted->how, OpenedWireGuard::How::Adopted);
    EXPECT_EQ(adopted->device->kind(), device.kind());
    again = adopted->device->reconcile(wanted);
    ASSERT_TRUE(ok(again));
    EXPECT_TRUE(again->empty());

    // Move, take away, swap, drop, change.
    wanted.peers[0].allowed_ips.push_back(prefix("192.168.0.0/16"));
    std::swap(wanted.peers[1].allowed_ips, wanted.peers[2].allowed_ips);
    wanted.peers[3].allowed_ips.pop_back();
    wanted.peers[3].keepalive_seconds = 7;
    wanted.peers.pop_back();
    ASSERT_TRUE(ok(adopted->device->reconcile(wanted)));
    wanted.peers[0].allowed_ips.pop_back();
    wanted.peers[1].allowed_ips.push_back(prefix("192.168.0.0/16"));
    ASSERT_TRUE(ok(adopted->device->reconcile(wanted)));
    auto state = device.read();
    ASSERT_TRUE(ok(state));
    EXPECT_THAT(state->peers, SizeIs(4));
    EXPECT_EQ(state->listen_port, 41641);
    EXPECT_EQ(state->fwmark, kBypassMark);

    ASSERT_TRUE(ok(device.remove()));
    EXPECT_EQ(*find_wireguard(name_), nullptr);
    ASSERT_TRUE(ok(device.remove()));
}

TEST_P(WireGuardOnKernel, CarriesThousandsOfPeers) {
    auto opened = open_wireguard(name_, GetParam());
    ASSERT_TRUE(ok(opened));
    const int count = GetParam() == WireGuardChoice::Kernel ? 2000 : 200;
    auto wanted = config_with_peers(count);
    for (std::uint32_t i = 0; i < 3000; ++i)
        wanted.peers[7].allowed_ips.push_back(IpPrefix::single(IpAddress::v4(0x0b000000 + i)));
    ASSERT_TRUE(ok(opened->device->reconcile(wanted)));
    wanted.peers.erase(wanted.peers.begin() + 3);
    auto one = opened->device->reconcile(wanted);
    ASSERT_TRUE(ok(one));
    EXPECT_THAT(one->peers, SizeIs(1));
}

TEST_P(WireGuardOnKernel, SaysThatAPortIsInUse) {
    auto opened = open_wireguard(name_, GetParam());
    ASSERT_TRUE(ok(opened));
    auto link = links_->find(name_);
    ASSERT_TRUE(ok(links_->set_state((*link)->index, LinkState::Up)));
    auto wanted = config_with_peers(1);
    wanted.listen_port = 0;
    // A userspace device follows the link's state a moment later: once it has taken its first port it is up.
    for (int i = 0; i < 500 && opened->device->read()->listen_port == 0; ++i) ::usleep(10000);
    Fd other{::socket(AF_INET6, SOCK_DGRAM, 0)};
    sockaddr_in6 here{};
    here.sin6_family = AF_INET6;
    here.sin6_port = htons(41641);
    ASSERT_EQ(::bind(other.get(), reinterpret_cast<sockaddr*>(&here), sizeof here), 0);
    wanted.listen_port = 41641;
    auto refused = opened->device->reconcile(wanted);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), EADDRINUSE) << refused.error().message();
}

TEST_P(WireGuardOnKernel, IsNotMadeOverALinkOfAnotherKind) {
    device(name_);
    auto refused = open_wireguard(name_, GetParam());
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message(), ::testing::HasSubstr("no WireGuard device"));
}

/// Two devices in one namespace that talk to each other over lo.
TEST_P(WireGuardOnKernel, ShakesHandsAndKeepsTheSessionWhenItIsSetUpAgain) {
    auto one = open_wireguard(name_, GetParam());
    auto two = open_wireguard(name_ + "b", GetParam());
    ASSERT_TRUE(ok(one));
    ASSERT_TRUE(ok(two));
    auto config_of = [](std::uint16_t port) {
        auto config = config_with_peers(0);
        config.listen_port = port;
        return config;
    };
    auto config_one = config_of(1001);
    auto config_two = config_of(1002);
    auto peer_of = [](const WireGuardConfig& config, std::string_view allowed) {
        WireGuardPeer peer;
        (void)crypto_scalarmult_curve25519_base(reinterpret_cast<unsigned char*>(peer.public_key.data()),
                                                config.private_key.data());
        peer.endpoint = Endpoint{IpAddress::v4(0x7f000001), config.listen_port};
        peer.allowed_ips = {prefix(allowed)};
        return peer;
    };
    config_one.peers = {peer_of(config_two, "100.64.0.2/32")};
    config_one.peers[0].keepalive_seconds = 1; // a keep-alive begins the handshake
    config_two.peers = {peer_of(config_one, "100.64.0.1/32")};
    for (auto* device : {&*one, &*two})
        ASSERT_TRUE(ok(links_->set_state((*links_->find(device->device->name()))->index, LinkState::Up)));
    ASSERT_TRUE(ok(two->device->reconcile(config_two)));
    ASSERT_TRUE(ok(one->device->reconcile(config_one)));

    std::optional<WallTime> handshake;
    for (int i = 0; i < 500 && !handshake; ++i) {
        handshake = two->device->read()->peers.at(0).last_handshake;
        if (!handshake) ::usleep(10000);
    }
    ASSERT_TRUE(handshake.has_value());
    auto adopted = open_wireguard(name_, WireGuardChoice::Auto);
    config_one.peers[0].allowed_ips.push_back(prefix("10.0.0.0/8"));
    ASSERT_TRUE(ok(adopted->device->reconcile(config_one)));
    config_one.peers[0].allowed_ips.pop_back();
    ASSERT_TRUE(ok(adopted->device->reconcile(config_one)));
    auto state = adopted->device->read();
    ASSERT_TRUE(ok(state));
    EXPECT_TRUE(state->peers.at(0).last_handshake.has_value());
    EXPECT_GT(state->peers.at(0).tx_bytes, 0u);
    (void)two->device->remove();
}

INSTANTIATE_TEST_SUITE_P(BothKinds, WireGuardOnKernel,
                         ::testing::Values(WireGuardChoice::Kernel, WireGuardChoice::Uapi), [](const auto& info) {
                             return info.param == WireGuardChoice::Kernel ? "Module" : "Userspace";
                         });

} // namespace
} // namespace tailrace
