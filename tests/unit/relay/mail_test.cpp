#include "relay/core/mail.hpp"

#include <gtest/gtest.h>

#include <thread>

namespace tailrace::relay {
namespace {

TEST(Mail, ComesOutAsItWentIn) {
    BufferPool pool;
    BufferPtr batch = pool.take(BufferPool::kLarge);
    MailHead head{MailType::Packet, 3, 7, 9, {}, {}};
    head.from.fill(std::byte{1});
    head.to.fill(std::byte{2});
    write_mail(*batch, head, as_bytes("abc"));
    head.type = MailType::NotHere;
    head.size = 0;
    write_mail(*batch, head, {});
    std::vector<std::string> seen;
    read_mail(*batch, [&](const MailHead& got, BytesView packet) {
        EXPECT_EQ(got.slot, 7U);
        EXPECT_EQ(got.from[31], std::byte{1});
        EXPECT_EQ(got.to[0], std::byte{2});
        seen.push_back(fmt::format("{} {}", static_cast<int>(got.type), as_chars(packet)));
    });
    EXPECT_EQ(seen, (std::vector<std::string>{"0 abc", "3 "}));
}

TEST(BatchRing, IsBounded) {
    BufferPool pool;
    BatchRing ring;
    for (std::size_t i = 0; i < BatchRing::kDepth; ++i) {
        BufferPtr batch = pool.take(10);
        ASSERT_TRUE(ring.push(batch.get()));
        (void)batch.release();
    }
    BufferPtr one_more = pool.take(10);
    EXPECT_FALSE(ring.push(one_more.get()));
    EXPECT_FALSE(ring.empty());
}

TEST(BatchRing, KeepsTheOrderBetweenTwoThreads) {
    BatchRing ring;
    constexpr std::uint32_t kBatches = 200'000;
    std::thread producer{[&ring] {
        BufferPool pool;
        for (std::uint32_t i = 0; i < kBatches;) {
            BufferPtr batch = pool.take(10);
            batch->end = 0;
            auto into = batch->extend(sizeof i);
            std::memcpy(into.data(), &i, sizeof i);
            while (!ring.push(batch.get())) std::this_thread::yield();
            (void)batch.release();
            ++i;
        }
    }};
    BufferPool pool;
    for (std::uint32_t expected = 0; expected < kBatches;) {
        Buffer* raw = ring.pop();
        if (raw == nullptr) {
            std::this_thread::yield();
            continue;
        }
        BufferPtr batch = pool.adopt(raw);
        std::uint32_t number = 0;
        std::memcpy(&number, batch->data(), sizeof number);
        ASSERT_EQ(number, expected);
        ++expected;
    }
    producer.join();
    EXPECT_TRUE(ring.empty());
}

} // namespace
} // namespace tailrace::relay
