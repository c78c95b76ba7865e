// base/random.hpp - randomness good enough for keys.
#pragma once
#include "base/bytes.hpp"

#include <sodium.h>

namespace tailrace {

inline void fill_random(std::span<std::byte> out) {
    randombytes_buf(out.data(), out.size());
}
template <std::size_t N>
std::array<std::byte, N> random_array() {
    std::array<std::byte, N> out;
    fill_random(out);
    return out;
}
inline std::uint64_t random_u64() {
    std::uint64_t value = 0;
    randombytes_buf(&value, sizeof value);
    return value;
}
/// Uniform in [0, limit); limit > 0.
inline std::uint32_t random_below(std::uint32_t limit) {
    return randombytes_uniform(limit);
}

} // namespace tailrace
