// base/secret.hpp - N secret bytes that are wiped when they go. No text form on purpose.
#pragma once
#include "base/bytes.hpp"

#include <sodium.h>

namespace tailrace {

template <std::size_t N>
class Secret {
public:
    static constexpr std::size_t kSize = N;
    Secret() = default;
    explicit Secret(const std::array<std::byte, N>& bytes) : bytes_(bytes) {}
    Secret(const Secret&) = default;
    Secret& operator=(const Secret&) = default;
    ~Secret() { sodium_memzero(bytes_.data(), N); }

    BytesView view() const { return bytes_; }
    std::span<std::byte> mutable_view() { return bytes_; }
    const unsigned char* data() const { return as_uchars(bytes_); }
    unsigned char* mutable_data() { return reinterpret_cast<unsigned char*>(bytes_.data()); }
    bool is_zero() const { return sodium_is_zero(data(), N) == 1; }
    /// In constant time.
    bool operator==(const Secret& other) const { return sodium_memcmp(bytes_.data(), other.bytes_.data(), N) == 0; }

private:
    std::array<std::byte, N> bytes_{};
};

} // namespace tailrace
