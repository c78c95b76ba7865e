#include "agent/path/initiations.hpp"

namespace tailrace {
namespace {

// WireGuard whitepaper, 5.4.2 and 5.4.3.
constexpr std::byte kInitiation{1}, kResponse{2};
constexpr std::size_t kInitiationBytes = 148, kResponseBytes = 92;

} // namespace

bool Initiations::is_initiation(BytesView datagram) {
    return datagram.size() == kInitiationBytes && datagram[0] == kInitiation;
}

bool Initiations::is_response(BytesView datagram) {
    return datagram.size() == kResponseBytes && datagram[0] == kResponse;
}

void Initiations::begun(TimePoint now, const NodeKey& to, BytesView datagram, bool sent) {
    begun_[to] = {to_bytes(datagram), now, now, sent, false};
}

std::optional<Bytes> Initiations::take_unsent(TimePoint now, const NodeKey& to) {
    auto found = begun_.find(to);
    if (found == begun_.end() || found->second.sent) return std::nullopt;
    found->second.sent = true;
    found->second.last_copy = now;
    return found->second.datagram;
}

bool Initiations::may_be_under_way(TimePoint now, const Begun& begun) {
    return (begun.sent || begun.copied) && now - begun.last_copy < kCopyAfter;
}

std::optional<Bytes> Initiations::take_for_path(TimePoint now, const NodeKey& to) {
    auto found = begun_.find(to);
    if (found == begun_.end()) return std::nullopt;
    const Begun& begun = found->second;
    if (now - begun.at >= kRetry) {
        begun_.erase(found);
        return std::nullopt;
    }
    if (may_be_under_way(now, begun)) return std::nullopt;
    Bytes datagram = std::move(found->second.datagram);
    begun_.erase(found);
    return datagram;
}

void Initiations::answered(const NodeKey& by) {
    begun_.erase(by);
}

std::vector<std::pair<NodeKey, Bytes>> Initiations::take_due(TimePoint now) {
    std::vector<std::pair<NodeKey, Bytes>> due;
    for (auto& [peer, begun] : begun_) {
        if (begun.copied || may_be_under_way(now, begun) || now - begun.at >= kRetry) continue;
        begun.copied = true;
        begun.last_copy = now;
        due.emplace_back(peer, begun.datagram);
    }
    return due;
}

void Initiations::keep_only(const std::set<NodeKey>& peers) {
    std::erase_if(begun_, [&](const auto& entry) { return !peers.contains(entry.first); });
}

} // namespace tailrace
