#include "base/net.hpp"
#include "tests/unit/addresses.hpp"

#include <gtest/gtest.h>

namespace tailrace {
namespace {

IpAddress ip(std::string_view text) {
    return *IpAddress::parse(text);
}
TEST(IpAddress, ReadsAndWritesBothFamilies) {
    EXPECT_EQ(ip("100.64.0.1").text(), "100.64.0.1");
    EXPECT_EQ(ip("FD7A:115C:A1E0:0::1").text(), "fd7a:115c:a1e0::1");
    EXPECT_EQ(ip("").text(), "");
    EXPECT_FALSE(IpAddress::parse("1.2.3"));
    EXPECT_FALSE(IpAddress::parse("1.2.3.4 "));
    EXPECT_FALSE(IpAddress::parse("fe80::1%eth0"));
}

TEST(IpAddress, UnmapsIpv4InIpv6) {
    EXPECT_EQ(ip("::ffff:1.2.3.4").unmapped(), ip("1.2.3.4"));
}

TEST(IpAddress, KnowsTheTailscaleRanges) {
    EXPECT_TRUE(is_tailscale_address(ip("100.64.0.1")));
    EXPECT_FALSE(is_tailscale_address(ip("100.115.92.7"))) << "ChromeOS";
    EXPECT_TRUE(is_tailscale_address(ip("fd7a:115c:a1e0::53")));
    EXPECT_FALSE(is_tailscale_address(ip("10.0.0.1")));
}

TEST(IpPrefix, ContainsAndOverlaps) {
    EXPECT_TRUE(prefix("10.0.0.0/8").contains(ip("10.255.0.1")));
    EXPECT_FALSE(prefix("10.0.0.0/8").contains(ip("11.0.0.1")));
    EXPECT_FALSE(prefix("0.0.0.0/0").contains(ip("::1"))) << "families do not mix";
    EXPECT_TRUE(prefix("10.33.0.0/16").overlaps(prefix("10.0.0.0/8")));
    EXPECT_TRUE(prefix("10.0.0.0/9").contains(prefix("10.1.0.0/16")));
    EXPECT_FALSE(prefix("10.1.0.0/16").contains(prefix("10.0.0.0/9")));
}

TEST(IpPrefix, MasksHostBits) {
    EXPECT_EQ(prefix("10.1.2.3/12").masked().text(), "10.0.0.0/12");
    EXPECT_EQ(prefix("10.1.2.3/12").last().text(), "10.15.255.255");
    EXPECT_EQ(prefix("fd7a::1/65").masked().text(), "fd7a::/65");
    EXPECT_FALSE(IpPrefix::parse("10.0.0.0/33"));
    EXPECT_FALSE(IpPrefix::parse("10.0.0.0"));
    EXPECT_FALSE(IpPrefix::parse("10.0.0.0/-1"));
    EXPECT_FALSE(IpPrefix::parse("10.0.0.0/08"));
    EXPECT_FALSE(IpPrefix::parse("0.0.0.0/00"));
    EXPECT_FALSE(IpPrefix::parse("0.0.0.0/-0"));
    EXPECT_FALSE(IpPrefix::parse("0.0.0.0/"));
    EXPECT_TRUE(IpPrefix::parse("0.0.0.0/0"));
}

TEST(IpRange, BecomesTheFewestPrefixes) {
    IpRange range{ip("10.0.0.1"), ip("10.0.0.6")};
    std::string text;
    for (const auto& p : range.prefixes()) text += p.text() + " ";
    EXPECT_EQ(text, "10.0.0.1/32 10.0.0.2/31 10.0.0.4/31 10.0.0.6/32 ");
    EXPECT_EQ((IpRange{ip("0.0.0.0"), ip("255.255.255.255")}.prefixes().size()), 1U);
    EXPECT_EQ((IpRange{ip("2000::"), ip("3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")}.prefixes().at(0).text()),
              "2000::/3");
}

TEST(Endpoint, NeedsBracketsForIpv6) {
    EXPECT_EQ(Endpoint::parse("[2001:db8::1]:41641")->text(), "[2001:db8::1]:41641");
    EXPECT_EQ(Endpoint::parse("1.2.3.4:5")->port, 5);
    EXPECT_FALSE(Endpoint::parse("2001:db8::1:41641"));
    EXPECT_FALSE(Endpoint::parse("1.2.3.4:65536"));
    EXPECT_FALSE(Endpoint::parse("[1.2.3.4]:1"));
}

} // namespace
} // namespace tailrace
