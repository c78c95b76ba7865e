#include "base/time.hpp"

#include <gtest/gtest.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;

TEST(WallTime, ZeroIsGosZeroTime) {
    EXPECT_EQ(WallTime{}.text(), "0001-01-01T00:00:00Z");
    EXPECT_TRUE(WallTime::parse("0001-01-01T00:00:00Z")->is_zero());
}

TEST(WallTime, ReadsOffsetsAndFractions) {
    EXPECT_EQ(WallTime::parse("1970-01-01T01:02:03+01:00")->seconds, 123) << "a stock client's logout";
    EXPECT_EQ(WallTime::parse("2026-08-22T12:00:00.5Z")->nanos, 500'000'000);
    EXPECT_EQ(WallTime::parse("2026-11-22T16:02:56.083352153Z")->text(), "2026-11-22T16:02:56.083352153Z");
    EXPECT_FALSE(WallTime::parse(""));
    EXPECT_FALSE(WallTime::parse("2026-08-22 12:00:00"));
    EXPECT_FALSE(WallTime::parse("2026-13-22T12:00:00Z"));
}

TEST(WallTime, AddsAndSubtracts) {
    WallTime t = WallTime::from_unix(100, 900'000'000);
    EXPECT_EQ(t.plus(200ms), WallTime::from_unix(101, 100'000'000));
    EXPECT_EQ(t.plus(-2s), WallTime::from_unix(98, 900'000'000));
    EXPECT_EQ(t.plus(1s).minus(t), 1s);
}

TEST(Duration, ReadsGosAndDays) {
    EXPECT_EQ(*parse_duration("1h30m"), 90min);
    EXPECT_EQ(*parse_duration("250ms"), 250ms);
    EXPECT_EQ(*parse_duration("90d"), 24h * 90);
    EXPECT_EQ(*parse_duration("1.5s"), 1500ms);
    EXPECT_FALSE(parse_duration("5"));
    EXPECT_FALSE(parse_duration("abc"));
    EXPECT_FALSE(parse_duration(""));
}

} // namespace
} // namespace tailrace
