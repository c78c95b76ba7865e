#include "agent/engine/guard_keeper.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tailrace {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

Link link(std::string name, std::string kind, std::vector<std::string> addresses = {}) {
    Link out;
    out.name = std::move(name);
    out.kind = std::move(kind);
    out.up = out.running = true;
    for (const std::string& text : addresses) {
        InterfaceAddress address;
        address.prefix = *IpPrefix::parse(text);
        out.addresses.push_back(address);
    }
    return out;
}

TEST(InterfacesToGuard, AreThoseWithADriverOfTheirOwn) {
    Link lo = link("lo", "", {"127.0.0.1/8"});
    lo.loopback = true;
    Link wan = link("ppp0", "", {"192.0.2.1/32"});
    wan.point_to_point = true;
    Link down = link("eth2", "", {"10.0.0.1/24"});
    down.up = false;
    EXPECT_THAT(
        interfaces_to_guard({lo, wan, down, link("eth0", "", {"192.0.2.5/24"}), link("eth1", ""),
                             link("tailrace0", "tun", {"100.64.0.1/32"}), link("wg0", "wireguard", {"10.1.0.1/24"}),
                             link("br0", "bridge", {"10.2.0.1/24"}), link("eth0.7", "vlan", {"10.3.0.1/24"})},
                            "tailrace0"),
        ElementsAre("eth0", "eth1"));
}

TEST(InterfacesToGuard, OfVirtualCablesOnlyOurOwnEnds) {
    EXPECT_THAT(interfaces_to_guard({link("eth0", "veth", {"192.0.2.5/24"}), link("veth1234", "veth"),
                                     link("veth5678", "veth", {"fe80::1/64"})},
                                    "tailrace0"),
                ElementsAre("eth0"));
}

TEST(InterfacesToGuard, NeverTheTunnel) {
    EXPECT_THAT(interfaces_to_guard({link("tailrace0", "veth", {"100.64.0.1/32"})}, "tailrace0"), IsEmpty());
}

} // namespace
} // namespace tailrace
