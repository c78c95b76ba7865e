// relay/table/heard_book.hpp - who was sent packets of whom.
#pragma once
#include "relay/table/connection_ref.hpp"
#include "relay/table/seeded_hash.hpp"

#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace tailrace::relay {

/// A client hears that a source has gone only when it was sent a packet of that source (derp-disco-paths.md 1.6). Pure.
/// Lists may hold stale entries, the marks decide; lists are tidied when more than half of one is stale.
class HeardBook {
public:
    /// More marks than this are not made: somebody with many keys who writes to everybody must not fill our memory.
    static constexpr std::size_t kMostMarks = 1'000'000;

    void mark(Slot receiver, const NodeKey& source);
    /// The receivers to tell that `source` has gone. Clears their marks.
    std::vector<Slot> take_receivers(const NodeKey& source);
    void forget_receiver(Slot receiver);

    std::size_t marks() const { return marks_.size(); }

private:
    using SourceId = std::uint32_t;
    struct Source {
        SourceId id = 0;
        std::vector<Slot> receivers;
        std::size_t live = 0;
    };
    struct Receiver {
        NodeKey last; // of the last packet: the usual case costs one comparison
        bool has_last = false;
        std::vector<NodeKey> sources;
        std::size_t live = 0;
    };
    static std::uint64_t pair(SourceId source, Slot receiver) { return std::uint64_t{source} << 32 | receiver; }

    std::unordered_map<NodeKey, Source, SeededHash> sources_;
    std::unordered_map<Slot, Receiver> receivers_;
    std::unordered_set<std::uint64_t> marks_;
    SourceId next_id_ = 1;
};

} // namespace tailrace::relay
