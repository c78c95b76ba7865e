// policy/content_hash.hpp - 128 bits that stand for a content, the same in every process and every compilation.
#pragma once
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace tailrace {

/// Different contents have different hashes but for an accident of 2^-100 among the few that are ever compared. Not
/// for contents that somebody chooses in order to collide.
struct ContentHash {
    std::uint64_t a = 0x243f6a8885a308d3ULL;
    std::uint64_t b = 0x13198a2e03707344ULL;

    friend auto operator<=>(const ContentHash&, const ContentHash&) = default;

    /// In order: adding x then y differs from y then x.
    void add(std::uint64_t number) {
        a = mix(a ^ (number * 0x9e3779b97f4a7c15ULL));
        b = mix(b + (number ^ 0xa4093822299f31d0ULL) * 0xc2b2ae3d27d4eb4fULL);
    }
    void add(const ContentHash& other) {
        add(other.a);
        add(other.b);
    }
    void add(std::string_view text) {
        add(text.size());
        while (!text.empty()) {
            std::uint64_t word = 0;
            const auto size = text.size() < sizeof word ? text.size() : sizeof word;
            std::memcpy(&word, text.data(), size);
            add(word);
            text.remove_prefix(size);
        }
    }
    /// Without order: for the members of a set.
    void include(const ContentHash& member) {
        a += member.a;
        b += member.b;
    }

    static ContentHash of(std::string_view text) {
        ContentHash hash;
        hash.add(text);
        return hash;
    }

private:
    static std::uint64_t mix(std::uint64_t x) { // the finalizer of splitmix64
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
        return x ^ (x >> 31);
    }
};

} // namespace tailrace

template <>
struct std::hash<tailrace::ContentHash> {
    std::size_t operator()(const tailrace::ContentHash& hash) const { return hash.a; }
};
