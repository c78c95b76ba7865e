#include "agent/engine/flow_report.hpp"

#include "base/json/json.hpp"

#include <fmt/format.h>

namespace tailrace {
namespace {

void append_member(std::string& out, const char* name, std::string_view text) {
    out += fmt::format("\"{}\":", name);
    json::append_string(out, text);
    out += ',';
}

bool has_ports(std::uint8_t protocol) {
    return protocol == 6 || protocol == 17 || protocol == 132;
}

std::string side_text(const Endpoint& side, std::uint8_t protocol) {
    return has_ports(protocol) ? side.text() : side.address.text();
}

std::string_view opener_text(FlowTable::Opener opener) {
    return opener == FlowTable::Opener::Us ? "us" : opener == FlowTable::Opener::Peer ? "peer" : "";
}

std::int64_t milliseconds(Duration duration) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
}

void append_rule(std::string& out, std::optional<std::size_t> index, const std::vector<KnownRule>& rules) {
    out += fmt::format("\"Rule\":{},", index ? std::to_string(*index) : "null");
    append_member(out, "RuleText", index && *index < rules.size() ? rule_text(rules[*index].rule) : "");
}

std::string row_text(const FlowTable::Row& row, const FlowNames& names) {
    std::string out = "{";
    append_member(out, "Peer", names.peer(row.flow.remote.address));
    append_member(out, "OpenedBy", opener_text(row.opener));
    append_member(out, "Protocol", protocol_name(row.flow.protocol));
    append_member(out, "Remote", side_text(row.flow.remote, row.flow.protocol));
    append_member(out, "Local", side_text(row.flow.local, row.flow.protocol));
    auto index = row.rule ? names.index_of_rule(row.rule) : std::nullopt;
    append_rule(out, index, names.rules);
    if (index && *index < names.rules.size()) {
        PacketQuestion let_in{row.flow.remote.address, row.flow.local.address, row.flow.protocol, row.flow.local.port};
        out += policy_lines_member(deciding_lines(let_in, names.rules[*index]));
    }
    out += fmt::format("\"InPackets\":{},\"InBytes\":{},\"OutPackets\":{},\"OutBytes\":{},\"BytesPerSecond\":{:.0f},"
                       "\"SeenForMs\":{},\"Closed\":{}}}",
                       row.in_packets, row.in_bytes, row.out_packets, row.out_bytes, row.bytes_per_second,
                       milliseconds(row.seen_for), row.closed);
    return out;
}

} // namespace

std::string write_flows(const WallTime& at, const std::vector<FlowTable::Row>& rows, const FlowTable::Totals& totals,
                        const WatchTally& tally, const FlowNames& names) {
    std::string out = fmt::format("{{\"Time\":\"{}\",\"Flows\":[", at.text());
    for (const FlowTable::Row& row : rows) out += (&row == rows.data() ? "" : ",") + row_text(row, names);
    return out + fmt::format("],\"FlowCount\":{},\"LeftOut\":{},\"BytesPerSecond\":{:.0f},\"EventsLost\":{},"
                             "\"PacketsUncounted\":{}}}",
                             totals.flows, totals.left_out, totals.bytes_per_second, tally.events_lost,
                             tally.packets_uncounted);
}

std::string write_drop(const WallTime& at, const PacketEvent& drop, const FlowNames& names, bool look_for_near_rules) {
    std::string out = fmt::format("{{\"Time\":\"{}\",", at.text());
    if (drop.flow) {
        const FlowId& flow = *drop.flow;
        const Endpoint &from = drop.outbound ? flow.local : flow.remote, &to = drop.outbound ? flow.remote : flow.local;
        append_member(out, "Peer", names.peer(flow.remote.address));
        append_member(out, "Protocol", protocol_name(flow.protocol));
        append_member(out, "Source", side_text(from, flow.protocol));
        append_member(out, "Destination", side_text(to, flow.protocol));
        bool by_rules = drop.reason == TR_DROP_NO_RULE || drop.reason == TR_DROP_NO_FLOW;
        if (by_rules && look_for_near_rules) {
            PacketQuestion question{from.address, to.address, flow.protocol, to.port};
            for (const NearMiss& near : near_misses(question, names.caps(from.address), names.rules, 1)) {
                out += "\"Near\":{";
                append_rule(out, near.index, names.rules);
                out += policy_lines_member(near.lines);
                append_member(out, "Why", near.why);
                out.back() = '}';
                out += ',';
            }
        }
    }
    append_member(out, "Direction", drop.outbound ? "out" : "in");
    append_member(out, "Reason", reason_name(drop.reason));
    return out + fmt::format("\"Packets\":{},\"Bytes\":{}}}", drop.packets, drop.bytes);
}

std::string write_drop_tally(const WatchTally& since) {
    return fmt::format("{{\"NotSampled\":{},\"Lost\":{}}}", since.drops_not_sampled, since.events_lost);
}

} // namespace tailrace
