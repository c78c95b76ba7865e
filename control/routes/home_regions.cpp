#include "control/routes/home_regions.hpp"

#include <algorithm>

namespace tailrace {

void HomeRegions::set(Home& home, int region) {
    home.region = region;
    regions_.reset();
    changed_ = true;
}

void HomeRegions::stay(NodeId id, Home& home) {
    if (std::exchange(home.next, 0) != 0) due_.erase({home.due, id});
}

void HomeRegions::on_report(TimePoint now, NodeId id, int region) {
    if (region <= 0) return;
    Home& home = homes_[id];
    if (home.region == 0) return set(home, region);
    if (region == home.region) return stay(id, home);
    if (region == home.next) return;
    stay(id, home);
    if (home.moves > 0 && now - home.moved >= kMoveMemory) home.moves = 0;
    home.next = region;
    home.due = now + std::min<Duration>(kSettlesIn * (1 << std::min(home.moves, 8)), kMostSettling);
    due_.insert({home.due, id});
}

void HomeRegions::on_node_gone(NodeId id) {
    auto at = homes_.find(id);
    if (at == homes_.end()) return;
    stay(id, at->second);
    homes_.erase(at);
    regions_.reset(); // that a node is gone is news by itself
}

void HomeRegions::on_timer(TimePoint now) {
    while (!due_.empty() && due_.begin()->first <= now) {
        NodeId id = due_.begin()->second;
        Home& home = homes_[id];
        int region = home.next;
        stay(id, home);
        home.moved = now;
        ++home.moves;
        set(home, region);
    }
}

std::optional<TimePoint> HomeRegions::next_timer() const {
    if (due_.empty()) return std::nullopt;
    return due_.begin()->first;
}

std::shared_ptr<const RegionOfNode> HomeRegions::regions() {
    if (!regions_) {
        auto made = std::make_shared<RegionOfNode>();
        made->reserve(homes_.size());
        for (const auto& [id, home] : homes_) made->emplace(id, home.region);
        regions_ = std::move(made);
    }
    return regions_;
}

} // namespace tailrace
