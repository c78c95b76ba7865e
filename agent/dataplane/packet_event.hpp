// agent/dataplane/packet_event.hpp - what the packet programs tell of single packets and of flows.
#pragma once
#include "base/bytes.hpp"
#include "base/net.hpp"
#include "base/result.hpp"
#include "bpf/shared/reasons.h"
#include "bpf/shared/watch_map.h"

#include <compare>
#include <cstdint>
#include <optional>
#include <string_view>

namespace tailrace {

/// Both directions of a conversation with the other side of the tunnel. Ports are 0 where the protocol has none.
struct FlowId {
    Endpoint remote, local;
    std::uint8_t protocol = 0; ///< IANA number
    auto operator<=>(const FlowId&) const = default;
};

enum class PacketEventKind : std::uint8_t {
    OpenedByUs = TR_EVENT_OUT,    ///< TCP: a SYN
    OpenedByPeer = TR_EVENT_IN,   ///< TCP: a SYN that was let in
    Talk = TR_EVENT_TALK,         ///< UDP, SCTP: we send, and the flow was not remembered
    Closed = TR_EVENT_CLOSED,     ///< TCP: a FIN or a RST, in either direction
    Forgotten = TR_EVENT_EVICTED, ///< another flow pushed it out of the memory for replies
    Dropped = TR_EVENT_DROP,      ///< one of a sample
};
std::string_view text(PacketEventKind kind); ///< "opened-by-us"

struct PacketEvent {
    std::uint64_t time_ns = 0; ///< CLOCK_MONOTONIC
    PacketEventKind kind{};
    std::optional<FlowId> flow; ///< none: the packet could not be read so far
    bool outbound = false;
    tr_reason reason{};
    std::uint32_t rule = 0; ///< number of the rule that let it in; 0: none did
    std::uint32_t packets = 0, bytes = 0;
    std::uint8_t tcp_flags = 0;
};

/// A record of the ring tr_events. It comes from the kernel, whose programs may be of another agent's making.
Result<PacketEvent> parse_packet_event(BytesView record);

/// None for a key that no program of ours writes.
std::optional<FlowId> to_flow(const tr_flow_id& id);

/// As in `debug drops`.
std::string_view reason_name(tr_reason reason);
bool reason_passes(tr_reason reason);

} // namespace tailrace
