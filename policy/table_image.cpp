#include "policy/table_image.hpp"

#include <sodium.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>
#include <utility>

namespace tailrace {
namespace {

constexpr std::size_t kLeastBuckets = 16;
constexpr std::size_t kRoomForEach = 2; // buckets an entry: where they allow, it has one for itself
constexpr int kSeeds = 64;
constexpr int kMoves = 500; // of entries that make room for another one

std::uint64_t hash_of(const tr_host& host, std::uint64_t seed) {
    std::uint64_t words[2];
    static_assert(sizeof words == sizeof host.addr);
    std::memcpy(words, host.addr.bytes, sizeof words);
    return tr_hash(words[0], words[1] + host.scope.side, seed);
}
std::uint64_t hash_of(const tr_pair& pair, std::uint64_t seed) {
    return tr_hash(pair.src_class, pair.dst_class, seed);
}
std::uint64_t hash_of(const tr_row& row, std::uint64_t seed) {
    return tr_hash(row.rule_set | std::uint64_t{row.port_class} << 32 | std::uint64_t{row.ip_proto} << 48, 0, seed);
}

bool is_free(const tr_host& host) {
    return host.scope.side == 0;
}
bool is_free(const tr_pair& pair) {
    return pair.src_class == 0;
}
bool is_free(const tr_row& row) {
    return row.rule == 0;
}

template <typename Bucket, typename Entry>
bool put(Bucket& bucket, const Entry& entry) {
    for (Entry& way : bucket.way) {
        if (!is_free(way)) continue;
        way = entry;
        return true;
    }
    return false;
}

/// Buckets never get emptier, so an entry in its second bucket has a first one that is full: what packets rely on.
template <typename Bucket, typename Entry>
bool insert(std::vector<Bucket>& buckets, Entry entry, std::uint64_t seed) {
    const tr_place place{0, place_shift(buckets.size())};
    std::uint64_t hash = hash_of(entry, seed);
    if (put(buckets[tr_bucket_of(place, hash)], entry)) return true;
    std::uint32_t at = tr_bucket_of(place, tr_second_hash(hash));
    for (int move = 0; move < kMoves; ++move) {
        if (put(buckets[at], entry)) return true;
        std::swap(entry, buckets[at].way[(hash >> (move % 32)) % TR_WAYS]);
        std::uint64_t other = hash_of(entry, seed);
        std::uint32_t first = tr_bucket_of(place, other);
        at = first == at ? tr_bucket_of(place, tr_second_hash(other)) : first;
    }
    return false;
}

template <typename Bucket, typename Entry>
bool fill(ImagePart<Bucket>& part, const std::vector<Entry>& entries, std::uint64_t seed, std::size_t limit) {
    std::size_t buckets = image_buckets(entries.size());
    if (buckets > limit) return false;
    while (buckets < kRoomForEach * entries.size() && buckets * 2 <= limit) buckets *= 2;
    part.buckets.assign(buckets, Bucket{});
    return std::all_of(entries.begin(), entries.end(),
                       [&](const Entry& entry) { return insert(part.buckets, entry, seed); });
}

template <typename Bucket>
void add_sums(ImagePart<Bucket>& part) {
    for (std::size_t at = 0; at < part.buckets.size(); at += part.kBlock) {
        std::size_t count = std::min(part.kBlock, part.buckets.size() - at);
        part.sums.push_back(content_sum(std::as_bytes(std::span{&part.buckets[at], count})));
    }
}

} // namespace

ContentSum content_sum(BytesView contents) {
    ContentSum sum;
    ::crypto_generichash(reinterpret_cast<unsigned char*>(sum.data()), sum.size(),
                         reinterpret_cast<const unsigned char*>(contents.data()), contents.size(), nullptr, 0);
    return sum;
}

std::size_t image_buckets(std::size_t entries) {
    return std::bit_ceil(std::max(kLeastBuckets, (entries * 5 + 4 * TR_WAYS - 1) / (4 * TR_WAYS)));
}

std::uint32_t place_shift(std::size_t buckets) {
    return static_cast<std::uint32_t>(64 - std::countr_zero(buckets));
}

std::size_t entries_in_buckets(std::size_t buckets) {
    return std::bit_floor(buckets) * TR_WAYS * 4 / 5;
}

std::optional<TableImage> lay_out(const std::vector<tr_host>& hosts, const std::vector<tr_pair>& pairs,
                                  const std::vector<tr_row>& rows, const ImageLimits& limits) {
    TableImage image;
    for (int attempt = 1; attempt <= kSeeds; ++attempt) {
        image.seed = static_cast<std::uint64_t>(attempt) * 0xd1342543de82ef95ull | 1;
        if (!fill(image.hosts, hosts, image.seed, limits.hosts) ||
            !fill(image.pairs, pairs, image.seed, limits.pairs) || !fill(image.rows, rows, image.seed, limits.rows))
            continue;
        add_sums(image.hosts);
        add_sums(image.pairs);
        add_sums(image.rows);
        return image;
    }
    return std::nullopt;
}

} // namespace tailrace
