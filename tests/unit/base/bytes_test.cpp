#include "base/bytes.hpp"

#include <gtest/gtest.h>

namespace tailrace {
namespace {

TEST(Reader, ReadsNumbersInBothOrders) {
    Writer out;
    out.be16(0x0102);
    out.le32(0x03040506);
    out.be64(0x0708090a0b0c0d0e);
    Reader in{out.view()};
    EXPECT_EQ(in.be16(), 0x0102);
    EXPECT_EQ(in.le32(), 0x03040506U);
    EXPECT_EQ(in.be64(), 0x0708090a0b0c0d0eU);
    EXPECT_TRUE(in.ok());
    EXPECT_EQ(in.left(), 0U);
}

TEST(Reader, RemembersTheFirstShortRead) {
    Reader in{as_bytes("ab")};
    EXPECT_EQ(in.be32(), 0U);
    EXPECT_EQ(in.u8(), 0U) << "nothing is read after a short read";
    EXPECT_FALSE(in.ok());
    EXPECT_EQ(in.error("a frame").message(), "a frame: ends after 2 bytes");
}

} // namespace
} // namespace tailrace
