// relay/core/outbox.hpp - what goes to one client: gathered, written in one go, and bounded when the client is slow.
#pragma once
#include "base/io/websocket.hpp"
#include "base/time.hpp"
#include "relay/core/buffer.hpp"
#include "relay/net/transport.hpp"
#include "relay/table/packet_queue.hpp"

#include <memory>
#include <optional>

namespace tailrace::relay {

/// While the socket takes what it is given, packets are gathered in one buffer until flush(). Once the socket is full,
/// packets wait in a PacketQueue that drops the oldest, and notices (which are not dropped) in a list of bounded size.
/// Holds nothing while idle.
class Outbox {
public:
    /// What it needs of its connection and its core.
    struct Way {
        Transport& transport;
        BufferPool& pool;
        WebSocketCodec* websocket; ///< null for plain DERP
        TimePoint now;
    };
    enum class Flushed { Done, Blocked, Failed };

    /// A frame of `size` bytes that `fill(std::span<std::byte>)` writes. Returns the kind of packet dropped, if any.
    template <typename Fill>
    std::optional<PacketKind> add_packet(const Way& way, PacketKind kind, std::size_t size, Fill fill) {
        if (!blocked_ && !failed_ && make_room(way, size)) {
            fill(buffer_->extend(size));
            return std::nullopt;
        }
        if (failed_) return kind;
        BufferPtr packet = way.pool.take(size);
        fill(packet->extend(size));
        auto dropped = backlog().packets.push(kind, std::move(packet));
        return dropped ? std::optional{kind} : std::nullopt;
    }
    /// A frame that must arrive. False when so much waits already that the client had better be given up.
    bool add_notice(const Way& way, BytesView frame, std::size_t limit_bytes);

    Flushed flush(const Way& way);
    bool blocked() const { return blocked_; }
    bool empty() const { return !buffer_ && !backlog_; }
    bool failed() const { return failed_; }
    /// Since when nothing could be written; only while blocked().
    TimePoint blocked_since() const { return blocked_since_; }

private:
    struct Backlog {
        PacketQueue<BufferPtr> packets;
        Bytes notices;
    };
    Backlog& backlog() {
        if (!backlog_) backlog_ = std::make_unique<Backlog>();
        return *backlog_;
    }
    bool make_room(const Way& way, std::size_t size);
    bool refill(const Way& way);
    bool seal(const Way& way);

    BufferPtr buffer_;
    std::unique_ptr<Backlog> backlog_;
    TimePoint blocked_since_{};
    bool blocked_ = false, failed_ = false, sealed_ = false;
};

} // namespace tailrace::relay
