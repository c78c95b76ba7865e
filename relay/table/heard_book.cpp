#include "relay/table/heard_book.hpp"

#include <algorithm>

namespace tailrace::relay {

namespace {

constexpr std::size_t kTidyFrom = 16; // shorter lists are left alone

template <typename List>
bool needs_tidying(const List& list, std::size_t live) {
    return list.size() > kTidyFrom && list.size() > 2 * live;
}

} // namespace

void HeardBook::mark(Slot receiver, const NodeKey& source) {
    Receiver& to = receivers_[receiver];
    if ((to.has_last && to.last == source) || marks_.size() >= kMostMarks) return;
    to.last = source;
    to.has_last = true;
    Source& from = sources_[source];
    if (from.id == 0) from.id = next_id_++;
    if (!marks_.insert(pair(from.id, receiver)).second) return;
    from.receivers.push_back(receiver);
    ++from.live;
    to.sources.push_back(source);
    ++to.live;
}

std::vector<Slot> HeardBook::take_receivers(const NodeKey& source) {
    std::vector<Slot> out;
    auto found = sources_.find(source);
    if (found == sources_.end()) return out;
    for (Slot slot : found->second.receivers) {
        if (marks_.erase(pair(found->second.id, slot)) == 0) continue;
        out.push_back(slot);
        Receiver& receiver = receivers_[slot];
        if (receiver.last == source) receiver.has_last = false;
        --receiver.live;
        if (receiver.live == 0) {
            receivers_.erase(slot);
        } else if (needs_tidying(receiver.sources, receiver.live)) {
            auto is_stale = [&](const NodeKey& key) {
                auto at = sources_.find(key);
                return key == source || at == sources_.end() || !marks_.contains(pair(at->second.id, slot));
            };
            std::erase_if(receiver.sources, is_stale);
            std::sort(receiver.sources.begin(), receiver.sources.end());
            receiver.sources.erase(std::unique(receiver.sources.begin(), receiver.sources.end()),
                                   receiver.sources.end());
        }
    }
    sources_.erase(found);
    return out;
}

void HeardBook::forget_receiver(Slot slot) {
    auto found = receivers_.find(slot);
    if (found == receivers_.end()) return;
    for (const NodeKey& key : found->second.sources) {
        auto at = sources_.find(key);
        if (at == sources_.end() || marks_.erase(pair(at->second.id, slot)) == 0) continue;
        Source& source = at->second;
        --source.live;
        if (source.live == 0) {
            sources_.erase(at);
        } else if (needs_tidying(source.receivers, source.live)) {
            std::sort(source.receivers.begin(), source.receivers.end());
            source.receivers.erase(std::unique(source.receivers.begin(), source.receivers.end()),
                                   source.receivers.end());
            std::erase_if(source.receivers, [&](Slot one) { return !marks_.contains(pair(source.id, one)); });
        }
    }
    receivers_.erase(found);
}

} // namespace tailrace::relay
