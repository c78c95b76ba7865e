// base/text.hpp - hex, base64 and the small things one does with strings.
#pragma once
#include "base/bytes.hpp"
#include "base/result.hpp"

#include <charconv>
#include <concepts>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// Lower-case hex.
std::string hex_encode(BytesView data);
/// Either case; fails on an odd length or a foreign character.
Result<Bytes> hex_decode(std::string_view text);

/// Standard alphabet with padding (RFC 4648 section 4), as Go's encoding/json writes []byte.
std::string base64_encode(BytesView data);
Result<Bytes> base64_decode(std::string_view text);

std::string_view trim(std::string_view text);
/// Empty pieces are kept: "a,,b" has three.
std::vector<std::string_view> split(std::string_view text, char separator);
bool equals_ignoring_case(std::string_view a, std::string_view b);
std::string to_lower(std::string_view text);
std::string join(const std::vector<std::string>& parts, std::string_view separator);

/// A whole decimal number and nothing else; out of range is an error.
template <std::integral T>
Result<T> parse_number(std::string_view text) {
    T value{};
    auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (problem != std::errc{} || end != text.data() + text.size() || text.empty())
        return Error::make("\"{}\" is not a number in range", text);
    return value;
}

/// Lets std::map and std::unordered_map be asked with a string_view.
struct StringHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};

} // namespace tailrace
