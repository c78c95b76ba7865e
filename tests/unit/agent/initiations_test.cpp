#include "agent/path/initiations.hpp"

#include "tests/unit/agent/moments.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tailrace {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

const NodeKey kAlice{std::array<std::byte, 32>{std::byte{1}}}, kBob{std::array<std::byte, 32>{std::byte{2}}};
const Bytes kFirst{148, std::byte{1}}, kSecond = [] {
    Bytes other = kFirst;
    other.back() = std::byte{2};
    return other;
}();

TEST(Initiations, AreToldFromOtherMessages) {
    EXPECT_TRUE(Initiations::is_initiation(kFirst));
    EXPECT_FALSE(Initiations::is_initiation(Bytes(147, std::byte{1})));
    EXPECT_FALSE(Initiations::is_initiation(Bytes(148, std::byte{4})));
    EXPECT_TRUE(Initiations::is_response(Bytes(92, std::byte{2})));
    EXPECT_FALSE(Initiations::is_response(kFirst));
}

TEST(Initiations, TwoCopiesNeverArriveTogether) {
    Initiations book;
    book.begun(at(0s), kAlice, kFirst, true);
    EXPECT_EQ(book.take_for_path(at(20ms), kAlice), std::nullopt) << "the relay may just deliver the first one";
    EXPECT_THAT(book.take_due(at(249ms)), IsEmpty());
    EXPECT_THAT(book.take_due(at(250ms)), ElementsAre(Pair(kAlice, kFirst)));
    EXPECT_THAT(book.take_due(at(600ms)), IsEmpty()) << "once";
    EXPECT_EQ(book.take_for_path(at(300ms), kAlice), std::nullopt);
    EXPECT_EQ(book.take_for_path(at(500ms), kAlice), kFirst) << "the guess may have been wrong";
    EXPECT_EQ(book.take_for_path(at(800ms), kAlice), std::nullopt);
}

TEST(Initiations, WhatIsAnsweredIsNotRepeated) {
    Initiations book;
    book.begun(at(0s), kAlice, kFirst, true);
    book.begun(at(0s), kBob, kSecond, true);
    book.answered(kAlice);
    EXPECT_THAT(book.take_due(at(1s)), ElementsAre(Pair(kBob, kSecond)));
    EXPECT_EQ(book.take_for_path(at(1s), kAlice), std::nullopt);
}

TEST(Initiations, WhatHadNowhereToGoGoesWhereItFirstCan) {
    Initiations book;
    book.begun(at(0s), kAlice, kFirst, false);
    EXPECT_EQ(book.take_for_path(at(1ms), kAlice), kFirst) << "no other copy is on its way";
    book.begun(at(1s), kAlice, kFirst, false);
    EXPECT_EQ(book.take_unsent(at(1100ms), kAlice), kFirst);
    EXPECT_EQ(book.take_unsent(at(1100ms), kAlice), std::nullopt);
    EXPECT_EQ(book.take_for_path(at(1200ms), kAlice), std::nullopt) << "one is";
    EXPECT_THAT(book.take_due(at(1300ms)), IsEmpty());
    EXPECT_THAT(book.take_due(at(1350ms)), ElementsAre(Pair(kAlice, kFirst)));
    book.begun(at(2s), kAlice, kSecond, false);
    EXPECT_THAT(book.take_due(at(2s)), ElementsAre(Pair(kAlice, kSecond)));
    EXPECT_EQ(book.take_for_path(at(2010ms), kAlice), std::nullopt);
}

TEST(Initiations, TheLastOneCountsAndNotForLong) {
    Initiations book;
    book.begun(at(0s), kAlice, kFirst, true);
    book.begun(at(100ms), kAlice, kSecond, true);
    EXPECT_THAT(book.take_due(at(300ms)), IsEmpty());
    EXPECT_THAT(book.take_due(at(350ms)), ElementsAre(Pair(kAlice, kSecond)));
    EXPECT_EQ(book.take_for_path(at(5100ms), kAlice), std::nullopt) << "WireGuard begins anew by itself";
    book.begun(at(6s), kBob, kFirst, true);
    EXPECT_THAT(book.take_due(at(12s)), IsEmpty());
    book.begun(at(20s), kAlice, kFirst, true);
    book.keep_only({kBob});
    EXPECT_THAT(book.take_due(at(21s)), IsEmpty());
}

} // namespace
} // namespace tailrace
