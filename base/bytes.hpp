// base/bytes.hpp - reading and writing wire formats, byte by byte and with bounds.
#pragma once
#include "base/result.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

using Bytes = std::vector<std::byte>;
using BytesView = std::span<const std::byte>;

inline BytesView as_bytes(std::string_view text) {
    return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
inline std::string_view as_chars(BytesView bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline const unsigned char* as_uchars(BytesView bytes) {
    return reinterpret_cast<const unsigned char*>(bytes.data());
}
inline Bytes to_bytes(BytesView view) {
    return {view.begin(), view.end()};
}

/// Reads straight down a buffer and remembers the first short read: ask ok() once, at the end.
/// After a short read everything that follows reads as zero.
class Reader {
public:
    explicit Reader(BytesView data) : data_(data) {}

    std::uint8_t u8() { return static_cast<std::uint8_t>(big_endian(1)); }
    std::uint16_t be16() { return static_cast<std::uint16_t>(big_endian(2)); }
    std::uint32_t be32() { return static_cast<std::uint32_t>(big_endian(4)); }
    std::uint64_t be64() { return big_endian(8); }
    std::uint16_t le16() { return static_cast<std::uint16_t>(little_endian(2)); }
    std::uint32_t le32() { return static_cast<std::uint32_t>(little_endian(4)); }
    std::uint64_t le64() { return little_endian(8); }

    /// The next `count` bytes, or an empty view when there are fewer.
    BytesView bytes(std::size_t count) {
        if (!ok_ || count > left()) {
            ok_ = false;
            return {};
        }
        BytesView taken = data_.subspan(at_, count);
        at_ += count;
        return taken;
    }
    template <std::size_t N>
    std::array<std::byte, N> array() {
        std::array<std::byte, N> out{};
        BytesView taken = bytes(N);
        if (taken.size() == N) std::memcpy(out.data(), taken.data(), N);
        return out;
    }
    BytesView rest() { return bytes(left()); }
    std::size_t left() const { return data_.size() - at_; }
    bool ok() const { return ok_; }
    Error error(std::string_view what) const { return Error::make("{}: ends after {} bytes", what, data_.size()); }

private:
    std::uint64_t big_endian(std::size_t count) {
        std::uint64_t value = 0;
        for (std::byte b : bytes(count)) value = value << 8 | static_cast<std::uint8_t>(b);
        return value;
    }
    std::uint64_t little_endian(std::size_t count) {
        std::uint64_t value = 0;
        int shift = 0;
        for (std::byte b : bytes(count)) {
            value |= static_cast<std::uint64_t>(b) << shift;
            shift += 8;
        }
        return value;
    }

    BytesView data_;
    std::size_t at_ = 0;
    bool ok_ = true;
};

/// Appends to a buffer that it owns; the mirror of Reader.
class Writer {
public:
    void u8(std::uint8_t value) { out_.push_back(std::byte{value}); }
    void be16(std::uint16_t value) { big_endian(value, 2); }
    void be32(std::uint32_t value) { big_endian(value, 4); }
    void be64(std::uint64_t value) { big_endian(value, 8); }
    void le16(std::uint16_t value) { little_endian(value, 2); }
    void le32(std::uint32_t value) { little_endian(value, 4); }
    void le64(std::uint64_t value) { little_endian(value, 8); }
    void bytes(BytesView data) { out_.insert(out_.end(), data.begin(), data.end()); }
    void text(std::string_view data) { bytes(as_bytes(data)); }

    const Bytes& view() const { return out_; }
    Bytes take() { return std::move(out_); }

private:
    void big_endian(std::uint64_t value, int count) {
        for (int i = count - 1; i >= 0; --i) u8(static_cast<std::uint8_t>(value >> (8 * i)));
    }
    void little_endian(std::uint64_t value, int count) {
        for (int i = 0; i < count; ++i) u8(static_cast<std::uint8_t>(value >> (8 * i)));
    }

    Bytes out_;
};

} // namespace tailrace
