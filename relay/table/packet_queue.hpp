// relay/table/packet_queue.hpp - what waits for a client that does not read: few packets, fresh ones win.
#pragma once
#include <array>
#include <cstddef>
#include <optional>
#include <utility>

namespace tailrace::relay {

enum class PacketKind { Disco, Other };

/// Two queues of `kDepth` packets, one for path discovery and one for the rest, so that neither starves the other. A
/// full queue gives up its oldest. Source: tailscale derp/derpserver/derpserver.go. Pure.
template <typename Packet>
class PacketQueue {
public:
    static constexpr std::size_t kDepth = 32;

    /// Returns the packet that had to go, if any.
    std::optional<Packet> push(PacketKind kind, Packet packet) { return queue(kind).push(std::move(packet)); }
    /// Discovery first: it is small, and a path found relieves the relay.
    std::optional<Packet> pop() {
        if (auto packet = disco_.pop()) return packet;
        return other_.pop();
    }
    const Packet* front() const {
        return disco_.size > 0 ? &disco_.items[disco_.first] : other_.size > 0 ? &other_.items[other_.first] : nullptr;
    }
    bool empty() const { return disco_.size == 0 && other_.size == 0; }
    std::size_t size() const { return disco_.size + other_.size; }

private:
    struct Ring {
        std::array<Packet, kDepth> items{};
        std::size_t first = 0, size = 0;

        std::optional<Packet> push(Packet packet) {
            std::optional<Packet> dropped;
            if (size == kDepth) dropped = pop();
            items[(first + size) % kDepth] = std::move(packet);
            ++size;
            return dropped;
        }
        std::optional<Packet> pop() {
            if (size == 0) return std::nullopt;
            Packet packet = std::move(items[first]);
            first = (first + 1) % kDepth;
            --size;
            return packet;
        }
    };
    Ring& queue(PacketKind kind) { return kind == PacketKind::Disco ? disco_ : other_; }

    Ring disco_, other_;
};

} // namespace tailrace::relay
