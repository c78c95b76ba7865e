#include "agent/router/accepted_routes.hpp"
#include "agent/router/ip_forwarding.hpp"
#include "agent/router/udp_gro.hpp"
#include "agent/router/via6.hpp"
#include "tests/unit/addresses.hpp"

#include <gmock/gmock.h>

#include <cerrno>
#include <map>

namespace tailrace {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

ReadSetting settings(std::map<std::string, std::string> values) {
    return [values = std::move(values)](const std::string& path) -> Result<std::string> {
        auto found = values.find(path);
        if (found == values.end()) return Error::from_errno(ENOENT, "{}", path);
        return found->second;
    };
}

ForwardingQuestion question(const char* route) {
    return {{prefix(route)}, {*IpAddress::parse("192.168.7.1")}, {"eth0", "vlan.7"}};
}

TEST(IpForwarding, IsFineWhereBothFamiliesAreForwarded) {
    auto read = settings({{"net/ipv4/ip_forward", "1"}, {"net/ipv6/conf/all/forwarding", "2"}});
    EXPECT_EQ(ip_forwarding_trouble(question("10.0.0.0/8"), read), "");
}

TEST(IpForwarding, SaysThatAllIsOff) {
    auto read = settings({{"net/ipv4/ip_forward", "0"},
                          {"net/ipv4/conf/eth0/forwarding", "0"},
                          {"net/ipv4/conf/vlan.7/forwarding", "0"}});
    EXPECT_EQ(ip_forwarding_trouble(question("10.0.0.0/8"), read),
              "IP forwarding is disabled, subnet routing/exit nodes will not work.\n"
              "See https://tailscale.com/s/ip-forwarding");
    EXPECT_EQ(ip_forwarding_trouble(question("fd00::/64"), read),
              "IPv6 forwarding is disabled, subnet routing/exit nodes may not work.\n"
              "See https://tailscale.com/s/ip-forwarding");
}

TEST(IpForwarding, NamesTheInterfacesWhereItIsOff) {
    auto read = settings({{"net/ipv4/ip_forward", "0"},
                          {"net/ipv4/conf/eth0/forwarding", "1"},
                          {"net/ipv4/conf/vlan.7/forwarding", "0"}});
    auto both = question("10.0.0.0/8");
    both.routes.push_back(prefix("fd00::/64"));
    EXPECT_EQ(ip_forwarding_trouble(both, read),
              "IPv6 forwarding is disabled.\n"
              "Traffic received on vlan.7 won't be forwarded (net.ipv4.conf.vlan/7.forwarding disabled)\n"
              "Subnet routes and exit nodes may not work correctly.\n"
              "See https://tailscale.com/s/ip-forwarding");
}

TEST(IpForwarding, IsNotNeededForAnAddressOfOurOwn) {
    EXPECT_EQ(ip_forwarding_trouble(question("192.168.7.1/32"), settings({})), "");
}

TEST(AcceptedRoutes, SayWhichNetworkOfTheHostTheyCover) {
    std::vector<HostNetwork> networks = {{prefix("192.168.1.5/24"), false, "eth0"},
                                         {prefix("127.0.0.1/8"), true, "lo"}};
    auto said = accepted_route_warnings({{prefix("192.168.0.0/16"), "gw2"}}, networks, AttachedBy::Host);
    ASSERT_THAT(said, SizeIs(1));
    EXPECT_THAT(said[0], HasSubstr("192.168.0.0/16 of gw2 covers the network 192.168.1.0/24 of eth0: this host goes on "
                                   "reaching 192.168.1.0/24 directly"));
    EXPECT_THAT(said[0], HasSubstr("\"tailrace set --routes-over-lan\""));
    said = accepted_route_warnings({{prefix("192.168.1.128/25"), "gw2"}}, networks, AttachedBy::Tunnel);
    ASSERT_THAT(said, SizeIs(1));
    EXPECT_THAT(said[0], HasSubstr("a part of the network 192.168.1.0/24 of eth0: this host reaches 192.168.1.128/25 "
                                   "through the tunnel"));
    EXPECT_THAT(said[0], HasSubstr("\"tailrace set --routes-over-lan=false\""));
    EXPECT_THAT(accepted_route_warnings({{prefix("192.168.2.0/24"), "gw2"}, {prefix("10.0.0.0/8"), "gw2"}}, networks,
                                        AttachedBy::Host),
                IsEmpty());
}

TEST(AcceptedRoutes, LeaveAloneWhatTheHostIsAttachedTo) {
    std::vector<HostNetwork> networks = {{prefix("192.168.1.5/24"), false, "eth0"},
                                         {prefix("192.168.1.6/24"), false, "eth0"},
                                         {prefix("172.17.0.1/16"), false, "docker0", false},
                                         {prefix("127.0.0.1/8"), true, "lo"}};
    auto attached = keep_attached({{prefix("192.168.0.0/16"), "gw"},
                                   {prefix("192.168.1.0/24"), "gw"},
                                   {prefix("192.168.1.128/25"), "gw"},
                                   {prefix("172.17.0.0/16"), "gw"},
                                   {prefix("10.0.0.0/8"), "gw"}},
                                  networks);
    EXPECT_THAT(attached.kept_out, ElementsAre(prefix("192.168.1.0/24")));
    EXPECT_THAT(attached.left_out, testing::UnorderedElementsAre(prefix("192.168.1.0/24"), prefix("192.168.1.128/25")));
}

TEST(AcceptedRoutes, DontFloodTheHealthReport) {
    std::vector<AcceptedRoute> routes;
    for (int i = 0; i < 200; ++i)
        routes.push_back({IpPrefix{IpAddress::v4(0xc0a80100u + static_cast<std::uint32_t>(i)), 32}, "gw"});
    EXPECT_THAT(accepted_route_warnings(routes, {{prefix("192.168.1.5/24"), false, "eth0"}}, AttachedBy::Host),
                SizeIs(6));
}

TEST(AcceptedRoutes, TellOfAnExitNodeInPieces) {
    auto said =
        accepted_route_warnings({{prefix("0.0.0.0/1"), "gw"}, {prefix("128.0.0.0/1"), "gw"}}, {}, AttachedBy::Host);
    ASSERT_THAT(said, SizeIs(1));
    EXPECT_THAT(said[0], HasSubstr("of gw are together half of all IPv4 addresses of the internet or more"));
    EXPECT_THAT(
        accepted_route_warnings({{prefix("8.0.0.0/5"), "gw"}, {prefix("8.0.0.0/6"), "gw"}}, {}, AttachedBy::Host),
        IsEmpty());
    for (const auto& pieces : {std::vector{"::/1", "8000::/1"}, {"2000::/3"}, {"2000::/4"}, {"2000::/5", "2800::/5"}}) {
        std::vector<AcceptedRoute> routes;
        for (const char* piece : pieces) routes.push_back({prefix(piece), "gw"});
        said = accepted_route_warnings(routes, {}, AttachedBy::Host);
        ASSERT_THAT(said, SizeIs(1)) << pieces.front();
        EXPECT_THAT(said[0], HasSubstr("of gw are together half of all IPv6 addresses of the internet or more"));
    }
    for (const char* piece : {"2001:db8::/32", "fc00::/7", "8000::/1", "2000::/5"})
        EXPECT_THAT(accepted_route_warnings({{prefix(piece), "gw"}}, {}, AttachedBy::Host), IsEmpty()) << piece;
}

TEST(ViaRoute, NamesASiteAndAnIpv4Network) {
    auto via = to_via({7, prefix("10.1.2.0/24")});
    ASSERT_TRUE(via);
    EXPECT_EQ(via->text(), "fd7a:115c:a1e0:b1a:0:7:a01:200/120");
    auto back = from_via(*via);
    ASSERT_TRUE(back);
    EXPECT_EQ(back->site, 7u);
    EXPECT_EQ(back->prefix, prefix("10.1.2.0/24"));
    EXPECT_EQ(to_via({7, prefix("10.1.2.3/32")})->address().text(), "fd7a:115c:a1e0:b1a:0:7:a01:203");
}

TEST(ViaRoute, RefusesWhatCannotBe) {
    EXPECT_FALSE(to_via({65536, prefix("10.0.0.0/8")}));
    EXPECT_FALSE(to_via({1, prefix("fd00::/8")}));
    EXPECT_FALSE(from_via(prefix("fd7a:115c:a1e0:b1b::/96")));
    EXPECT_FALSE(from_via(prefix("fd7a:115c:a1e0:b1a::/95")));
    EXPECT_FALSE(check_via(prefix("fd7a:115c:a1e0:b1a:1::/96")));
    EXPECT_FALSE(check_via(prefix("fd7a:115c:a1e0:b1a::/64")));
    EXPECT_TRUE(check_via(prefix("fd7a:115c:a1e0:b1a:0:ffff::/96")));
    EXPECT_TRUE(check_via(prefix("10.0.0.0/8")));
}

TEST(UdpGro, IsWorthAWarningWhereTheTunnelTakesLargePackets) {
    const InterfaceFeatures large{{"tx-udp-segmentation", true}}, small{{"tx-udp-segmentation", false}};
    auto uplink = [](bool forwarding, bool list) {
        return InterfaceFeatures{{"rx-udp-gro-forwarding", forwarding}, {"rx-gro-list", list}};
    };
    EXPECT_EQ(
        udp_gro_trouble(large, "eth0", uplink(false, false)),
        "UDP GRO forwarding is suboptimally configured on eth0, UDP forwarding throughput capability will increase "
        "with a configuration change.\nSee https://tailscale.com/s/ethtool-config-udp-gro");
    EXPECT_NE(udp_gro_trouble(large, "eth0", uplink(true, true)), "");
    EXPECT_EQ(udp_gro_trouble(large, "eth0", uplink(true, false)), "");
    EXPECT_EQ(udp_gro_trouble(small, "eth0", uplink(false, false)), "");
    EXPECT_EQ(udp_gro_trouble(large, "eth0", {}), "") << "a kernel that has no such thing";
}

} // namespace
} // namespace tailrace
