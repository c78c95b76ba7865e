// agent/path/initiations.hpp - handshakes that WireGuard began over the relay, and when another copy of one is sent.
//
// A peer may not hear the first copy (its agent is away, so it has no relay; a reference client answers only over paths
// that it has tried), and WireGuard would begin anew only after five seconds (derp-disco-paths.md 6.5). But two copies
// must not arrive at the same moment: WireGuard looks whether one is a replay, and remembers it, in two steps; with two
// cores it answers both, forgets the first session, and drops for 15 s what is sent in it. So the second copy waits.
#pragma once
#include "base/bytes.hpp"
#include "base/time.hpp"
#include "proto/keys.hpp"

#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

namespace tailrace {

/// Pure: a coroutine asks for what is due.
class Initiations {
public:
    static constexpr Duration kCopyAfter = std::chrono::milliseconds{250};
    static constexpr Duration kRetry = std::chrono::seconds{5}; ///< WireGuard's own

    static bool is_initiation(BytesView datagram);
    static bool is_response(BytesView datagram);

    /// `sent`: the relay has it, and a copy is due after kCopyAfter; else at once.
    void begun(TimePoint now, const NodeKey& to, BytesView datagram, bool sent);
    /// A relay for the peer is known now: what had nowhere to go, and counts as sent from now on.
    std::optional<Bytes> take_unsent(TimePoint now, const NodeKey& to);
    /// A direct path to the peer works: the copy to send there now. None while one may still be on its way (it will be
    /// due), and when there is nothing to repeat.
    std::optional<Bytes> take_for_path(TimePoint now, const NodeKey& to);
    void answered(const NodeKey& by);
    /// Copies that are to be sent to where each peer is most likely to be. Each once.
    std::vector<std::pair<NodeKey, Bytes>> take_due(TimePoint now);
    void keep_only(const std::set<NodeKey>& peers);

private:
    struct Begun {
        Bytes datagram;
        TimePoint at;        ///< WireGuard began
        TimePoint last_copy; ///< of those that were sent
        bool sent = false, copied = false;
    };
    static bool may_be_under_way(TimePoint now, const Begun& begun);

    std::map<NodeKey, Begun> begun_;
};

} // namespace tailrace
