// relay/core/mail.hpp - packets on their way from one core to another: batches in a bounded ring, no locks.
#pragma once
#include "proto/keys.hpp"
#include "relay/core/buffer.hpp"
#include "relay/table/connection_ref.hpp"

#include <array>
#include <atomic>

namespace tailrace::relay {

enum class MailType : std::uint8_t {
    Packet,    ///< from a client, to the home of its destination
    Forwarded, ///< the same, from another relay: it may go to local clients only
    ToLink,    ///< from the home of a destination, to the core of the mesh link that leads there
    NotHere,   ///< back to the sender: nobody has that key
};

/// What stands before each packet in a batch. The core that sends it is known by the ring.
struct MailHead {
    MailType type{};
    std::uint32_t size = 0; ///< of the packet behind it
    Slot slot = 0;          ///< Packet, Forwarded, NotHere: the sender. ToLink: the link
    std::uint32_t generation = 0;
    std::array<std::byte, NodeKey::kSize> from{}, to{};
};
static_assert(std::is_trivially_copyable_v<MailHead>);

/// Batches from one core to one other, in order. One thread pushes, one pops.
class BatchRing {
public:
    static constexpr std::size_t kDepth = 256; ///< batches; 4 MB when all are full

    ~BatchRing() {
        while (Buffer* batch = pop()) BufferPool::destroy(batch);
    }
    bool push(Buffer* batch) {
        std::size_t head = head_.load(std::memory_order_relaxed);
        if (head - tail_.load(std::memory_order_acquire) == kDepth) return false;
        batches_[head % kDepth] = batch;
        head_.store(head + 1, std::memory_order_release);
        return true;
    }
    Buffer* pop() {
        std::size_t tail = tail_.load(std::memory_order_relaxed);
        if (tail == head_.load(std::memory_order_acquire)) return nullptr;
        Buffer* batch = batches_[tail % kDepth];
        tail_.store(tail + 1, std::memory_order_release);
        return batch;
    }
    bool empty() const { return tail_.load(std::memory_order_acquire) == head_.load(std::memory_order_acquire); }

private:
    std::array<Buffer*, kDepth> batches_{};
    alignas(64) std::atomic<std::size_t> head_{0};
    alignas(64) std::atomic<std::size_t> tail_{0};
};

/// Writes one piece of mail at the end of a batch that has room for it.
inline void write_mail(Buffer& batch, const MailHead& head, BytesView packet) {
    std::span<std::byte> out = batch.extend(sizeof head + packet.size());
    std::memcpy(out.data(), &head, sizeof head);
    if (!packet.empty()) std::memcpy(out.data() + sizeof head, packet.data(), packet.size());
}

/// Calls on_mail(head, packet) for each piece of mail in a batch.
template <typename OnMail>
void read_mail(Buffer& batch, OnMail on_mail) {
    while (batch.end - batch.begin >= sizeof(MailHead)) {
        MailHead head;
        std::memcpy(&head, batch.data() + batch.begin, sizeof head);
        batch.begin += sizeof head;
        on_mail(head, BytesView{batch.data() + batch.begin, head.size});
        batch.begin += head.size;
    }
}

} // namespace tailrace::relay
