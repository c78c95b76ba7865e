// agent/exit_node/silence_watch.hpp - whether the exit node is there, as WireGuard sees it.
#pragma once
#include "base/time.hpp"
#include "proto/keys.hpp"

#include <cstdint>
#include <optional>

namespace tailrace {

/// Notices that a peer that we send to answers no more: control may take two minutes to find that a machine without
/// power has gone. Whatever WireGuard receives it answers within 10 s, with a keep-alive if there is nothing else
/// (whitepaper 6.5), by whatever path; who does not in twice that time has gone, or is cut off from us. Pure.
class SilenceWatch {
public:
    static constexpr auto kSilentAfter = std::chrono::seconds{20};

    /// WireGuard's counters of this peer, now; another peer than before begins anew. Whether it is silent.
    bool look(TimePoint now, const NodeKey& peer, std::uint64_t sent_bytes, std::uint64_t received_bytes);
    void reset() { *this = SilenceWatch{}; }

private:
    NodeKey peer_;
    std::uint64_t sent_bytes_ = 0, received_bytes_ = 0;
    std::optional<TimePoint> unanswered_since_;
};

} // namespace tailrace
