// agent/path/relay_distance.hpp - how far the relays are where UDP does not come through (derp-disco-paths.md 4.13).
#pragma once
#include "agent/path/net_report.hpp"
#include "base/io/reactor.hpp"

namespace tailrace {

enum class RelayEcho { Too, No }; ///< whether ICMP is used

/// Asks a node of every region by ICMP (1 s) and by HTTPS (5 s, and no longer than a second after the first answer),
/// all at once. Adds to `report` what they say; its `udp` stays as it is.
Task<NetReport> measure_relay_distance(Reactor& reactor, wire::DerpMap map, std::uint32_t mark, NetReport report,
                                       RelayEcho echo);

} // namespace tailrace
