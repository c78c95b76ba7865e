// policy/compile_carry.cpp - after a change of few nodes: which answers of the compilation before still hold?
//
// Filters: a node's filter depends on the rules that it receives, on their sources, on its own addresses and routes,
// and on which rules merge. Views: whether two nodes see each other depends on the policy and these two alone, so a
// view changes only in the bits of nodes that changed.
#include "policy/compiled_data.hpp"

#include <algorithm>
#include <set>

namespace tailrace {
namespace {

constexpr NodeIndex kGone = ~NodeIndex{0};

/// Nodes before and after, side by side.
class Alignment {
public:
    Alignment(const Directory& before, const Directory& after)
        : new_of_old_(before.size(), kGone), changed_{after.size()} {
        const auto changed_users = find_changed_users(before.tailnet(), after.tailnet());
        NodeIndex i = 0;
        NodeIndex j = 0;
        while (i < before.size() || j < after.size()) {
            const bool only_old = j == after.size() || (i < before.size() && before.node(i).id < after.node(j).id);
            const bool only_new = i == before.size() || (j < after.size() && after.node(j).id < before.node(i).id);
            if (only_old) {
                removed_.push_back(i);
                touched_users_.insert(before.node(i).user);
                ++i;
            } else if (only_new) {
                added_.push_back(j);
                touched_users_.insert(after.node(j).user);
                changed_.insert(j++);
            } else {
                new_of_old_[i] = j;
                const bool same_user = changed_users.count(after.node(j).user) == 0;
                if (!same_user || !is_same(before.node(i), after.node(j))) {
                    changed_.insert(j);
                    touched_users_.insert(before.node(i).user);
                    touched_users_.insert(after.node(j).user);
                }
                ++i;
                ++j;
            }
        }
    }

    NodeIndex new_of_old(NodeIndex old) const { return new_of_old_[old]; }
    bool is_shifted() const { return !removed_.empty() || !added_.empty(); }
    const std::vector<NodeIndex>& removed() const { return removed_; }
    std::size_t changes() const { return changed_.count() + removed_.size(); }
    const BitSet& changed() const { return changed_; } ///< new and different nodes, by their new numbers
    const std::set<PolicyUserId>& touched_users() const { return touched_users_; }

    /// A set of old nodes by their new numbers.
    BitSet moved(BitSet set) const {
        for (auto at = removed_.rbegin(); at != removed_.rend(); ++at) set.remove_number(*at);
        for (const auto node : added_) set.add_number(node);
        return set;
    }

private:
    static bool is_same(const TailnetNode& a, const TailnetNode& b) {
        return (a.is_tagged() || a.user == b.user) && a.tags == b.tags && a.addresses == b.addresses &&
               a.routes == b.routes && a.attributes == b.attributes && a.app_connector == b.app_connector;
    }

    static std::set<PolicyUserId> find_changed_users(const Tailnet& before, const Tailnet& after) {
        std::set<PolicyUserId> changed;
        auto old = before.users.begin();
        auto now = after.users.begin();
        while (old != before.users.end() || now != after.users.end()) {
            const bool only_old = now == after.users.end() || (old != before.users.end() && old->id < now->id);
            const bool only_new = old == before.users.end() || (now != after.users.end() && now->id < old->id);
            if (only_old) {
                changed.insert((old++)->id);
            } else if (only_new) {
                changed.insert((now++)->id);
            } else {
                if (old->login != now->login || old->role != now->role) changed.insert(now->id);
                ++old;
                ++now;
            }
        }
        return changed;
    }

    std::vector<NodeIndex> new_of_old_;
    std::vector<NodeIndex> removed_, added_;
    BitSet changed_;
    std::set<PolicyUserId> touched_users_;
};

/// The one user who owns all sources of a set; nothing when there are others, or words.
std::optional<PolicyUserId> only_user(const SourceSet& set, const Directory& directory) {
    if (!set.words.empty()) return std::nullopt;
    std::optional<PolicyUserId> user;
    bool single = true;
    set.touched.for_each([&](std::size_t node) {
        const auto owner = directory.node(static_cast<NodeIndex>(node)).user;
        single = single && directory.untagged().contains(node) && (!user || *user == owner);
        user = owner;
    });
    return single ? user : std::nullopt;
}

/// Compares the rules of two compilations of one policy.
class RuleComparison {
public:
    using Data = CompiledPolicy::Data;

    RuleComparison(const Data& before, const Data& after, const Alignment& nodes)
        : before_(before), after_(after),
          nodes_(nodes), dirty_{after.directory.size()}, flipped_{after.directory.size()} {}

    void run() {
        const auto& old_rules = before_.list.rules;
        const auto& new_rules = after_.list.rules;
        std::size_t i = 0;
        std::size_t j = 0;
        while (i < old_rules.size() || j < new_rules.size()) {
            const bool only_old =
                j == new_rules.size() || (i < old_rules.size() && old_rules[i].place < new_rules[j].place);
            const bool only_new =
                i == old_rules.size() || (j < new_rules.size() && new_rules[j].place < old_rules[i].place);
            if (only_old) {
                dirty_ |= moved(old_rules[i].receivers);
                flipped_ |= moved(senders_of(old_rules[i]));
                note_sources(old_rules[i], before_.directory);
                ++i;
            } else if (only_new) {
                dirty_ |= new_rules[j].receivers;
                flipped_ |= senders_of(new_rules[j]);
                note_sources(new_rules[j], after_.directory);
                ++j;
            } else {
                compare(i++, j++);
            }
        }
        for (const auto user : nodes_.touched_users()) mark_user(user);
        mark_odd_routers();
    }

    const BitSet& dirty() const { return dirty_; }     ///< nodes that may have another filter
    const BitSet& flipped() const { return flipped_; } ///< nodes that a rule concerns now and did not, or the reverse

private:
    static const BitSet& senders_of(const Rule& rule) { return Data::RuleLists::senders_of(rule); }

    /// Many rules share a set: it is moved once.
    const BitSet& moved(const BitSet& old) {
        const auto [found, is_new] = moved_.try_emplace(&old);
        if (is_new) found->second = nodes_.is_shifted() ? nodes_.moved(old) : old;
        return found->second;
    }

    void compare(std::size_t i, std::size_t j) {
        const auto& old_rule = before_.list.rules[i];
        const auto& new_rule = after_.list.rules[j];
        const BitSet& old_receivers = old_rule.receivers.get();
        const BitSet& new_receivers = new_rule.receivers.get();
        if (compared_.insert({&old_receivers, &new_receivers}).second) flip(moved(old_receivers), new_receivers);
        if (new_rule.self) {
            if (compared_.insert({&senders_of(old_rule), &senders_of(new_rule)}).second)
                flip(moved(senders_of(old_rule)), senders_of(new_rule));
        }
        const bool same_sources = new_rule.self || old_rule.sources->hash == new_rule.sources->hash;
        const bool same_place =
            before_.list.rules[before_.merged_into[i]].place == after_.list.rules[after_.merged_into[j]].place;
        if (same_sources && same_place) return;
        dirty_ |= moved(old_receivers);
        dirty_ |= new_receivers;
        if (same_sources) return;
        flip(moved(senders_of(old_rule)), senders_of(new_rule));
        note_sources(old_rule, before_.directory);
        note_sources(new_rule, after_.directory);
    }

    void flip(const BitSet& before, const BitSet& after) {
        BitSet difference = before;
        difference ^= after;
        flipped_ |= difference;
    }

    /// A rule between a user's own devices merges with an ordinary rule of the same sources, wherever that one leads.
    void note_sources(const Rule& rule, const Directory& directory) {
        if (!after_.has_self || rule.self) return;
        if (const auto user = only_user(*rule.sources, directory)) mark_user(*user);
    }

    void mark_user(PolicyUserId user) { dirty_ |= after_.directory.nodes_of_user(user); }

    /// Routers of routes that contain addresses of nodes depend on those nodes too.
    void mark_odd_routers() {
        for (const auto& route : after_.directory.subnet_routes()) {
            if (!route.addresses.empty()) dirty_.insert(route.node);
        }
        for (const auto& route : before_.directory.subnet_routes()) {
            const auto now = nodes_.new_of_old(route.node);
            if (!route.addresses.empty() && now != kGone) dirty_.insert(now);
        }
    }

    const Data& before_;
    const Data& after_;
    const Alignment& nodes_;
    BitSet dirty_, flipped_;
    std::unordered_map<const BitSet*, BitSet> moved_;
    std::set<std::pair<const BitSet*, const BitSet*>> compared_;
};

} // namespace

void CompiledPolicy::Data::carry_over(const Data& before) {
    constexpr std::size_t kMostChanges = 64; // as many bits as a pattern below has
    const Alignment nodes{before.directory, directory};
    if (nodes.changes() > kMostChanges) return;
    RuleComparison rules{before, *this, nodes};
    rules.run();
    BitSet changed = nodes.changed();
    changed |= rules.flipped();
    BitSet dirty = rules.dirty();
    dirty |= changed;

    for (NodeIndex old = 0; old < before.directory.size(); ++old) {
        const auto node = nodes.new_of_old(old);
        if (node == kGone || dirty.contains(node) || !before.ids_of_filters[old]) continue;
        ids_of_filters[node] = before.ids_of_filters[old];
    }

    if (changed.count() > kMostChanges) return;
    std::vector<NodeIndex> which;
    std::vector<BitSet> seen_by;
    changed.for_each([&](std::size_t node) {
        which.push_back(static_cast<NodeIndex>(node));
        seen_by.push_back(compute_seen(which.back()));
    });
    const auto pattern_of = [&](NodeIndex viewer) {
        std::uint64_t pattern = 0;
        for (std::size_t i = 0; i < which.size(); ++i) {
            if (seen_by[i].contains(viewer)) pattern |= std::uint64_t{1} << i;
        }
        return pattern;
    };
    std::map<std::pair<const View*, std::uint64_t>, ViewPointer> carried;
    for (NodeIndex old = 0; old < before.directory.size(); ++old) {
        const auto node = nodes.new_of_old(old);
        const auto& old_view = before.view_of_node[old];
        if (node == kGone || changed.contains(node) || !old_view) continue;
        auto& view = carried[{old_view.get(), pattern_of(node)}];
        if (!view) {
            BitSet seen = nodes.moved(old_view->seen);
            bool same = std::none_of(nodes.removed().begin(), nodes.removed().end(),
                                     [&](NodeIndex gone) { return old_view->seen.contains(gone); });
            for (std::size_t i = 0; i < which.size(); ++i) {
                const bool sees = seen_by[i].contains(node);
                same = same && seen.contains(which[i]) == sees;
                if (sees)
                    seen.insert(which[i]);
                else
                    seen.erase(which[i]);
            }
            view = intern_view(std::move(seen), same ? old_view->nodes : nullptr);
        }
        view_of_node[node] = view;
    }
    for (std::size_t i = 0; i < which.size(); ++i) view_of_node[which[i]] = intern_view(std::move(seen_by[i]));
}

} // namespace tailrace
