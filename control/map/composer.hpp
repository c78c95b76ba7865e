// control/map/composer.hpp - writes map frames. Each node is serialised once a change, each chunk of peers compressed
// once a change, and both are shared by all streams that carry them.
#pragma once
#include "control/map/wire_json.hpp"
#include "control/tailnet/tailnet_state.hpp"
#include "policy/compile.hpp"
#include "proto/control/derp_map.hpp"
#include "proto/map_frame.hpp"

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

namespace tailrace {

using SharedText = std::shared_ptr<const std::string>;

/// A frame in pieces, to be written one after the other; most pieces are shared with other streams.
using FramePieces = std::vector<SharedText>;

/// What one stream has been told, and what it has not been told yet.
struct MapViewer {
    NodeId id = 0;
    MapCompression compression = MapCompression::Zstd;
    bool wants_lines = false;                           ///< asked where in the policy its rules are written
    bool started = false;                               ///< the full map has been sent
    bool waits = false;                                 ///< it was that of one who waits for approval
    std::vector<std::pair<NodeId, NodeChange>> changed; ///< not told yet; may name a node more than once
    bool self_changed = false;
    std::string own_look; ///< NodeView::text() of itself, as told; "" for the plain one

    CompiledPolicy::NodeList view; ///< as told
    std::uint64_t generation = 0;  ///< of the policy that was told
    SharedText derp_map, dns;
    SharedText filter, lines; ///< no lines where they are not wanted
    std::string ssh_rules;
    std::map<NodeId, SharedText> special; ///< peers whose look depends on the viewer
    std::set<UserId> profiles;

    void note(NodeId node, NodeChange change);
    /// Sorted, each node once.
    void merge_changes();

private:
    std::size_t merged_ = 0; // entries after the last merge
};

/// What of an event streams must be told. A node that came or went is news of the policy that is compiled next.
struct News {
    NodeChange for_peers = NodeChange::None;
    bool for_itself = false;
};
News news_of(const NodeEvent& event);

class MapComposer {
public:
    struct Fixed {
        wire::DerpMap derp_map; ///< of the operator; the policy may add to it and take from it
        wire::DnsConfig dns;    ///< without the names of services, and of what app connectors lead to
        std::string domain;
    };
    MapComposer(const TailnetState& tailnet, Fixed fixed);

    /// From the next set_policy() on nodes are told this of DNS.
    void set_dns(wire::DnsConfig dns) {
        fixed_.dns = std::move(dns);
        dns_.clear();
    }
    /// From now on this is who sees whom.
    void set_policy(std::shared_ptr<const CompiledPolicy> policy);
    const std::shared_ptr<const CompiledPolicy>& policy() const { return policy_; }
    std::uint64_t generation() const { return generation_; }
    /// The policy in force does.
    bool knows(NodeId id) const;
    /// There is a map for it: it is known, or waits for approval and gets one with nobody in it.
    bool has_map_for(NodeId id) const { return waits_for_approval(id) || knows(id); }
    /// As clients show it; its number when it is in no DERP map.
    std::string region_code(int region) const;
    /// Who may see this node, itself included. Valid until the next set_policy().
    CompiledPolicy::NodeList view_of(NodeId id) const { return policy_->view_of(id); }
    /// Whether this viewer must hear of a change of the node, whose view_of() is given: it may see it, or it was told
    /// of it under an earlier policy and has not been told since that it may not. (The next policy may let it again.)
    bool concerns(const MapViewer& viewer, NodeId id, const CompiledPolicy::NodeList& view) const;

    /// A node changed or went: what was made of it is stale.
    void on_node_event(const NodeEvent& event);

    /// Everything, for the start of a stream. Empty when the viewer is gone.
    FramePieces full(MapViewer& viewer, const WallTime& now);
    /// What the viewer has not been told. Empty when there is nothing.
    FramePieces delta(MapViewer& viewer, const WallTime& now);
    static const SharedText& keep_alive(MapCompression compression);
    /// A keep-alive that asks something: clients do not look at their peers again for it (control-protocol.md 5.3).
    static SharedText question(const wire::PingRequest& question, MapCompression compression);

    struct Counters {
        std::uint64_t nodes_serialised = 0, chunks_compressed = 0, frames_compressed = 0, frames_shared = 0;
    };
    const Counters& counters() const { return counters_; }
    /// Drops what was kept for sharing between streams that are served at about the same time.
    void forget_frames() { frames_.clear(); }

private:
    struct NodeTexts {
        NodePtr made_from;
        std::map<std::string, SharedText> by_view; // NodeView::text(), "" for the plain one
        std::map<NodeChange, SharedText> patches;
    };
    struct Chunk {
        NodeId first = 0;
        std::vector<NodeId> nodes;
        std::map<std::vector<const std::string*>, SharedText> compressed; // by the special nodes' texts
        std::vector<SharedText> keep_alive;                               // what those keys point to
    };
    struct SharedView {
        CompiledPolicy::NodeList nodes;
        std::vector<Chunk> chunks;
    };
    struct Difference {
        CompiledPolicy::NodeList from, to;
        std::vector<NodeId> added, removed;
    };

    bool waits_for_approval(NodeId id) const;
    FramePieces waiting(MapViewer& viewer, const Node& self, const WallTime& now);
    bool is_special(const Node& node) const;
    NodeView look(NodeId viewer, const Node& node) const;
    NodeTexts& texts_of(const NodePtr& node);
    SharedText peer_text(NodeId viewer, const NodePtr& node, const WallTime& now);
    SharedText patch_text(const NodePtr& node, NodeChange change);
    SharedText filter_text(NodeId viewer);
    SharedText lines_text(const MapViewer& viewer);
    std::string ssh_rules_text(NodeId viewer) const;
    SharedText dns_text(NodeId viewer);
    std::map<std::string, std::vector<wire::Resolver>> connector_routes(NodeId viewer) const;
    SharedView& shared_view(const CompiledPolicy::NodeList& nodes);
    const Difference& difference_of(const CompiledPolicy::NodeList& from, const CompiledPolicy::NodeList& to);
    std::string chunk_json(const Chunk& chunk, MapViewer& viewer, const WallTime& now);
    void note_profile(MapViewer& viewer, UserId user, std::string& profiles);
    SharedText whole_frame(std::string json, MapCompression compression);

    const TailnetState& tailnet_;
    Fixed fixed_;
    SharedText derp_map_; // JSON, as the policy wants it
    std::map<int, std::string> region_codes_;
    std::shared_ptr<const CompiledPolicy> policy_;
    std::uint64_t generation_ = 0;
    bool looks_depend_on_viewer_ = false; // node attributes are in force
    std::set<NodeId> routers_;            // nodes with approved routes
    std::unordered_map<NodeId, NodeTexts> texts_;
    std::unordered_map<ContentHash, SharedText> filters_, lines_;
    std::map<std::string, SharedText> dns_; // by the services and the connectors in it
    std::map<const void*, SharedView> views_;
    std::map<std::pair<const void*, const void*>, Difference> differences_;
    std::unordered_map<std::string, SharedText> frames_;
    Counters counters_;
};

} // namespace tailrace
