#include "relay/table/heard_book.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

namespace tailrace::relay {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

NodeKey key(unsigned number) {
    std::array<std::byte, 32> raw{};
    raw[0] = static_cast<std::byte>(number);
    raw[1] = static_cast<std::byte>(number >> 8);
    return NodeKey{raw};
}

TEST(HeardBook, TellsEachReceiverOnce) {
    HeardBook book;
    book.mark(1, key(7));
    book.mark(2, key(7));
    book.mark(1, key(8));
    book.mark(1, key(7));
    EXPECT_THAT(book.take_receivers(key(7)), UnorderedElementsAre(1, 2));
    EXPECT_THAT(book.take_receivers(key(7)), IsEmpty());
    EXPECT_THAT(book.take_receivers(key(8)), ElementsAre(1));
    EXPECT_EQ(book.marks(), 0U);
}

TEST(HeardBook, ASlotThatIsUsedAgainHasHeardNothing) {
    HeardBook book;
    book.mark(1, key(7));
    book.forget_receiver(1);
    EXPECT_THAT(book.take_receivers(key(7)), IsEmpty());
    book.mark(1, key(8));
    EXPECT_THAT(book.take_receivers(key(7)), IsEmpty());
}

// Against the plainest of all implementations, with many who come and go.
TEST(HeardBook, AgreesWithAPlainSet) {
    HeardBook book;
    std::set<std::pair<unsigned, Slot>> plain;
    std::mt19937 random{42};
    for (int i = 0; i < 60'000; ++i) {
        unsigned source = random() % 40;
        Slot receiver = random() % 60;
        switch (random() % 20) {
        case 0: {
            std::set<Slot> expected;
            for (auto [from, to] : plain)
                if (from == source) expected.insert(to);
            auto got = book.take_receivers(key(source));
            ASSERT_EQ(std::set<Slot>(got.begin(), got.end()), expected);
            ASSERT_EQ(got.size(), expected.size());
            std::erase_if(plain, [&](const auto& pair) { return pair.first == source; });
            break;
        }
        case 1:
            book.forget_receiver(receiver);
            std::erase_if(plain, [&](const auto& pair) { return pair.second == receiver; });
            break;
        default:
            book.mark(receiver, key(source));
            plain.emplace(source, receiver);
        }
        ASSERT_EQ(book.marks(), plain.size());
    }
}

} // namespace
} // namespace tailrace::relay
