#include "proto/tsmp.hpp"

#include "base/text.hpp"

#include <gtest/gtest.h>

namespace tailrace {
namespace {

const TsmpData kData = Reader{*hex_decode("0102030405060708")}.array<8>();

TEST(Tsmp, BytesAreAsTheReferenceWritesThem) {
    EXPECT_EQ(hex_encode(write_tsmp(TsmpPing{kData})), "700102030405060708");
    EXPECT_EQ(hex_encode(write_tsmp(TsmpPong{kData, 0x1234})), "6f01020304050607081234");
    EXPECT_EQ(hex_encode(write_tsmp(TsmpReject{6, TsmpRejectReason::Acl, 1000, 23})), "21064103e80017");
    EXPECT_EQ(hex_encode(write_tsmp(TsmpReject{6, TsmpRejectReason::ShieldsUp, 1000, 23, true})), "21065303e8001701");
    EXPECT_EQ(write_tsmp(TsmpDiscoKey{DiscoPrivateKey::generate().public_key()}).size(), 33u);
}

TEST(Tsmp, GoesBothWays) {
    DiscoKey key = DiscoPrivateKey::generate().public_key();
    for (const TsmpMessage& message :
         {TsmpMessage{TsmpPing{kData}}, TsmpMessage{TsmpPong{kData, 7}}, TsmpMessage{TsmpDiscoKey{key}},
          TsmpMessage{TsmpReject{17, TsmpRejectReason::HostFirewall, 1, 2, true}}, TsmpMessage{TsmpUnknown{'z'}}}) {
        auto parsed = parse_tsmp(write_tsmp(message));
        ASSERT_TRUE(parsed);
        EXPECT_EQ(*parsed, message);
    }
}

TEST(Tsmp, OldPongsHaveNoPort) {
    EXPECT_EQ(*parse_tsmp(*hex_decode("6f0102030405060708")), TsmpMessage(TsmpPong{kData, 0}));
}

TEST(Tsmp, ShortMessagesAreErrors) {
    for (const char* hex : {"", "70", "7001020304050607", "6f01", "210641", "21064103e800", "61aa"})
        EXPECT_FALSE(parse_tsmp(*hex_decode(hex))) << hex;
}

} // namespace
} // namespace tailrace
