#include "agent/engine/flow_table.hpp"

#include <algorithm>
#include <tuple>

namespace tailrace {

FlowTable::Entry* FlowTable::find_or_add(TimePoint now, const FlowId& flow) {
    auto found = flows_.find(flow);
    if (found != flows_.end()) return &found->second;
    if (flows_.size() >= kMost) {
        ++totals_.left_out;
        return nullptr;
    }
    Entry entry{{}, now, now};
    entry.row.flow = flow;
    totals_.flows = flows_.size() + 1;
    return &flows_.emplace(flow, entry).first->second;
}

void FlowTable::take_event(TimePoint now, const PacketEvent& event) {
    if (!event.flow || event.kind == PacketEventKind::Dropped) return;
    if (event.kind == PacketEventKind::Forgotten) return; // by the memory for replies; it may well go on
    Entry* entry = find_or_add(now, *event.flow);
    if (!entry) return;
    entry->last = now;
    bool opened = event.kind == PacketEventKind::OpenedByUs || event.kind == PacketEventKind::OpenedByPeer;
    if (opened) entry->row.opener = event.kind == PacketEventKind::OpenedByUs ? Opener::Us : Opener::Peer;
    entry->row.closed = event.kind == PacketEventKind::Closed || (entry->row.closed && !opened);
    if (event.rule) entry->row.rule = event.rule;
}

void FlowTable::take_traffic(TimePoint now, Duration interval, const std::vector<FlowTraffic>& traffic) {
    double seconds = std::max(std::chrono::duration<double>(interval).count(), 0.001);
    for (auto& [flow, entry] : flows_) entry.row.bytes_per_second = 0;
    std::erase_if(flows_, [&](const auto& entry) {
        auto patience = entry.second.row.closed ? kForgetClosedAfter : kForgetAfter;
        return now - entry.second.last > patience;
    });
    totals_.flows = flows_.size();
    totals_.bytes = 0;
    for (const FlowTraffic& one : traffic) {
        std::uint64_t bytes = one.count.in_bytes + one.count.out_bytes;
        totals_.bytes += bytes;
        Entry* entry = find_or_add(now, one.flow);
        if (!entry) continue;
        entry->last = now;
        Row& row = entry->row;
        row.in_packets += one.count.in_packets;
        row.in_bytes += one.count.in_bytes;
        row.out_packets += one.count.out_packets;
        row.out_bytes += one.count.out_bytes;
        row.bytes_per_second = static_cast<double>(bytes) / seconds;
        if (one.count.rule) row.rule = one.count.rule;
    }
    totals_.bytes_per_second = static_cast<double>(totals_.bytes) / seconds;
}

std::vector<FlowTable::Row> FlowTable::rows(TimePoint now, std::size_t most) const {
    std::vector<const Entry*> all;
    all.reserve(flows_.size());
    for (const auto& [flow, entry] : flows_) all.push_back(&entry);
    auto busier = [](const Entry* a, const Entry* b) {
        auto weight = [](const Row& row) { return std::tuple{row.bytes_per_second, row.in_bytes + row.out_bytes}; };
        if (weight(a->row) != weight(b->row)) return weight(a->row) > weight(b->row);
        return a->row.flow < b->row.flow;
    };
    std::size_t count = std::min(most, all.size());
    std::partial_sort(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(count), all.end(), busier);
    std::vector<Row> out;
    for (std::size_t i = 0; i < count; ++i) {
        out.push_back(all[i]->row);
        out.back().seen_for = now - all[i]->first;
    }
    return out;
}

} // namespace tailrace
