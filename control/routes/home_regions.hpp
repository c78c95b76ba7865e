// control/routes/home_regions.hpp - the region that counts as each node's own when routers are chosen by region. Pure.
// The first one that a node reports counts at once. Another counts when the node has stayed there for kSettlesIn, and
// twice as long each time that it has moved within kMoveMemory, kMostSettling at most: a home that goes to and fro, or
// a relay that is restarted, cuts no flows.
#pragma once
#include "base/time.hpp"
#include "control/model/model.hpp"

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

namespace tailrace {

/// Nodes that are missing have no region.
using RegionOfNode = std::unordered_map<NodeId, int>;

class HomeRegions {
public:
    static constexpr auto kSettlesIn = std::chrono::seconds{30};
    static constexpr auto kMostSettling = std::chrono::minutes{10};
    static constexpr auto kMoveMemory = std::chrono::minutes{30};

    /// What the node says; 0 (it does not know) changes nothing.
    void on_report(TimePoint now, NodeId id, int region);
    void on_node_gone(NodeId id);
    void on_timer(TimePoint now);
    std::optional<TimePoint> next_timer() const;

    /// Those that count. Never null; not changed any more.
    std::shared_ptr<const RegionOfNode> regions();
    /// Whether regions() has changed since the last call.
    bool take_changed() { return std::exchange(changed_, false); }

private:
    struct Home {
        int region = 0, next = 0; ///< `next`: where it may be moving to; 0: nowhere
        TimePoint due;            ///< when that counts
        TimePoint moved;
        int moves = 0; ///< that are remembered
    };
    void stay(NodeId id, Home& home);
    void set(Home& home, int region);

    std::unordered_map<NodeId, Home> homes_;
    std::set<std::pair<TimePoint, NodeId>> due_;
    std::shared_ptr<const RegionOfNode> regions_;
    bool changed_ = false;
};

} // namespace tailrace
