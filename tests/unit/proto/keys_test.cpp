#include "proto/keys.hpp"

#include "base/text.hpp"

#include <gtest/gtest.h>

namespace tailrace {
namespace {

constexpr std::string_view kClientPrivate = "privkey:0002030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f60";
constexpr std::string_view kClientPublic = "mkey:07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c";

TEST(Keys, PublicHalfFollowsFromThePrivateOne) {
    auto key = MachinePrivateKey::parse(kClientPrivate);
    ASSERT_TRUE(key);
    EXPECT_EQ(key->public_key().text(), kClientPublic);
    EXPECT_EQ(key->text_for_storing(), kClientPrivate);
}

TEST(Keys, ReadsEitherCaseAndWritesLowerCase) {
    std::string upper{kClientPublic};
    for (std::size_t i = 5; i < upper.size(); ++i) upper[i] = static_cast<char>(std::toupper(upper[i]));
    auto key = MachineKey::parse(upper);
    ASSERT_TRUE(key);
    EXPECT_EQ(key->text(), kClientPublic);
}

TEST(Keys, RefusesOtherPrefixesLengthsAndWhiteSpace) {
    std::string text{kClientPublic};
    EXPECT_FALSE(NodeKey::parse(text));
    EXPECT_FALSE(MachineKey::parse(""));
    EXPECT_FALSE(MachineKey::parse("mkey:"));
    EXPECT_FALSE(MachineKey::parse(text + "0"));
    EXPECT_FALSE(MachineKey::parse(text + "00"));
    EXPECT_FALSE(MachineKey::parse(text.substr(0, text.size() - 2)));
    EXPECT_FALSE(MachineKey::parse(" " + text));
    EXPECT_FALSE(MachineKey::parse(text.substr(0, text.size() - 1) + " "));
    EXPECT_FALSE(MachineKey::parse(text.substr(0, text.size() - 1) + "g"));
}

TEST(Keys, ErrorsDoNotRepeatTheKey) {
    auto wrong = MachinePrivateKey::parse(std::string{kClientPrivate} + "zz");
    ASSERT_FALSE(wrong);
    EXPECT_EQ(wrong.error().message().find("0203"), std::string::npos);
}

TEST(Keys, ZeroIsThePrefixAndZeros) {
    EXPECT_EQ(NodeKey{}.text(), "nodekey:" + std::string(64, '0'));
    EXPECT_EQ(DiscoKey{}.text(), "discokey:" + std::string(64, '0'));
    EXPECT_TRUE(NodeKey::parse(NodeKey{}.text())->is_zero());
}

TEST(Keys, TailnetLockKeysHaveTwoPrefixes) {
    std::string digits(64, 'a');
    EXPECT_EQ(NlKey::parse("tlpub:" + digits)->text(), "nlpub:" + digits);
    EXPECT_TRUE(NlKey::parse("nlpub:" + digits));
    auto key = NlPrivateKey::generate();
    auto again = NlPrivateKey::parse(key.text_for_storing());
    ASSERT_TRUE(again);
    EXPECT_EQ(*again, key);
    EXPECT_EQ(again->public_key(), key.public_key());
    EXPECT_FALSE(key.public_key().is_zero());
}

TEST(Keys, GeneratedKeysAreClampedAndDiffer) {
    for (int i = 0; i < 20; ++i) {
        auto key = NodePrivateKey::generate();
        EXPECT_EQ(key.view()[0] & std::byte{7}, std::byte{0});
        EXPECT_EQ(key.view()[31] & std::byte{0xc0}, std::byte{0x40});
        EXPECT_FALSE(key == NodePrivateKey::generate());
    }
}

TEST(Keys, ShortFormsTellThemApart) {
    auto key = MachineKey::parse(kClientPublic);
    EXPECT_EQ(key->short_text(), "[B6N8v]");
    EXPECT_EQ(short_disco_text(DiscoKey{key->raw()}), "d:07a37cbc142093c8");
}

TEST(Keys, X25519RefusesAnAllZeroSecret) {
    EXPECT_FALSE(x25519(NodePrivateKey::generate().secret(), NodeKey{}.view()));
    auto a = NodePrivateKey::generate();
    auto b = NodePrivateKey::generate();
    EXPECT_TRUE(*x25519(a.secret(), b.public_key().view()) == *x25519(b.secret(), a.public_key().view()));
}

} // namespace
} // namespace tailrace
