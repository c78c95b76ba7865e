// relay/core/counters.hpp - what a core has seen. One thread writes, anyone reads.
#pragma once
#include "relay/table/packet_queue.hpp"

#include <array>
#include <atomic>
#include <cstdint>

namespace tailrace::relay {

class Counter {
public:
    void add(std::uint64_t count = 1) {
        value_.store(value_.load(std::memory_order_relaxed) + count, std::memory_order_relaxed);
    }
    void subtract(std::uint64_t count = 1) {
        value_.store(value_.load(std::memory_order_relaxed) - count, std::memory_order_relaxed);
    }
    void set(std::uint64_t value) { value_.store(value, std::memory_order_relaxed); }
    std::uint64_t get() const { return value_.load(std::memory_order_relaxed); }

private:
    std::atomic<std::uint64_t> value_{0};
};

enum class DropReason {
    UnknownDestination,
    UnknownDestinationOnForward,
    GoneDisconnected,
    QueueHead,
    WriteError,
    CoreBusy
};
constexpr std::size_t kDropReasons = 6;
constexpr std::array<const char*, kDropReasons> kDropReasonNames = {
    "unknown_dest", "unknown_dest_on_fwd", "gone_disconnected", "queue_head", "write_error", "core_busy"};

struct Counters {
    Counter packets_received, bytes_received, packets_sent, bytes_sent;
    Counter packets_forwarded_out, packets_forwarded_in;
    std::array<std::array<Counter, 2>, kDropReasons> dropped; ///< by reason and kind
    Counter accepted, connections, clients, home_clients, websocket_clients;
    Counter keys, duplicate_keys, watchers, forwarded_keys, mesh_links;
    Counter logins_refused, login_timeouts, write_timeouts, pings, peer_gone_sent, moved_between_cores;
    Counter stun_answered, stun_ignored;
    Counter wakes;

    void drop(DropReason reason, PacketKind kind, std::uint64_t count = 1) {
        dropped[static_cast<std::size_t>(reason)][static_cast<std::size_t>(kind)].add(count);
    }
};

} // namespace tailrace::relay
