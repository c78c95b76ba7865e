#include "base/text.hpp"

#include <gtest/gtest.h>

namespace tailrace {
namespace {

TEST(Text, HexGoesBothWaysAndRefusesOddLengths) {
    EXPECT_EQ(hex_encode(as_bytes("\x01\xab")), "01ab");
    EXPECT_EQ(as_chars(*hex_decode("01AB")), "\x01\xab");
    EXPECT_FALSE(hex_decode("abc"));
    EXPECT_FALSE(hex_decode("zz"));
}

TEST(Text, Base64HasPadding) {
    EXPECT_EQ(base64_encode(as_bytes("a")), "YQ==");
    EXPECT_EQ(as_chars(*base64_decode("YWJj")), "abc");
    EXPECT_EQ(base64_encode({}), "");
    EXPECT_FALSE(base64_decode("Y!=="));
}

TEST(Text, NumbersAreWhole) {
    EXPECT_EQ(*parse_number<int>("-12"), -12);
    EXPECT_FALSE(parse_number<int>("12x"));
    EXPECT_FALSE(parse_number<std::uint16_t>("65536"));
    EXPECT_FALSE(parse_number<int>(""));
}

TEST(Text, SplitKeepsEmptyPieces) {
    EXPECT_EQ(split("a,,b", ',').size(), 3U);
}

} // namespace
} // namespace tailrace
