// relay/table/seeded_hash.hpp - a hash of node keys that a stranger can't predict.
#pragma once
#include "base/random.hpp"
#include "proto/keys.hpp"

namespace tailrace::relay {

/// SipHash with a key made at start: clients choose their node keys, and must be able to pile up neither one bucket nor
/// one core.
struct SeededHash {
    std::size_t operator()(const NodeKey& key) const {
        static const auto seed = random_array<crypto_shorthash_KEYBYTES>();
        std::uint64_t out = 0;
        crypto_shorthash(reinterpret_cast<unsigned char*>(&out), key.data(), NodeKey::kSize, as_uchars(seed));
        return static_cast<std::size_t>(out);
    }
};

/// The directory of the relay: which core knows everything about a key. All connections of a key live there, so
/// duplicates, presence and mesh routes of one key never need two cores to agree.
inline std::uint32_t home_core(const NodeKey& key, std::uint32_t cores) {
    return cores == 1 ? 0 : static_cast<std::uint32_t>((SeededHash{}(key) >> 32) % cores);
}

} // namespace tailrace::relay
