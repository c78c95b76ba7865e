// proto/netmap.hpp - what a node knows of its tailnet, kept up to date by the frames of a map stream
// (control-protocol.md 5.4). Source: tailscale control/controlclient/map.go.
#pragma once
#include "base/result.hpp"
#include "base/time.hpp"
#include "proto/control/map.hpp"

#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace tailrace {

/// What a frame changed. Peers that a frame repeated word for word are not in the lists.
struct NetmapChanges {
    bool first_of_stream = false; ///< everything was learned anew; the lists below still say what differs
    bool self = false, derp_map = false, dns = false, filter = false, ssh = false, domain = false;
    bool user_profiles = false, health = false, tka = false;
    /// collect_services, audit log id, dial plan, client version, auto update, lines of the policy
    bool other = false;
    std::vector<wire::NodeId> peers_changed; ///< new or different, each once
    std::vector<wire::NodeId> peers_removed;

    bool peers() const { return !peers_changed.empty() || !peers_removed.empty(); }
    bool any() const {
        return first_of_stream || self || derp_map || dns || filter || ssh || domain || user_profiles || health ||
               tka || other || peers();
    }
};

/// Pure: it is told the time. Debug, PingRequest and PopBrowserURL are wishes, not state: the caller sees to them.
///
/// Nodes are normalised when they come in: allowed_ips is always there, home_derp is filled in from the legacy form,
/// cap_map holds the names of `capabilities`, a node for which tailnet lock vouches for nothing routes only to its own
/// addresses. A peer whose key has expired stays in the list; ask peer_usable().
class Netmap {
public:
    /// The next frame with state is the first of a new stream: it replaces everything, but not before it has come.
    void begin_stream() { awaiting_first_ = true; }

    /// Applies one frame; `now` is the local clock. Fails without effect when the first frame of a stream has no Node:
    /// reconnect then. Keep-alives are told apart and change only what they may.
    Result<NetmapChanges> apply(wire::MapResponse frame, WallTime now);

    /// A peer's new disco key, learned inside the tunnel. True if it was news.
    bool learn_disco_key(wire::NodeId peer, const DiscoKey& key, WallTime now);

    bool has_self() const { return self_.has_value(); }
    const wire::Node& self() const { return *self_; }
    const std::map<wire::NodeId, wire::Node>& peers() const { return peers_; }
    const wire::Node* find(wire::NodeId peer) const;
    const wire::Node* find(const NodeKey& key) const;
    /// The peer or self that owns this address.
    const wire::Node* owner_of(const IpAddress& address) const;
    const wire::UserProfile* user(wire::UserId id) const;
    const std::map<wire::UserId, wire::UserProfile>& users() const { return users_; }

    /// Regions are never null.
    const wire::DerpMap& derp_map() const { return derp_map_; }
    const wire::DnsConfig& dns() const { return dns_; }
    const std::string& domain() const { return domain_; }
    /// The suffix of MagicDNS names, from the self node's name, without dots at the ends: "tail.example".
    std::string magic_dns_suffix() const;
    /// The rules of all chunks, chunks by name. None at all, or no filter ever received: everything inbound is blocked.
    std::vector<wire::FilterRule> filter_rules() const;
    bool has_filter() const { return has_filter_; }
    /// Where in the policy each of filter_rules() is written; empty where the server does not say.
    const std::vector<wire::RuleLines>& policy_lines() const { return policy_lines_; }
    /// Absent: nobody may log in.
    const std::optional<wire::SshPolicy>& ssh_policy() const { return ssh_policy_; }
    bool collect_services() const { return collect_services_; }
    /// What the user should know; `health` is not to be shown while there are display messages.
    const std::vector<std::string>& health() const { return health_; }
    const std::map<std::string, wire::DisplayMessage>& display_messages() const { return display_messages_; }
    const std::optional<wire::TkaInfo>& tka_info() const { return tka_info_; }
    const std::string& audit_log_id() const { return audit_log_id_; }
    const wire::ControlDialPlan& dial_plan() const { return dial_plan_; }
    const std::optional<wire::ClientVersion>& client_version() const { return client_version_; }
    std::optional<bool> default_auto_update() const { return default_auto_update_; }

    /// Not expired by the server's clock. An unusable peer gets no traffic: leave it out of WireGuard.
    bool peer_usable(const wire::Node& peer, WallTime now) const;
    /// By the local clock, uncorrected: the node must log in again.
    bool self_expired(WallTime now) const;
    /// When the next peer's (or our own) key expires, by the local clock.
    std::optional<WallTime> next_expiry(WallTime now) const;
    /// What to add to the local clock to get the server's; 0 when it is within a minute.
    Duration clock_skew() const { return clock_skew_; }

private:
    void apply_peers(wire::MapResponse& frame, WallTime now, NetmapChanges& changes);
    void apply_patch(wire::PeerChange& patch, NetmapChanges& changes);
    void apply_filters(wire::MapResponse& frame, NetmapChanges& changes);
    void apply_filter_chunks(std::map<std::string, std::optional<std::vector<wire::FilterRule>>>& chunks);
    void apply_derp_map(wire::DerpMap map, NetmapChanges& changes);
    void apply_display(wire::MapResponse& frame, NetmapChanges& changes);
    void apply_clock(const wire::MapResponse& frame, WallTime now);
    void upsert(wire::Node node, bool whole_list, NetmapChanges& changes);
    void remove(wire::NodeId id, NetmapChanges& changes);
    void index(const wire::Node& node);
    void forget_index(const wire::Node& node);

    bool awaiting_first_ = true;
    std::optional<wire::Node> self_;
    std::map<wire::NodeId, wire::Node> peers_;
    std::unordered_map<NodeKey, wire::NodeId> by_key_;
    std::unordered_map<IpAddress, wire::NodeId> by_address_;
    std::map<wire::UserId, wire::UserProfile> users_;
    wire::DerpMap derp_map_;
    wire::DnsConfig dns_;
    std::string domain_;
    std::map<std::string, std::vector<wire::FilterRule>> filters_;
    bool has_filter_ = false;
    std::vector<wire::RuleLines> policy_lines_;
    std::optional<wire::SshPolicy> ssh_policy_;
    bool collect_services_ = false;
    std::vector<std::string> health_;
    std::map<std::string, wire::DisplayMessage> display_messages_;
    std::optional<wire::TkaInfo> tka_info_;
    std::string audit_log_id_;
    wire::ControlDialPlan dial_plan_; // survives streams
    std::optional<wire::ClientVersion> client_version_;
    std::optional<bool> default_auto_update_;
    Duration clock_skew_{0};
};

} // namespace tailrace
