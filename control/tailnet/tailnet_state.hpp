// control/tailnet/tailnet_state.hpp - who and what is in the tailnet, and every decision about it. Pure: it is told the
// time, it writes nothing and sends nothing; take_changes() says what to write and whom to tell.
#pragma once
#include "control/model/model.hpp"
#include "control/store/store.hpp"
#include "control/tailnet/addresses.hpp"
#include "proto/control/map.hpp"
#include "proto/control/register.hpp"

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

namespace tailrace {

/// One node before and after. Null before: it is new. Null after: it is gone.
struct NodeEvent {
    NodeId id = 0;
    NodePtr before, after;
};

/// What a decision did to the tailnet.
struct Changes {
    StoreOperations operations;   ///< to be on disk before anybody is told
    std::vector<NodePtr> reports; ///< to be on disk some time
    std::vector<NodeEvent> events;
    bool users_changed = false, services_changed = false;
    std::vector<std::function<void()>> undo; ///< in the order of doing

    bool needs_commit() const { return !operations.empty(); }
};

/// May these people or tags give a device this tag? Answered by the policy in force.
struct TagOwners {
    std::function<bool(const User& user, const std::string& tag)> user_may;
    std::function<bool(const std::vector<std::string>& tags, const std::string& tag)> tags_may;
    std::function<bool(const std::string& tag)> is_known; ///< the policy says who owns it
};

/// Who says that a route may be used, or a service hosted.
enum class Approval { Person, Policy };

/// The answer to a registration.
struct RegisterDecision {
    wire::RegisterResponse response;
    std::string wait_for; ///< not empty: hold the request until this pending registration ends, then ask again
};

/// Everything at one moment, never changed again.
struct Snapshot {
    std::map<NodeId, NodePtr> nodes;
    std::map<UserId, UserPtr> users;
    std::map<std::string, ServicePtr, std::less<>> services;
};

class TailnetState {
public:
    /// A node is counted offline this long after its last stream ended.
    static constexpr auto kOfflineGrace = std::chrono::seconds{10};
    /// After a start, the same for nodes that were online before: clients back off up to 30 s.
    static constexpr auto kRestartGrace = std::chrono::seconds{40};
    static constexpr auto kPendingLifetime = std::chrono::minutes{15};
    static constexpr std::size_t kMaxPending = 1024;
    /// A key that an OAuth client made is forgotten this long after it ceased to be of use: a fleet makes many.
    static constexpr auto kSpentKeyLifetime = std::chrono::hours{24};

    struct Settings {
        std::string server_url;
        std::string base_domain;
        IpPrefix prefix_v4, prefix_v6;
        Duration ephemeral_timeout = std::chrono::minutes{30};
        bool device_approval = false; ///< new nodes wait for approve_node(), unless their auth key is pre-approved
        bool tags_need_owners = true; ///< false only in tests
    };

    TailnetState(Settings settings, StoredTailnet stored, TagOwners owners, WallTime now);

    // What is there.
    const std::map<NodeId, NodePtr>& nodes() const { return nodes_; }
    const std::map<UserId, UserPtr>& users() const { return users_; }
    const std::map<AuthKeyId, AuthKeyPtr>& auth_keys() const { return auth_keys_; }
    const std::map<OAuthClientId, OAuthClientPtr>& oauth_clients() const { return oauth_clients_; }
    const std::map<std::string, ServicePtr, std::less<>>& services() const { return services_; }
    ServicePtr service(std::string_view name) const;
    /// Whose secret this is, revoked or not; null when it is nobody's.
    OAuthClientPtr oauth_client_with_secret(std::string_view text) const;
    /// Null when there is none. The reference holds until the next change.
    const NodePtr& node(NodeId id) const;
    NodePtr node_by_key(const NodeKey& key) const;
    std::set<NodeId> nodes_of_machine(const MachineKey& machine) const;
    UserPtr user_named(std::string_view name) const;
    UserPtr user(UserId id) const;
    std::shared_ptr<const Snapshot> snapshot();
    std::string fqdn(const Node& node) const; ///< with the dot at the end
    const Settings& settings() const { return settings_; }
    wire::UserProfile profile(UserId id) const;
    static UserId owner_of(const NodeRecord& record) { return record.is_tagged() ? kTaggedDevicesUser : record.user; }

    // What clients ask for (control-protocol.md 4 and 5).
    RegisterDecision on_register(WallTime now, const MachineKey& machine, const wire::RegisterRequest& request);
    /// What a lite update says, or a stream of a client below 68.
    void on_report(WallTime now, NodeId id, const wire::MapRequest& request);
    /// A stream began: fills in what no lite update has said yet.
    void on_stream_begin(WallTime now, NodeId id, const wire::MapRequest& request);
    void on_stream_end(WallTime now, NodeId id);
    /// It was asked which services it hosts, and said so.
    void on_services_told(NodeId id, wire::VipServices announced);

    // What administrators ask for.
    Result<UserPtr> create_user(WallTime now, std::string name, std::string display_name);
    Result<void> delete_user(std::string_view name);
    Result<void> set_role(std::string_view user, UserRole role);
    struct KeyWish {
        std::string user;
        OAuthClientId oauth_client = 0; ///< who makes it, instead of a user; its tags must have been asked for
        std::vector<std::string> tags;
        bool reusable = false, ephemeral = false, preapproved = false;
        Duration lifetime{}; ///< 0: never expires
        std::string description;
    };
    struct NewKey {
        AuthKeyPtr key;
        std::string text; ///< shown once
    };
    Result<NewKey> create_auth_key(WallTime now, const KeyWish& wish);
    Result<void> revoke_auth_key(WallTime now, AuthKeyId id);
    struct OAuthClientWish {
        std::vector<std::string> scopes; ///< empty: auth_keys
        std::vector<std::string> tags;
        std::string description;
    };
    struct NewOAuthClient {
        OAuthClientPtr client;
        std::string text; ///< shown once
    };
    Result<NewOAuthClient> create_oauth_client(WallTime now, const OAuthClientWish& wish);
    /// The auth keys that it made stay as they are.
    Result<void> revoke_oauth_client(WallTime now, OAuthClientId id);
    /// Each wanted tag is among `tags`, or the policy says that one of these owns it.
    bool tags_may_give(const std::vector<std::string>& tags, const std::vector<std::string>& wanted) const;
    /// By id, name, FQDN, address or node key.
    Result<NodePtr> find_node(std::string_view what) const;
    /// Lets a node in that device approval made wait; nothing for one that is in.
    Result<void> approve_node(NodeId id);
    Result<void> expire_node(WallTime now, NodeId id, WallTime expiry);
    Result<void> delete_node(NodeId id);
    Result<void> rename_node(NodeId id, std::string_view name);
    Result<void> tag_node(NodeId id, std::vector<std::string> tags);
    /// Sets the named attributes, takes away those without a value. A name has values of one kind in the whole tailnet.
    Result<void> change_attributes(WallTime now, NodeId id,
                                   const std::map<std::string, std::optional<CustomAttribute>>& wish);
    /// An exit route brings that of the other family along. What the policy approves is left out where a person has
    /// revoked it, or nobody may have it; a person's word stands above the policy's.
    Result<void> approve_routes(WallTime now, NodeId id, std::vector<IpPrefix> routes, Approval by);
    Result<void> revoke_routes(WallTime now, NodeId id, std::vector<IpPrefix> routes);
    std::optional<std::string> route_problem(const IpPrefix& route) const;
    /// Which node is the primary of what, to be known after a restart.
    void set_primary_routes(NodeId id, std::vector<IpPrefix> routes);
    /// The same by region.
    void set_regional_routes(NodeId id, RegionalRoutes routes);
    /// Others have its routes now, also after a restart.
    void on_router_gone(NodeId id);
    /// It was away, and leads no group of routers before those that stayed. `falls`: how often lately.
    void on_router_back(WallTime now, NodeId id, int falls);
    struct ServiceWish {
        std::string name;
        std::vector<std::string> tags;  ///< of the nodes that may host it
        std::vector<std::string> ports; ///< "tcp:443"; empty: any
    };
    /// It has two addresses from now on until it is deleted.
    Result<ServicePtr> create_service(WallTime now, const ServiceWish& wish);
    Result<void> delete_service(std::string_view name);
    /// The policy's approval leaves alone what is decided already.
    Result<void> approve_host(WallTime now, std::string_view name, NodeId id, Approval by);
    /// From now on, whatever the policy says.
    Result<void> revoke_host(std::string_view name, NodeId id);
    Result<NodePtr> approve_registration(WallTime now, std::string_view pending_id, std::string_view user);
    bool is_pending(std::string_view id) const { return pending_.find(id) != pending_.end(); }
    std::size_t pending_count() const { return pending_.size(); }
    void set_policy_text(std::string text);

    // What time does.
    void on_timer(WallTime now);
    std::optional<WallTime> next_timer() const;

    /// All that happened since the last call.
    Changes take_changes();

private:
    struct Pending {
        MachineKey machine;
        wire::RegisterRequest request;
        WallTime created;
    };
    /// How a node comes in: by whom, as what.
    struct Admission {
        UserId user = 0;
        std::vector<std::string> tags;
        bool ephemeral = false;
        AuthKeyPtr key; // null: approved by hand
        WallTime key_expiry;
    };

    RegisterDecision known_node(WallTime now, const NodePtr& node, const wire::RegisterRequest& request);
    RegisterDecision with_auth_key(WallTime now, const MachineKey& machine, const wire::RegisterRequest& request);
    RegisterDecision interactive(WallTime now, const MachineKey& machine, const wire::RegisterRequest& request);
    Result<NodePtr> admit(WallTime now, const MachineKey& machine, const wire::RegisterRequest& request,
                          const Admission& admission);
    Result<std::vector<std::string>> allowed_tags(const User& user, std::vector<std::string> wanted) const;
    RegisterDecision success(const Node& node) const;
    NodePtr node_of_machine(const MachineKey& machine, UserId owner) const;

    Result<void> fits_other_nodes(const std::string& name, const PostureValue& value, NodeId id) const;
    Result<void> put_routes(WallTime now, const Node& before, Node after);
    void put_node(Node node, bool durable);
    void remove_node(NodeId id);
    void put_user(UserId id, UserPtr user);
    void put_key(AuthKeyId id, AuthKeyPtr key);
    void put_oauth_client(OAuthClientPtr client);
    void put_service(const std::string& name, ServicePtr service); // null: forget
    void forget_spent_keys(WallTime now);
    void restore_node(NodeId id, const NodePtr& node);
    void keep(NodeId id, NodePtr node); // null: forget
    void index(const NodePtr& before, const NodePtr& after);
    std::string free_name(std::string_view hostname, NodeId for_node) const;
    void take_report(Node& node, const wire::MapRequest& request);
    void forget_old_pending(WallTime now);

    Settings settings_;
    TagOwners owners_;
    std::map<UserId, UserPtr> users_;
    std::map<AuthKeyId, AuthKeyPtr> auth_keys_;
    std::map<OAuthClientId, OAuthClientPtr> oauth_clients_;
    std::map<std::string, ServicePtr, std::less<>> services_;
    std::map<NodeId, NodePtr> nodes_;
    std::unordered_map<NodeId, NodePtr> by_id_; // the same as nodes_, found faster
    std::unordered_map<NodeKey, NodeId> by_node_key_;
    std::map<MachineKey, std::set<NodeId>> by_machine_;
    std::map<std::string, NodeId, std::less<>> by_name_;
    std::unordered_map<IpAddress, NodeId> by_address_;
    std::map<std::string, Pending, std::less<>> pending_;
    AddressPool addresses_;
    UserId last_user_ = 0;
    AuthKeyId last_auth_key_ = 0;
    OAuthClientId last_oauth_client_ = 0;
    NodeId last_node_ = 0;
    std::map<NodeId, WallTime> offline_at_; // grace periods that run
    std::set<std::pair<WallTime, NodeId>> expiries_;
    std::set<std::pair<WallTime, NodeId>> attribute_expiries_;
    std::set<std::pair<WallTime, NodeId>> ephemeral_ends_;
    std::map<NodeId, WallTime> ephemeral_end_of_;
    void end_ephemeral_at(NodeId id, std::optional<WallTime> when);
    std::shared_ptr<const Snapshot> snapshot_;
    Changes changes_;
};

} // namespace tailrace
