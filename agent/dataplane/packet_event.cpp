#include "agent/dataplane/packet_event.hpp"

#include <cstring>
#include <iterator>

namespace tailrace {
namespace {

constexpr struct {
    const char* name;
    bool passes;
} kReasons[] = {
#define X(symbol, name, passes) {name, passes != 0},
    TR_REASONS(X)
#undef X
};
static_assert(std::size(kReasons) == TR_REASON_COUNT);

Endpoint to_endpoint(const tr_addr& address, __be16 port, bool v4) {
    BytesView bytes = std::as_bytes(std::span{address.bytes}).first(v4 ? 4 : 16);
    return {IpAddress::from_bytes(bytes), __builtin_bswap16(port)};
}

} // namespace

std::string_view text(PacketEventKind kind) {
    switch (kind) {
    case PacketEventKind::OpenedByUs:
        return "opened-by-us";
    case PacketEventKind::OpenedByPeer:
        return "opened-by-peer";
    case PacketEventKind::Talk:
        return "talk";
    case PacketEventKind::Closed:
        return "closed";
    case PacketEventKind::Forgotten:
        return "forgotten";
    case PacketEventKind::Dropped:
        return "dropped";
    }
    return "unknown";
}

std::optional<FlowId> to_flow(const tr_flow_id& id) {
    if (id.family != 4 && id.family != 6) return std::nullopt;
    bool v4 = id.family == 4;
    return FlowId{to_endpoint(id.remote, id.remote_port, v4), to_endpoint(id.local, id.local_port, v4), id.ip_proto};
}

Result<PacketEvent> parse_packet_event(BytesView record) {
    tr_event raw{};
    if (record.size() != sizeof raw)
        return Error::make("a packet event of {} bytes, where one has {}", record.size(), sizeof raw);
    std::memcpy(&raw, record.data(), sizeof raw); // both sides share the layout
    if (raw.kind == TR_EVENT_NONE || raw.kind >= TR_EVENT_KINDS)
        return Error::make("a packet event of the unknown kind {}", raw.kind);
    if (raw.reason >= TR_REASON_COUNT) return Error::make("a packet event with the unknown reason {}", raw.reason);
    PacketEvent out;
    out.kind = static_cast<PacketEventKind>(raw.kind);
    out.flow = to_flow(raw.flow);
    if (!out.flow && out.kind != PacketEventKind::Dropped)
        return Error::make("a packet event of kind {} without a flow", text(out.kind));
    out.time_ns = raw.time_ns;
    out.outbound = raw.outbound != 0;
    out.reason = static_cast<tr_reason>(raw.reason);
    out.rule = raw.rule;
    out.packets = raw.packets;
    out.bytes = raw.bytes;
    out.tcp_flags = raw.tcp_flags;
    return out;
}

std::string_view reason_name(tr_reason reason) {
    return reason < TR_REASON_COUNT ? kReasons[reason].name : "unknown";
}

bool reason_passes(tr_reason reason) {
    return reason < TR_REASON_COUNT && kReasons[reason].passes;
}

} // namespace tailrace
