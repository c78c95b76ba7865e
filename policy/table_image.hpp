// policy/table_image.hpp - a policy's hosts, pairs and rows laid out as the packet programs look them up.
#pragma once
#include "base/bytes.hpp"
#include "bpf/shared/policy_map.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace tailrace {

/// BLAKE2b, so that equal sums mean equal contents.
using ContentSum = std::array<std::byte, 16>;
ContentSum content_sum(BytesView contents);

/// Buckets of bpf/shared/hash.h, to be copied into a map as they are; a power of two of them.
template <typename Bucket>
struct ImagePart {
    static constexpr std::size_t kBlock = 64; ///< buckets
    std::vector<Bucket> buckets;
    std::vector<ContentSum> sums; ///< of each block: who knows what a map holds finds the changes without reading it
};

struct TableImage {
    ImagePart<tr_host_bucket> hosts;
    ImagePart<tr_pair_bucket> pairs;
    ImagePart<tr_row_bucket> rows;
    std::uint64_t seed = 0;
};

/// The fewest buckets that hold so many entries: four fifths of them are used at most.
std::size_t image_buckets(std::size_t entries);
/// tr_place::shift of so many buckets, a power of two.
std::uint32_t place_shift(std::size_t buckets);
/// The other way round: so many entries fit into these buckets (rounded down to a power of two).
std::size_t entries_in_buckets(std::size_t buckets);

/// At most so many buckets each. Where they allow, there are more buckets than entries: few packets then look at more
/// than one entry.
struct ImageLimits {
    std::size_t hosts = SIZE_MAX, pairs = SIZE_MAX, rows = SIZE_MAX;
};

/// Pure. Keys must be unique. No value when they don't fit; or when no seed works out, which for tables no fuller than
/// that happens once in millions.
std::optional<TableImage> lay_out(const std::vector<tr_host>& hosts, const std::vector<tr_pair>& pairs,
                                  const std::vector<tr_row>& rows, const ImageLimits& limits = {});

} // namespace tailrace
