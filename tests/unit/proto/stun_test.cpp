// Vectors: derp-disco-paths.md 2.1.
#include "base/text.hpp"
#include "proto/stun.hpp"

#include <gtest/gtest.h>

namespace tailrace::stun {
namespace {

Bytes hex(std::string_view text) {
    return *hex_decode(text);
}

const TxId kId = Reader{hex("0102030405060708090a0b0c")}.array<12>();
const char* const kRequest = "000100142112a4420102030405060708090a0b0c802200087461696c6e6f646580280004b32c370f";
const char* const kReplyV4 = "0101000c2112a4420102030405060708090a0b0c00200008000183bbea12d54b";
const char* const kReplyMapped =
    "010100182112a4420102030405060708090a0b0c00200014000283bb2112a442010203040506f8f7c20a7a05";
const char* const kReplyV6 = "010100182112a4420102030405060708090a0b0c00200014000283bb0113a9fa0102030405060708090a0b05";

std::string response_to(const char* endpoint) {
    std::array<std::byte, kMaxResponseSize> buffer{};
    std::size_t size = write_response(buffer, kId, *Endpoint::parse(endpoint));
    return hex_encode(BytesView{buffer}.first(size));
}

TEST(Stun, WritesTheRequestOfTheReference) {
    EXPECT_EQ(hex_encode(write_request(kId)), kRequest);
}

TEST(Stun, AnswersAsTheReferenceDoes) {
    EXPECT_EQ(*parse_request(hex(kRequest)), kId);
    EXPECT_EQ(response_to("203.0.113.9:41641"), kReplyV4);
    EXPECT_EQ(response_to("[2001:db8::9]:41641"), kReplyV6);
}

TEST(Stun, ReadsEveryFormOfAnswer) {
    for (const char* reply : {kReplyV4, kReplyMapped}) {
        auto response = parse_response(hex(reply));
        ASSERT_TRUE(response) << reply;
        EXPECT_EQ(response->id, kId);
        EXPECT_EQ(response->seen_from.text(), "203.0.113.9:41641");
    }
    EXPECT_EQ(parse_response(hex(kReplyV6))->seen_from.text(), "[2001:db8::9]:41641");
    // MAPPED-ADDRESS alone; the old number of XOR-MAPPED-ADDRESS; bytes behind the attributes.
    auto head = std::string{"0101000c2112a4420102030405060708090a0b0c"};
    EXPECT_EQ(parse_response(hex(head + "000100080001a2a9cb007109"))->seen_from.text(), "203.0.113.9:41641");
    EXPECT_EQ(parse_response(hex(head + "80200008000183bbea12d54b"))->seen_from.text(), "203.0.113.9:41641");
    EXPECT_TRUE(parse_response(hex(std::string{kReplyV4} + "ffffff")));
}

TEST(Stun, RefusesCrookedAnswers) {
    Bytes good = hex(kReplyV4);
    for (std::size_t size = 0; size < good.size(); ++size) EXPECT_FALSE(parse_response(BytesView{good}.first(size)));
    Bytes too_long = good;
    too_long[3] = std::byte{13}; // claims more than is there
    EXPECT_FALSE(parse_response(too_long));
    EXPECT_FALSE(parse_response(hex(kRequest)));
}

TEST(Stun, MeetsEverythingElseWithSilence) {
    Bytes good = hex(kRequest);
    for (std::size_t size = 0; size < good.size(); ++size) EXPECT_FALSE(parse_request(BytesView{good}.first(size)));
    for (std::size_t at = 0; at < good.size(); ++at) {
        if (at == 2 || at == 3) continue; // the length, see below
        Bytes bad = good;
        bad[at] ^= std::byte{1};
        EXPECT_FALSE(parse_request(bad)) << at;
    }
    Bytes trailing = good;
    trailing.push_back(std::byte{0});
    EXPECT_FALSE(parse_request(trailing));
}

// Puts `attributes` between header and a right fingerprint, by borrowing the CRC from our own writer's rules.
TEST(Stun, AWrongLengthDoesNotMatterWhenTheFingerprintIsRight) {
    // header length 0x0018 instead of 0x0014, fingerprint recomputed: crc32(first 32 bytes) ^ 0x5354554e
    Bytes request = hex("000100182112a4420102030405060708090a0b0c802200087461696c6e6f6465802800040e94bd82");
    std::uint32_t crc = 0xffffffff;
    for (std::size_t i = 0; i < 32; ++i) {
        crc ^= std::to_integer<std::uint32_t>(request[i]);
        for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xedb88320u : 0u);
    }
    std::uint32_t fingerprint = ~crc ^ 0x5354554eu;
    for (std::size_t i = 0; i < 4; ++i) request[36 + i] = static_cast<std::byte>(fingerprint >> (8 * (3 - i)));
    EXPECT_TRUE(parse_request(request));
}

TEST(Stun, TellsItselfFromDisco) {
    EXPECT_TRUE(looks_like_stun(hex(kRequest)));
    EXPECT_FALSE(looks_like_stun(hex("5453f09f92ac00000000000000000000000000000000000000")));
    EXPECT_FALSE(looks_like_stun({}));
}

} // namespace
} // namespace tailrace::stun
