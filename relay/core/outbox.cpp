#include "relay/core/outbox.hpp"

#include <algorithm>

namespace tailrace::relay {

// After this, buffer_ has room for `size`. False when the socket got blocked, or failed, on the way.
bool Outbox::make_room(const Way& way, std::size_t size) {
    if (buffer_ && buffer_->room() >= size) return true;
    if (!buffer_) {
        buffer_ = way.pool.take(size);
        return true;
    }
    std::size_t used = buffer_->end;
    if (buffer_->capacity == BufferPool::kSmall && used + size <= BufferPool::kLarge) {
        BufferPtr larger = way.pool.take(BufferPool::kLarge);
        auto into = larger->extend(used);
        std::memcpy(into.data(), buffer_->data(), used);
        buffer_ = std::move(larger);
        return true;
    }
    if (flush(way) != Flushed::Done) return false;
    buffer_ = way.pool.take(std::max(size, BufferPool::kSmall + 1)); // a busy client: a large one at once
    return true;
}

bool Outbox::add_notice(const Way& way, BytesView frame, std::size_t limit_bytes) {
    if (!blocked_ && !failed_ && frame.size() <= BufferPool::kLarge && make_room(way, frame.size())) {
        auto into = buffer_->extend(frame.size());
        std::memcpy(into.data(), frame.data(), frame.size());
        return true;
    }
    if (failed_) return false;
    // Also a long one on a free socket: it is cut into buffers by refill().
    Bytes& notices = backlog().notices;
    if (notices.size() + frame.size() > limit_bytes) return false;
    notices.insert(notices.end(), frame.begin(), frame.end());
    return true;
}

// Moves what waits into a fresh buffer. False when nothing waits.
bool Outbox::refill(const Way& way) {
    if (!backlog_) return false;
    Bytes& notices = backlog_->notices;
    if (!notices.empty()) {
        std::size_t part = std::min(notices.size(), BufferPool::kLarge);
        buffer_ = way.pool.take(part);
        auto into = buffer_->extend(part);
        std::memcpy(into.data(), notices.data(), part);
        if (part == notices.size())
            notices = Bytes{};
        else
            notices.erase(notices.begin(), notices.begin() + static_cast<std::ptrdiff_t>(part));
        return true;
    }
    auto& packets = backlog_->packets;
    if (packets.empty()) {
        backlog_.reset();
        return false;
    }
    buffer_ = way.pool.take(std::max(BufferPool::kLarge, static_cast<std::size_t>((*packets.front())->end)));
    while (const BufferPtr* next = packets.front()) {
        if ((*next)->end > buffer_->room()) break;
        BufferPtr packet = *packets.pop();
        auto into = buffer_->extend(packet->end);
        std::memcpy(into.data(), packet->data(), packet->end);
    }
    return true;
}

// Wraps the buffer into a WebSocket message.
bool Outbox::seal(const Way& way) {
    Bytes framed;
    if (!way.websocket->seal(buffer_->unsent(), framed)) return false;
    buffer_ = way.pool.take(framed.size());
    auto into = buffer_->extend(framed.size());
    std::memcpy(into.data(), framed.data(), framed.size());
    sealed_ = true;
    return true;
}

Outbox::Flushed Outbox::flush(const Way& way) {
    if (failed_) return Flushed::Failed;
    bool progress = !blocked_;
    for (;;) {
        if (!buffer_ && !refill(way)) {
            blocked_ = false;
            return Flushed::Done;
        }
        if (way.websocket != nullptr && !sealed_ && !seal(way)) break;
        while (buffer_->begin < buffer_->end) {
            Attempt attempt = way.transport.write(buffer_->unsent());
            if (attempt.outcome == Attempt::Outcome::Closed) {
                failed_ = true;
                return Flushed::Failed;
            }
            if (attempt.outcome != Attempt::Outcome::Ok) {
                if (progress) blocked_since_ = way.now;
                blocked_ = true;
                return Flushed::Blocked;
            }
            progress = true;
            buffer_->begin += static_cast<std::uint32_t>(attempt.bytes);
        }
        buffer_.reset();
        sealed_ = false;
    }
    failed_ = true;
    return Flushed::Failed;
}

} // namespace tailrace::relay
