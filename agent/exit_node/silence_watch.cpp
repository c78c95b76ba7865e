#include "agent/exit_node/silence_watch.hpp"

namespace tailrace {

namespace {

constexpr std::uint64_t kKeepAliveBytes = 32; // a data message without data, which nobody answers

} // namespace

bool SilenceWatch::look(TimePoint now, const NodeKey& peer, std::uint64_t sent_bytes, std::uint64_t received_bytes) {
    const bool same = peer == peer_;
    if (!same || received_bytes != received_bytes_)
        unanswered_since_.reset();
    else if (!unanswered_since_ && sent_bytes > sent_bytes_ + kKeepAliveBytes)
        unanswered_since_ = now;
    peer_ = peer;
    sent_bytes_ = sent_bytes;
    received_bytes_ = received_bytes;
    return unanswered_since_ && now - *unanswered_since_ >= kSilentAfter;
}

} // namespace tailrace
