// Every entry of an image must be where a packet looks for it. The look-up here is written after bpf/address.bpf.h.
#include "policy/table_image.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

namespace tailrace {
namespace {

/// In the first of its two buckets, or in the second if the first one is full.
const tr_host* find(const TableImage& image, const tr_host& wanted) {
    std::uint64_t words[2];
    std::memcpy(words, wanted.addr.bytes, sizeof words);
    std::uint64_t hash = tr_hash(words[0], words[1] + wanted.scope.side, image.seed);
    const tr_place place{0, place_shift(image.hosts.buckets.size())};
    for (std::uint32_t at : {tr_bucket_of(place, hash), tr_bucket_of(place, tr_second_hash(hash))}) {
        for (const tr_host& host : image.hosts.buckets[at].way)
            if (std::memcmp(&host.addr, &wanted.addr, sizeof host.addr) == 0 && host.scope.side == wanted.scope.side)
                return &host;
        if (image.hosts.buckets[at].way[TR_WAYS - 1].scope.side == 0) return nullptr;
    }
    return nullptr;
}

/// The number in the last bytes of an address, as in a network that hands out addresses one after the other.
tr_host host(std::uint8_t family, std::uint8_t side, std::uint32_t number) {
    tr_host out{};
    out.scope = {0, side, family, 0};
    out.value.address_class = number;
    std::uint8_t* bytes = out.addr.bytes;
    std::size_t end = family == 4 ? 4 : 16;
    bytes[0] = family == 4 ? 100 : 0xfd;
    for (std::size_t i = 1; i <= 3; ++i) bytes[end - i] = static_cast<std::uint8_t>(number >> (8 * (i - 1)));
    return out;
}

TEST(TableImage, EveryHostIsFoundAndNoOther) {
    for (std::uint32_t count : {0u, 1u, 2u, 22u, 700u, 13107u, 26214u}) {
        std::vector<tr_host> hosts;
        for (std::uint32_t i = 0; i < count; ++i)
            hosts.push_back(host(i % 2 ? 4 : 6, i % 3 ? TR_SIDE_SOURCE : TR_SIDE_DESTINATION, i));
        auto image = lay_out(hosts, {}, {});
        ASSERT_TRUE(image) << count;
        EXPECT_GE(image->hosts.buckets.size(), 2 * count);
        EXPECT_LT(image->hosts.buckets.size(), std::max<std::size_t>(4 * count, 2 * image_buckets(0)));
        for (const tr_host& one : hosts) {
            const tr_host* found = find(*image, one);
            ASSERT_TRUE(found) << one.value.address_class << " of " << count;
            EXPECT_EQ(found->value.address_class, one.value.address_class);
        }
        EXPECT_FALSE(find(*image, host(4, TR_SIDE_SOURCE, count)));
    }
}

TEST(TableImage, AFullTableWorksOut) {
    for (std::size_t buckets : {16u, 64u, 1024u, 16384u}) {
        std::size_t entries = entries_in_buckets(buckets);
        EXPECT_EQ(image_buckets(entries), buckets);
        std::vector<tr_pair> pairs(entries);
        std::vector<tr_row> rows(entries);
        for (std::size_t i = 0; i < entries; ++i) {
            pairs[i].src_class = static_cast<std::uint32_t>(i + 1);
            pairs[i].dst_class = 1;
            rows[i] = {static_cast<std::uint32_t>(i / 2), 1, static_cast<std::uint8_t>(i % 2 ? 6 : 17), 0, 1, 0};
        }
        auto image = lay_out({}, pairs, rows, {buckets, buckets, buckets});
        ASSERT_TRUE(image) << buckets;
        EXPECT_EQ(image->pairs.buckets.size(), buckets);
        std::size_t stored = 0;
        for (const tr_pair_bucket& bucket : image->pairs.buckets)
            for (const tr_pair& pair : bucket.way) stored += pair.src_class != 0;
        EXPECT_EQ(stored, entries);
        EXPECT_FALSE(lay_out({}, pairs, {}, {buckets, buckets / 2, buckets}));
    }
}

TEST(TableImage, ASmallChangeTouchesFewBuckets) {
    std::vector<tr_host> hosts;
    for (std::uint32_t i = 0; i < 10000; ++i) hosts.push_back(host(4, TR_SIDE_SOURCE, i));
    auto before = lay_out(hosts, {}, {});
    hosts.push_back(host(4, TR_SIDE_SOURCE, 12345));
    auto after = lay_out(hosts, {}, {});
    ASSERT_TRUE(before && after && before->hosts.buckets.size() == after->hosts.buckets.size());
    std::size_t changed = 0;
    for (std::size_t i = 0; i < before->hosts.buckets.size(); ++i)
        changed += std::memcmp(&before->hosts.buckets[i], &after->hosts.buckets[i], sizeof(tr_host_bucket)) != 0;
    EXPECT_LT(changed, 10u);
    std::size_t changed_sums = 0;
    for (std::size_t i = 0; i < before->hosts.sums.size(); ++i)
        changed_sums += before->hosts.sums[i] != after->hosts.sums[i];
    EXPECT_GT(changed_sums, 0u);
    EXPECT_LT(changed_sums, 10u);
}

} // namespace
} // namespace tailrace
