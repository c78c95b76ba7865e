// Vectors: derp-disco-paths.md 3.4, produced by the reference code.
#include "proto/disco.hpp"

#include "base/text.hpp"

#include <gtest/gtest.h>

namespace tailrace {
namespace {

template <std::size_t N>
std::array<std::byte, N> raw(std::string_view hex) {
    return Reader{*hex_decode(hex)}.array<N>();
}
DiscoNonce nonce_from(int first) {
    DiscoNonce nonce;
    for (std::size_t i = 0; i < nonce.size(); ++i) nonce[i] = static_cast<std::byte>(first + static_cast<int>(i));
    return nonce;
}

const DiscoPrivateKey kA{raw<32>("606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f")};
const DiscoPrivateKey kB{raw<32>("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e5f")};
const DiscoTxId kTxId = raw<12>("0102030405060708090a0b0c");
const NodeKey kNodeA{raw<32>("dc2cca31e8e43bbd91dff7e475cca3347eb478107d5bd765aba4ae4a30c35d44")};

constexpr std::string_view kPingPacket =
    "5453f09f92ac675dd574ed7789310b3d2e7681f3790b466c773b1521fecf36577958371ea52f00010203040506070809"
    "0a0b0c0d0e0f1011121314151617bc901087f08a2be12aeb8bf4fe4ab8f57231ff3b28fc9e548ecb63c02dc6cda1fa5f"
    "07f0e838fdc5a1857892dd191bd6a13e1d0f4f6768c939e604db285e";
constexpr std::string_view kPongPacket =
    "5453f09f92ac493e82fc74464a59268817623d2053c5eb8e2cc4a988b4fee179ec6b010d531d18191a1b1c1d1e1f2021"
    "22232425262728292a2b2c2d2e2f3c2c606b3700c59396d3a993b96c446ec12e262e5c9739acfc456003f2e353dc0544"
    "91a67b3e3c9e1c10245391b3e3af";
constexpr std::string_view kCallPacket =
    "5453f09f92ac675dd574ed7789310b3d2e7681f3790b466c773b1521fecf36577958371ea52f30313233343536373839"
    "3a3b3c3d3e3f4041424344454647b1e945e091eeaa995129bf0b2daca7b993831e346241ded9b32c7a0cd1a6aa6a7c74"
    "bb3a030c00f6fce49f3db53314abc692baab4b1f";

Endpoint endpoint(std::string_view text) {
    return *Endpoint::parse(text);
}

TEST(Disco, PacketsMatchTheVectors) {
    auto a_to_b = DiscoBox::between(kA, kB.public_key());
    auto b_to_a = DiscoBox::between(kB, kA.public_key());
    ASSERT_TRUE(a_to_b && b_to_a);
    DiscoPing ping{kTxId, kNodeA};
    DiscoPong pong{kTxId, endpoint("203.0.113.9:41641")};
    DiscoCallMeMaybe call{{endpoint("203.0.113.9:41641"), endpoint("[2001:db8::9]:41641")}};
    EXPECT_EQ(hex_encode(a_to_b->seal(ping, nonce_from(0x00))), kPingPacket);
    EXPECT_EQ(hex_encode(b_to_a->seal(pong, nonce_from(0x18))), kPongPacket);
    EXPECT_EQ(hex_encode(a_to_b->seal(call, nonce_from(0x30))), kCallPacket);

    EXPECT_EQ(*b_to_a->open(*hex_decode(kPingPacket)), DiscoMessage{ping});
    EXPECT_EQ(*a_to_b->open(*hex_decode(kPongPacket)), DiscoMessage{pong});
    EXPECT_EQ(*b_to_a->open(*hex_decode(kCallPacket)), DiscoMessage{call});
    EXPECT_EQ(disco_sender(*hex_decode(kPingPacket)), kA.public_key());
}

TEST(Disco, PlaintextsMatchTheReferenceTests) {
    EXPECT_EQ(hex_encode(write_disco_message(DiscoPong{kTxId, endpoint("2.3.4.5:1234")})),
              "02000102030405060708090a0b0c00000000000000000000ffff0203040504d2");
    EXPECT_EQ(hex_encode(write_disco_message(DiscoPong{kTxId, endpoint("[fed0::12]:6666")})),
              "02000102030405060708090a0b0cfed000000000000000000000000000121a0a");
    EXPECT_EQ(
        hex_encode(write_disco_message(DiscoCallMeMaybe{{endpoint("1.2.3.4:567"), endpoint("[2001::3456]:789")}})),
        "030000000000000000000000ffff0102030402372001000000000000000000000000"
        "34560315");
}

TEST(Disco, PaddedPingsAndPingsWithoutKey) {
    DiscoPing padded{kTxId, kNodeA, 1128};
    Bytes packet = DiscoBox::between(kA, kB.public_key())->seal(padded);
    EXPECT_EQ(packet.size(), 124u + 1128u);
    EXPECT_EQ(*DiscoBox::between(kB, kA.public_key())->open(packet), DiscoMessage{padded});
    auto bare = parse_disco_message(*hex_decode("01000102030405060708090a0b0c"));
    ASSERT_TRUE(bare);
    EXPECT_TRUE(std::get<DiscoPing>(*bare).node_key.is_zero());
}

TEST(Disco, TruncatedMessagesAreErrorsAndUnknownOnesAreNot) {
    EXPECT_FALSE(parse_disco_message({}));
    EXPECT_FALSE(parse_disco_message(*hex_decode("01")));
    EXPECT_FALSE(parse_disco_message(*hex_decode("0100010203")));
    EXPECT_FALSE(parse_disco_message(*hex_decode("02000102030405060708090a0b0c00")));
    EXPECT_EQ(*parse_disco_message(*hex_decode("0700aabb")), DiscoMessage{DiscoUnknown{7}});
    EXPECT_EQ(*parse_disco_message(*hex_decode("0300aabb")), DiscoMessage{DiscoCallMeMaybe{}});
    EXPECT_EQ(*parse_disco_message(*hex_decode("030100000000000000000000ffff010203040237")),
              DiscoMessage{DiscoCallMeMaybe{}});
}

TEST(Disco, OurOwnMessageIsOfATypeThatOthersDoNotKnow) {
    DiscoPunch punch{DiscoPunch::Step::Ready, 0x01020304, endpoint("2.3.4.5:1234")};
    EXPECT_EQ(hex_encode(write_disco_message(punch)), "d401020102030400000000000000000000ffff0203040504d2");
    EXPECT_EQ(*parse_disco_message(write_disco_message(punch)), DiscoMessage{punch});
    DiscoPunch silent{DiscoPunch::Step::Go, 7, {}};
    EXPECT_EQ(*parse_disco_message(write_disco_message(silent)), DiscoMessage{silent});
    Bytes later = write_disco_message(punch);
    later.push_back(std::byte{9}); // what a later version may add
    EXPECT_EQ(*parse_disco_message(later), DiscoMessage{punch});
    EXPECT_FALSE(parse_disco_message(BytesView{later}.first(24)));
    for (auto [at, value] : {std::pair{1u, 2}, {2u, 0}, {2u, 6}}) { // another version, steps that there are not
        Bytes foreign = write_disco_message(punch);
        foreign[at] = static_cast<std::byte>(value);
        EXPECT_EQ(*parse_disco_message(foreign), DiscoMessage{DiscoUnknown{0xd4}});
    }
}

TEST(Disco, ForeignAndDamagedPacketsDoNotOpen) {
    auto box = DiscoBox::between(kB, kA.public_key());
    Bytes packet = *hex_decode(kPingPacket);
    for (std::size_t at : {0u, 40u, 70u, 123u}) {
        Bytes bad = packet;
        bad[at] ^= std::byte{1};
        EXPECT_FALSE(box->open(bad)) << at;
    }
    EXPECT_FALSE(box->open(BytesView{packet}.first(61)));
    EXPECT_FALSE(box->open(BytesView{packet}.first(70)));
    EXPECT_FALSE(DiscoBox::between(DiscoPrivateKey::generate(), kA.public_key())->open(packet));
    EXPECT_FALSE(looks_like_disco(BytesView{packet}.first(37)));
    EXPECT_TRUE(looks_like_disco(BytesView{packet}.first(38)));
    EXPECT_FALSE(looks_like_disco(Bytes(100)));
    EXPECT_FALSE(DiscoBox::between(kA, DiscoKey{}));
}

} // namespace
} // namespace tailrace
