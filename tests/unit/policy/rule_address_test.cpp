// The words for addresses in a filter rule on the wire.
#include "policy/rule_address.hpp"

#include <gtest/gtest.h>

namespace tailrace {
namespace {

TEST(RuleAddress, IsNamedInFourWays) {
    const auto v4 = *IpAddress::parse("100.64.0.9"), v6 = *IpAddress::parse("fd7a:115c:a1e0::9");
    for (const char* text : {"*", "100.64.0.9", "100.64.0.0/24", "100.64.0.9-100.64.0.20"})
        EXPECT_TRUE(names_address(text, v4)) << text;
    for (const char* text : {"*", "fd7a:115c:a1e0::9", "fd7a:115c:a1e0::/48", "fd7a:115c:a1e0::1-fd7a:115c:a1e0::9"})
        EXPECT_TRUE(names_address(text, v6)) << text;
}

TEST(RuleAddress, OfAnotherOrOfNoneIsNotNamed) {
    const auto v4 = *IpAddress::parse("100.64.0.9");
    for (const char* text : {"100.64.0.8", "100.64.1.0/24", "100.64.0.10-100.64.0.20", "fd7a:115c:a1e0::/48", "::/0",
                             "", "-", "/", "cap:x-y", "100.64.0.1-", "-100.64.0.20", "100.64.0.0/33"})
        EXPECT_FALSE(names_address(text, v4)) << text;
}

} // namespace
} // namespace tailrace
