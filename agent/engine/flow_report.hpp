// agent/engine/flow_report.hpp - flows and drops as the local API tells of them, an object a line.
#pragma once
#include "agent/engine/explanation.hpp"
#include "agent/engine/flow_table.hpp"
#include "base/time.hpp"

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace tailrace {

/// What a report knows beside the packets.
struct FlowNames {
    std::function<std::string(const IpAddress&)> peer;              ///< "" for nobody's
    std::function<std::vector<std::string>(const IpAddress&)> caps; ///< of the peer that has the address
    std::function<std::optional<std::size_t>(std::uint32_t)> index_of_rule;
    const std::vector<KnownRule>& rules; ///< in force, by index
};

/// {"Time","Flows":[{"Peer","OpenedBy","Protocol","Remote","Local","InPackets","InBytes","OutPackets","OutBytes",
/// "BytesPerSecond","Rule":index or null,"RuleText","PolicyLines" or
/// absent,"SeenForMs","Closed"}],"FlowCount","LeftOut","BytesPerSecond", "EventsLost","PacketsUncounted"}
std::string write_flows(const WallTime& at, const std::vector<FlowTable::Row>& rows, const FlowTable::Totals& totals,
                        const WatchTally& tally, const FlowNames& names);

/// {"Time","Peer","Direction","Protocol","Source","Destination","Reason","Packets","Bytes","Near":{"Rule","RuleText",
/// "PolicyLines","Why"} or absent}. A packet that could not be read has no addresses.
std::string write_drop(const WallTime& at, const PacketEvent& drop, const FlowNames& names, bool look_for_near_rules);

/// {"NotSampled","Lost"}, since the watch began: also what tells a reader that nothing is wrong when nothing comes.
std::string write_drop_tally(const WatchTally& since);

} // namespace tailrace
