// agent/engine/flow_table.hpp - the flows that somebody watches: who talks, how much, and since when.
#pragma once
#include "agent/dataplane/packet_watch.hpp"
#include "base/time.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace tailrace {

/// Pure: is told what the packet programs counted and when. Holds at most kMost flows; more are summed up only.
class FlowTable {
public:
    static constexpr std::size_t kMost = 4096;
    static constexpr auto kForgetAfter = std::chrono::seconds{30}; ///< of silence; closed ones sooner
    static constexpr auto kForgetClosedAfter = std::chrono::seconds{5};

    enum class Opener : std::uint8_t { Unknown, Us, Peer };
    struct Row {
        FlowId flow;
        std::uint64_t in_packets = 0, in_bytes = 0, out_packets = 0, out_bytes = 0; ///< since it is watched
        double bytes_per_second = 0; ///< both directions, in the last interval
        std::uint32_t rule = 0;      ///< number of the rule that let it in; 0: none did
        Opener opener = Opener::Unknown;
        bool closed = false;
        Duration seen_for{}; ///< since the first packet or event
    };
    struct Totals {
        std::size_t flows = 0;      ///< that the table holds
        std::uint64_t left_out = 0; ///< times that a flow found it full
        std::uint64_t bytes = 0;    ///< of all flows, in the last interval
        double bytes_per_second = 0;
    };

    void take_event(TimePoint now, const PacketEvent& event);
    /// All that moved in the last `interval`.
    void take_traffic(TimePoint now, Duration interval, const std::vector<FlowTraffic>& traffic);
    /// The busiest first: by rate, then by bytes.
    std::vector<Row> rows(TimePoint now, std::size_t most) const;
    const Totals& totals() const { return totals_; }

private:
    struct Entry {
        Row row;
        TimePoint first, last;
    };
    Entry* find_or_add(TimePoint now, const FlowId& flow);

    std::map<FlowId, Entry> flows_;
    Totals totals_;
};

} // namespace tailrace
