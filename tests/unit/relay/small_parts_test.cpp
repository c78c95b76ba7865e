// Queue, bucket, wheel, buffers, lists: the small pure parts.
#include "base/token_bucket.hpp"
#include "relay/core/buffer.hpp"
#include "relay/core/timer_wheel.hpp"
#include "relay/net/certificate.hpp"
#include "relay/server/metrics.hpp"
#include "relay/server/state_files.hpp"
#include "relay/table/packet_queue.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/ssl.h>

namespace tailrace::relay {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TimePoint at(Duration since_start) {
    return TimePoint{} + 1h + since_start;
}

TEST(PacketQueue, TheThirtyThirdDisplacesTheOldest) {
    PacketQueue<int> queue;
    for (int i = 0; i < 32; ++i) EXPECT_FALSE(queue.push(PacketKind::Other, i));
    EXPECT_EQ(queue.push(PacketKind::Other, 32), 0);
    for (int i = 0; i < 32; ++i)
        EXPECT_FALSE(queue.push(PacketKind::Disco, 100 + i)) << "discovery has slots of its own";
    EXPECT_EQ(queue.push(PacketKind::Disco, 132), 100);
    EXPECT_EQ(queue.size(), 64U);
    for (int i = 101; i <= 132; ++i) EXPECT_EQ(queue.pop(), i);
    for (int i = 1; i <= 32; ++i) {
        EXPECT_EQ(*queue.front(), i);
        EXPECT_EQ(queue.pop(), i);
    }
    EXPECT_TRUE(queue.empty());
    EXPECT_EQ(queue.pop(), std::nullopt);
    EXPECT_EQ(queue.front(), nullptr);
}

TEST(TokenBucket, AllowsABurstAndThenTheRate) {
    TokenBucket bucket{1, 3, at(0s)};
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(bucket.try_take(at(0s)));
    EXPECT_FALSE(bucket.try_take(at(900ms)));
    EXPECT_TRUE(bucket.try_take(at(1s)));
    EXPECT_FALSE(bucket.try_take(at(1s)));
    EXPECT_TRUE(bucket.try_take(at(1h)));
}

TEST(TokenBucket, SaysHowLongItOwes) {
    TokenBucket bucket{1000, 1000, at(0s)};
    EXPECT_EQ(bucket.take(at(0s), 1000), 0s);
    EXPECT_EQ(bucket.take(at(0s), 500), 500ms);
    EXPECT_EQ(bucket.take(at(1s), 500), 0s);
}

TEST(TimerWheel, FiresOnceNeverEarlyAndATickLateAtMost) {
    TimerWheel wheel{at(0s)};
    wheel.set(at(1s), 5, 1);
    wheel.set(at(90s), 6, 1);
    std::vector<std::pair<Slot, Duration>> fired;
    for (Duration t = 0s; t < 100s; t += 50ms)
        wheel.advance(at(t), [&](Slot slot, std::uint32_t) { fired.emplace_back(slot, t); });
    ASSERT_EQ(fired.size(), 2U);
    EXPECT_EQ(fired[0].first, 5U);
    EXPECT_GE(fired[0].second, 1s);
    EXPECT_LE(fired[0].second, 1s + TimerWheel::kTick + 50ms);
    EXPECT_GE(fired[1].second, 90s);
    EXPECT_TRUE(wheel.empty());
}

TEST(TimerWheel, BeyondItsReachFiresEarlySoThatOneLooksAgain) {
    TimerWheel wheel{at(0s)};
    wheel.set(at(1h), 5, 1);
    bool fired = false;
    wheel.advance(at(132s), [&](Slot, std::uint32_t) { fired = true; });
    EXPECT_TRUE(fired);
}

TEST(TimerWheel, ALongPauseFiresEverythingThatIsDue) {
    TimerWheel wheel{at(0s)};
    for (Slot slot = 0; slot < 100; ++slot) wheel.set(at(slot * 1s), slot, 0);
    int fired = 0;
    wheel.advance(at(10h), [&](Slot, std::uint32_t) { ++fired; });
    EXPECT_EQ(fired, 100);
}

TEST(BufferPool, UsesBuffersAgain) {
    BufferPool pool;
    Buffer* first = nullptr;
    {
        BufferPtr buffer = pool.take(100);
        first = buffer.get();
        EXPECT_EQ(buffer->capacity, BufferPool::kSmall);
        buffer->extend(10);
    }
    BufferPtr again = pool.take(200);
    EXPECT_EQ(again.get(), first);
    EXPECT_EQ(again->end, 0U);
    EXPECT_EQ(pool.take(BufferPool::kSmall + 1)->capacity, BufferPool::kLarge);
    EXPECT_EQ(pool.take(70'000)->capacity, 70'000U);
}

TEST(KeyListFile, HasAKeyALineAndComments) {
    const std::string one = "nodekey:" + std::string(64, 'a'), two = "nodekey:" + std::string(64, 'B');
    auto list = parse_key_list("# who may come in\n" + one + "\n\n  " + two + "  # laptop\r\n", "keys");
    ASSERT_TRUE(list) << list.error().message();
    EXPECT_EQ(list->size(), 2U);
    EXPECT_TRUE(list->contains(*NodeKey::parse(two)));
    auto bad = parse_key_list(one + "\nmkey:00\n", "keys");
    ASSERT_FALSE(bad);
    EXPECT_THAT(bad.error().message(), HasSubstr("keys:2:"));
}

TEST(Certificate, CarriesTheDerpKeyBehindTheOwnCertificate) {
    auto identity = make_self_signed({"203.0.113.2"});
    ASSERT_TRUE(identity);
    auto pin = certificate_pin(identity->certificate);
    ASSERT_TRUE(pin);
    EXPECT_EQ(pin->size(), 11U + 64U);
    NodeKey key = NodePrivateKey::generate().public_key();
    auto context = relay_tls(*identity, key);
    ASSERT_TRUE(context) << context.error().message();
    STACK_OF(X509)* chain = nullptr;
    SSL_CTX_get0_chain_certs(context->get(), &chain);
    ASSERT_EQ(sk_X509_num(chain), 1);
    X509* meta = sk_X509_value(chain, 0);
    EXPECT_EQ(ASN1_INTEGER_get(X509_get0_serialNumber(meta)), 2);
    EXPECT_EQ(EVP_PKEY_base_id(X509_get0_pubkey(meta)), EVP_PKEY_ED25519);
    const ASN1_STRING* name = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(X509_get_subject_name(meta), 0));
    EXPECT_EQ(ASN1_STRING_type(name), V_ASN1_UTF8STRING);
    std::string text(reinterpret_cast<const char*>(ASN1_STRING_get0_data(name)),
                     static_cast<std::size_t>(ASN1_STRING_length(name)));
    EXPECT_EQ("nodekey:" + text.substr(7), key.text());
    EXPECT_EQ(text.substr(0, 7), "derpkey");
}

TEST(Metrics, AddsUpTheCores) {
    Counters one, two;
    one.packets_sent.add(3);
    two.packets_sent.add(4);
    two.drop(DropReason::QueueHead, PacketKind::Disco);
    std::string text = write_metrics({&one, &two});
    EXPECT_THAT(text, HasSubstr("\ntailrace_relay_packets_sent_total 7\n"));
    EXPECT_THAT(text, HasSubstr("{reason=\"queue_head\",kind=\"disco\"} 1\n"));
}

} // namespace
} // namespace tailrace::relay
