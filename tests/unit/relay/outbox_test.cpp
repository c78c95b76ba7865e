#include "relay/core/outbox.hpp"

#include <algorithm>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

namespace tailrace::relay {
namespace {

using namespace std::chrono_literals;
using Flushed = Outbox::Flushed;

// An outbox on one end of a small socket pair, its client at the other.
class OutboxTest : public ::testing::Test {
protected:
    OutboxTest() {
        int pair[2];
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
        client = Fd{pair[1]};
        int small = 4096;
        ::setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
        transport.emplace(Fd{pair[0]});
    }
    Outbox::Way way() { return {*transport, pool, nullptr, now}; }
    std::optional<PacketKind> packet(std::uint8_t number, PacketKind kind = PacketKind::Other,
                                     std::size_t size = 1000) {
        return outbox.add_packet(way(), kind, size, [number](std::span<std::byte> out) {
            std::fill(out.begin(), out.end(), std::byte{number});
        });
    }
    // The numbers of the packets that arrive, reading until nothing more comes.
    std::vector<int> drain(std::size_t size = 1000) {
        Bytes all;
        for (;;) {
            std::byte piece[65536];
            ssize_t count = ::recv(client.get(), piece, sizeof piece, 0);
            if (count > 0) {
                all.insert(all.end(), piece, piece + count);
            } else if (outbox.empty() || outbox.flush(way()) == Flushed::Done) {
                count = ::recv(client.get(), piece, sizeof piece, 0);
                if (count <= 0) break;
                all.insert(all.end(), piece, piece + count);
            }
        }
        std::vector<int> out;
        for (std::size_t at = 0; at + size <= all.size(); at += size) {
            for (std::size_t i = 0; i < size; ++i) EXPECT_EQ(all[at + i], all[at]) << "a torn packet";
            out.push_back(std::to_integer<int>(all[at]));
        }
        EXPECT_EQ(all.size() % size, 0U);
        return out;
    }
    int fill_socket() {
        int count = 0;
        while (!outbox.blocked() && count < 200) {
            packet(200);
            (void)outbox.flush(way());
            ++count;
        }
        EXPECT_TRUE(outbox.blocked());
        return count;
    }

    Fd client;
    BufferPool pool;
    std::optional<Transport> transport;
    TimePoint now = TimePoint{} + 1h;
    Outbox outbox;
};

TEST_F(OutboxTest, GathersAndWritesAtOnce) {
    EXPECT_TRUE(outbox.empty());
    for (std::uint8_t i = 0; i < 3; ++i) EXPECT_EQ(packet(i), std::nullopt);
    EXPECT_FALSE(outbox.empty());
    EXPECT_EQ(outbox.flush(way()), Flushed::Done);
    EXPECT_TRUE(outbox.empty()) << "an idle client holds nothing";
    EXPECT_EQ(drain(), (std::vector<int>{0, 1, 2}));
}

TEST_F(OutboxTest, KeepsFreshPacketsWhenTheClientDoesNotRead) {
    int before = fill_socket();
    for (std::uint8_t i = 0; i < 32; ++i) EXPECT_EQ(packet(i), std::nullopt);
    EXPECT_EQ(packet(32), PacketKind::Other);
    EXPECT_EQ(packet(33), PacketKind::Other);
    for (std::uint8_t i = 100; i < 132; ++i) EXPECT_EQ(packet(i, PacketKind::Disco), std::nullopt);
    EXPECT_EQ(packet(132, PacketKind::Disco), PacketKind::Disco);
    auto got = drain();
    got.erase(got.begin(), got.begin() + before);
    std::vector<int> expected;
    for (int i = 101; i <= 132; ++i) expected.push_back(i);
    for (int i = 2; i <= 33; ++i) expected.push_back(i);
    EXPECT_EQ(got, expected);
    EXPECT_FALSE(outbox.blocked());
    EXPECT_TRUE(outbox.empty());
}

TEST_F(OutboxTest, NoticesAreNotDroppedButBounded) {
    fill_socket();
    Bytes notice(1000, std::byte{7});
    for (int i = 0; i < 64; ++i) EXPECT_TRUE(outbox.add_notice(way(), notice, 64'000));
    EXPECT_FALSE(outbox.add_notice(way(), notice, 64'000));
    auto got = drain();
    EXPECT_EQ(std::count(got.begin(), got.end(), 7), 64);
}

TEST_F(OutboxTest, ALongNoticeGoesOutInPieces) {
    Bytes flood(1'000'000, std::byte{9});
    EXPECT_TRUE(outbox.add_notice(way(), flood, 2'000'000));
    EXPECT_EQ(outbox.flush(way()), Flushed::Blocked);
    EXPECT_EQ(drain().size(), 1000U);
}

TEST_F(OutboxTest, TheLargestPacketPasses) {
    EXPECT_EQ(packet(5, PacketKind::Other, 65536 + 37), std::nullopt);
    (void)outbox.flush(way());
    EXPECT_EQ(drain(65536 + 37), (std::vector<int>{5}));
}

TEST_F(OutboxTest, TheClockOfASlowClientStartsAgainWithEachStepForward) {
    fill_socket();
    TimePoint first = outbox.blocked_since();
    now += 1s;
    EXPECT_EQ(outbox.flush(way()), Flushed::Blocked);
    EXPECT_EQ(outbox.blocked_since(), first);
    std::byte some[4096];
    while (::recv(client.get(), some, sizeof some, 0) > 0) {
    }
    for (std::uint8_t i = 0; i < 32; ++i) packet(i);
    now += 500ms;
    if (outbox.flush(way()) == Flushed::Blocked) EXPECT_EQ(outbox.blocked_since(), now);
}

TEST_F(OutboxTest, AClientThatHasGoneIsAFailure) {
    client.reset();
    packet(1);
    EXPECT_EQ(outbox.flush(way()), Flushed::Failed);
    EXPECT_TRUE(outbox.failed());
    EXPECT_EQ(packet(2), PacketKind::Other);
    EXPECT_FALSE(outbox.add_notice(way(), Bytes(5), 1000));
}

} // namespace
} // namespace tailrace::relay
