// relay/core/buffer.hpp - memory for bytes on their way, used again and again.
#pragma once
#include "base/bytes.hpp"

#include <array>
#include <memory>

namespace tailrace::relay {

/// Bytes [begin, end) of a block are valid; more fit behind. Any pool takes any buffer back, also one of another core.
struct alignas(16) Buffer {
    std::uint32_t capacity = 0, begin = 0, end = 0;
    Buffer* next = nullptr; // in a pool

    std::byte* data() { return reinterpret_cast<std::byte*>(this + 1); }
    BytesView unsent() { return {data() + begin, end - begin}; }
    std::size_t room() const { return capacity - end; }
    /// The caller fills what it gets; there must be room().
    std::span<std::byte> extend(std::size_t size) {
        std::span<std::byte> out{data() + end, size};
        end += static_cast<std::uint32_t>(size);
        return out;
    }
};

/// Of one core. Keeps a few buffers of two sizes; others come from the heap and go back there.
class BufferPool {
public:
    static constexpr std::size_t kSmall = 2048 - sizeof(Buffer);    ///< one packet of usual size
    static constexpr std::size_t kLarge = 16 * 1024;                ///< one TLS record
    static constexpr std::size_t kMostSmall = 512, kMostLarge = 64; ///< kept when nobody needs them

    struct Return {
        BufferPool* pool = nullptr;
        void operator()(Buffer* buffer) const {
            if (pool != nullptr)
                pool->give(buffer);
            else
                destroy(buffer);
        }
    };
    using Owned = std::unique_ptr<Buffer, Return>;

    BufferPool() = default;
    ~BufferPool() {
        for (Shelf* shelf : {&small_, &large_})
            while (Buffer* buffer = shelf->take()) destroy(buffer);
    }
    BufferPool(const BufferPool&) = delete;
    BufferPool& operator=(const BufferPool&) = delete;

    Owned take(std::size_t size) {
        Shelf* shelf = size <= kSmall ? &small_ : size <= kLarge ? &large_ : nullptr;
        Buffer* buffer = shelf != nullptr ? shelf->take() : nullptr;
        if (buffer == nullptr) buffer = create(shelf == &small_ ? kSmall : shelf == &large_ ? kLarge : size);
        return Owned{buffer, Return{this}};
    }
    /// A buffer that comes from another core.
    Owned adopt(Buffer* buffer) { return Owned{buffer, Return{this}}; }
    static void destroy(Buffer* buffer) {
        buffer->~Buffer();
        ::operator delete (buffer, std::align_val_t{alignof(Buffer)});
    }

private:
    struct Shelf {
        Buffer* first = nullptr;
        std::size_t count = 0;

        Buffer* take() {
            Buffer* buffer = first;
            if (buffer == nullptr) return nullptr;
            first = buffer->next;
            --count;
            buffer->begin = buffer->end = 0;
            buffer->next = nullptr;
            return buffer;
        }
        void put(Buffer* buffer) {
            buffer->next = first;
            first = buffer;
            ++count;
        }
    };
    static Buffer* create(std::size_t capacity) {
        void* memory = ::operator new (sizeof(Buffer) + capacity, std::align_val_t{alignof(Buffer)});
        auto* buffer = new (memory) Buffer;
        buffer->capacity = static_cast<std::uint32_t>(capacity);
        return buffer;
    }
    void give(Buffer* buffer) {
        if (buffer->capacity == kSmall && small_.count < kMostSmall) return small_.put(buffer);
        if (buffer->capacity == kLarge && large_.count < kMostLarge) return large_.put(buffer);
        destroy(buffer);
    }

    Shelf small_, large_;
};

using BufferPtr = BufferPool::Owned;

} // namespace tailrace::relay
