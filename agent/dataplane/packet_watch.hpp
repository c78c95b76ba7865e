// agent/dataplane/packet_watch.hpp - reads what the packet programs tell while somebody watches
// (bpf/shared/watch_map.h).
#pragma once
#include "agent/dataplane/packet_event.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "base/time.hpp"

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

struct ring_buffer;

namespace tailrace {

/// What a flow moved since it was asked about last.
struct FlowTraffic {
    FlowId flow;
    tr_flow_count count{};
};

/// What was not told, since the maps were made.
struct WatchTally {
    std::uint64_t drops_not_sampled = 0; ///< beyond TR_SAMPLES_IN_WINDOW
    std::uint64_t events_lost = 0;       ///< the ring was full
    std::uint64_t packets_uncounted = 0; ///< of more flows at a time than TR_COUNTED_FLOWS
};

/// The memory for replies.
struct FlowMemory {
    std::uint64_t capacity = 0, added = 0, evicted = 0; ///< flows
};

class PacketWatch {
public:
    /// Own descriptors of the maps that it needs, by name.
    static Result<PacketWatch> create(const std::map<std::string, Fd>& maps);
    PacketWatch(PacketWatch&&) noexcept = default;
    PacketWatch& operator=(PacketWatch&&) noexcept = default;

    /// Asks the programs to tell, until so long from now; zero: no more. They look at it only while the word tr_live
    /// says so, see TableWriter::set_watched().
    Result<void> want(Duration events, Duration counts);

    /// Takes up to `most` events out of the ring; what cannot be read is left out.
    Result<std::vector<PacketEvent>> take_events(std::size_t most);
    /// Takes all counts away, so that the next ones are from now on. A packet on its way meanwhile may go uncounted.
    Result<std::vector<FlowTraffic>> take_traffic();
    Result<WatchTally> tally() const;
    Result<FlowMemory> memory() const;

private:
    struct RingDeleter {
        void operator()(ring_buffer* ring) const;
    };
    /// Where the ring's callback leaves what it reads.
    struct Taken {
        std::vector<PacketEvent> events;
        std::size_t most = 0, seen = 0;
    };
    static int take_record(void* taken, void* record, std::size_t bytes);
    PacketWatch() = default;

    Fd watch_, tally_, counts_, flow_events_, flows_, events_;
    std::unique_ptr<Taken> taken_ = std::make_unique<Taken>(); ///< stays where it is when this moves
    std::unique_ptr<ring_buffer, RingDeleter> ring_;           ///< opened at first use
};

} // namespace tailrace
