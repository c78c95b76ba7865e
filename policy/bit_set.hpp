// policy/bit_set.hpp - a set of small numbers of a size known beforehand.
#pragma once
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

namespace tailrace {

/// Numbers below size(). Sets that are combined have the same size.
class BitSet {
public:
    BitSet() = default;
    explicit BitSet(std::size_t size) : size_(size), words_((size + 63) / 64) {}

    static BitSet full(std::size_t size) {
        BitSet set{size};
        for (auto& word : set.words_) word = ~std::uint64_t{0};
        if (size % 64 != 0) set.words_.back() >>= 64 - size % 64;
        return set;
    }

    std::size_t size() const { return size_; }
    void insert(std::size_t i) { words_[i / 64] |= std::uint64_t{1} << (i % 64); }
    void erase(std::size_t i) { words_[i / 64] &= ~(std::uint64_t{1} << (i % 64)); }
    bool contains(std::size_t i) const { return (words_[i / 64] >> (i % 64) & 1) != 0; }

    /// Takes one number out; those above it count one less.
    void remove_number(std::size_t i) {
        const auto first = i / 64;
        const auto below = (std::uint64_t{1} << (i % 64)) - 1;
        words_[first] = (words_[first] & below) | (words_[first] >> 1 & ~below);
        for (auto k = first; k + 1 < words_.size(); ++k) {
            words_[k] = (words_[k] & ~(std::uint64_t{1} << 63)) | words_[k + 1] << 63;
            words_[k + 1] >>= 1;
        }
        resize(size_ - 1);
    }
    /// Makes room for a new number, which is not in the set; those from it on count one more.
    void add_number(std::size_t i) {
        resize(size_ + 1);
        const auto first = i / 64;
        const auto below = (std::uint64_t{1} << (i % 64)) - 1;
        for (auto k = words_.size() - 1; k > first; --k) words_[k] = words_[k] << 1 | words_[k - 1] >> 63;
        words_[first] = (words_[first] & below) | (words_[first] & ~below) << 1;
    }
    /// New numbers are not in the set; those that go were not.
    void resize(std::size_t size) {
        size_ = size;
        words_.resize((size + 63) / 64);
    }

    bool empty() const {
        for (const auto word : words_) {
            if (word != 0) return false;
        }
        return true;
    }

    bool intersects(const BitSet& other) const {
        for (std::size_t i = 0; i < words_.size(); ++i) {
            if ((words_[i] & other.words_[i]) != 0) return true;
        }
        return false;
    }

    bool is_subset_of(const BitSet& other) const {
        for (std::size_t i = 0; i < words_.size(); ++i) {
            if ((words_[i] & ~other.words_[i]) != 0) return false;
        }
        return true;
    }

    std::size_t count() const {
        std::size_t sum = 0;
        for (auto word : words_) { // without an instruction for it, which not every machine has
            word -= word >> 1 & 0x5555555555555555ULL;
            word = (word & 0x3333333333333333ULL) + (word >> 2 & 0x3333333333333333ULL);
            sum += ((word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fULL) * 0x0101010101010101ULL >> 56;
        }
        return sum;
    }

    BitSet& operator|=(const BitSet& other) {
        for (std::size_t i = 0; i < words_.size(); ++i) words_[i] |= other.words_[i];
        return *this;
    }
    BitSet& operator^=(const BitSet& other) {
        for (std::size_t i = 0; i < words_.size(); ++i) words_[i] ^= other.words_[i];
        return *this;
    }
    BitSet& operator&=(const BitSet& other) {
        for (std::size_t i = 0; i < words_.size(); ++i) words_[i] &= other.words_[i];
        return *this;
    }
    auto operator<=>(const BitSet&) const = default;

    /// Calls `visit(number)` in ascending order.
    template <typename Visit>
    void for_each(Visit visit) const {
        for (std::size_t i = 0; i < words_.size(); ++i) {
            for (auto word = words_[i]; word != 0; word &= word - 1)
                visit(i * 64 + static_cast<std::size_t>(__builtin_ctzll(word)));
        }
    }

    std::size_t hash() const {
        return std::hash<std::string_view>{}(
            {reinterpret_cast<const char*>(words_.data()), words_.size() * sizeof(std::uint64_t)});
    }

private:
    std::size_t size_ = 0;
    std::vector<std::uint64_t> words_;
};

/// A set that many hold and hardly anybody changes: copies share it until one of them is changed.
class SharedBitSet {
public:
    SharedBitSet() = default;
    SharedBitSet(BitSet set) : set_(std::make_shared<const BitSet>(std::move(set))) {} // NOLINT: it is one

    const BitSet& get() const {
        static const BitSet kNone;
        return set_ ? *set_ : kNone;
    }
    operator const BitSet&() const { return get(); } // NOLINT: it is one

    std::size_t size() const { return get().size(); }
    bool contains(std::size_t i) const { return set_->contains(i); }
    bool empty() const { return get().empty(); }
    bool intersects(const BitSet& other) const { return get().intersects(other); }
    bool is_subset_of(const BitSet& other) const { return get().is_subset_of(other); }
    std::size_t count() const { return get().count(); }
    template <typename Visit>
    void for_each(Visit visit) const {
        get().for_each(visit);
    }

    SharedBitSet& operator|=(const BitSet& other) {
        BitSet changed = get();
        changed |= other;
        set_ = std::make_shared<const BitSet>(std::move(changed));
        return *this;
    }
    /// Whether both hold the very same set.
    bool is(const SharedBitSet& other) const { return set_ == other.set_; }

private:
    std::shared_ptr<const BitSet> set_;
};

} // namespace tailrace
