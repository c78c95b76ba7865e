#include "control/tailnet/addresses.hpp"

#include <gtest/gtest.h>

namespace tailrace {
namespace {

TEST(AddressPool, GivesBothFamiliesTheSameOffset) {
    AddressPool pool{cgnat_prefix(), tailscale_ula_prefix()};
    auto first = pool.take();
    ASSERT_TRUE(first);
    EXPECT_EQ(first->first.text(), "100.64.0.1");
    EXPECT_EQ(first->second.text(), "fd7a:115c:a1e0::1");
    EXPECT_EQ(pool.take()->first.text(), "100.64.0.2");
}

TEST(AddressPool, SkipsWhatBelongsToServices) {
    AddressPool pool{*IpPrefix::parse("100.100.96.0/20"), tailscale_ula_prefix()};
    AddressPool hole{*IpPrefix::parse("100.115.92.0/22"), tailscale_ula_prefix()};
    for (int i = 0; i < 4000; ++i) {
        auto pair = pool.take();
        if (!pair) break;
        EXPECT_FALSE(IpPrefix::parse("100.100.100.0/24")->contains(pair->first));
        EXPECT_NE(pair->second.text(), "fd7a:115c:a1e0::53");
    }
    EXPECT_EQ(hole.take()->first.text(), "100.115.94.0");
}

TEST(AddressPool, ComesBackToReleasedAddressesLast) {
    AddressPool pool{*IpPrefix::parse("100.64.0.0/28"), tailscale_ula_prefix()};
    std::vector<std::pair<IpAddress, IpAddress>> taken;
    while (auto pair = pool.take()) taken.push_back(*pair);
    EXPECT_EQ(taken.size(), 14u);
    pool.release(taken[3].first, taken[3].second);
    auto again = pool.take();
    ASSERT_TRUE(again);
    EXPECT_EQ(again->first, taken[3].first);
    EXPECT_FALSE(pool.take());
}

TEST(DnsLabel, MakesALabelOfAnyHostName) {
    EXPECT_EQ(dns_label("Laptop"), "laptop");
    EXPECT_EQ(dns_label("laptop.home.lan"), "laptop");
    EXPECT_EQ(dns_label("Anna's MacBook Pro"), "annas-macbook-pro");
    EXPECT_EQ(dns_label("--__--"), "node");
    EXPECT_EQ(dns_label(""), "node");
    EXPECT_EQ(dns_label(std::string(100, 'a')).size(), 63u);
}

} // namespace
} // namespace tailrace
