// proto/control/node.hpp - nodes, the people behind them, and patches to nodes (control-protocol.md 6.1, 6.4, 6.5).
// Source: tailscale tailcfg/tailcfg.go.
#pragma once
#include "base/json/fields.hpp"
#include "base/net.hpp"
#include "base/time.hpp"
#include "proto/control/dns.hpp"
#include "proto/control/filter.hpp"
#include "proto/control/hostinfo.hpp"
#include "proto/keys.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tailrace::wire {

using NodeId = std::int64_t; ///< above 0, never used twice by one server
using UserId = std::int64_t;

struct Node {
    NodeId id = 0;
    std::string stable_id;
    std::string name; ///< FQDN with trailing dot
    UserId user = 0;
    UserId sharer = 0;
    NodeKey key;
    WallTime key_expiry; ///< zero: never
    Bytes key_signature;
    MachineKey machine;
    DiscoKey disco_key;
    std::vector<IpPrefix> addresses;                  ///< single addresses, IPv4 first
    std::optional<std::vector<IpPrefix>> allowed_ips; ///< absent: as `addresses`; empty: none
    std::vector<Endpoint> endpoints;
    std::string legacy_derp; ///< "127.3.3.40:<region>", used only when home_derp is 0
    int home_derp = 0;
    Kept<Hostinfo> hostinfo; ///< the server relays the text, the agent reads the value
    WallTime created;
    int cap = 0; ///< that node's capability version
    std::vector<std::string> tags;
    std::vector<IpPrefix> primary_routes;
    std::optional<WallTime> last_seen; ///< only when offline
    std::optional<bool> online;        ///< absent: unknown
    bool machine_authorized = false;
    std::vector<std::string> capabilities; ///< the keys of cap_map, for clients below 74
    CapMap cap_map;
    bool unsigned_peer_api_only = false;
    std::string computed_name, computed_name_with_host; ///< clients' own business; a server sends none
    std::string data_plane_audit_log_id;
    bool expired = false;
    IpAddress self_node_v4_masq_addr_for_this_peer, self_node_v6_masq_addr_for_this_peer;
    bool is_wireguard_only = false;
    bool is_jailed = false;
    std::vector<Resolver> exit_node_dns_resolvers;

    /// Absent `allowed_ips` mean the addresses.
    const std::vector<IpPrefix>& routes_to() const { return allowed_ips ? *allowed_ips : addresses; }
    /// `home_derp`, or the region in the legacy form; 0: unknown.
    int home_region() const;
    bool has_cap(const std::string& capability) const { return cap_map.count(capability) > 0; }
    bool operator==(const Node&) const = default;
};

/// "127.3.3.40:<region>", as clients below 111 want it; "" for region 0.
std::string legacy_derp_text(int region);

struct User {
    UserId id = 0;
    std::string display_name, profile_pic_url;
    WallTime created;
    bool operator==(const User&) const = default;
};

struct Login {
    std::int64_t id = 0;
    std::string provider, login_name, display_name, profile_pic_url;
    bool operator==(const Login&) const = default;
};

struct UserProfile {
    UserId id = 0;
    std::string login_name, display_name, profile_pic_url;
    std::vector<std::string> groups;
    bool operator==(const UserProfile&) const = default;
};

/// What is absent stays as it is.
struct PeerChange {
    NodeId node_id = 0;
    int derp_region = 0;
    int cap = 0;
    std::optional<CapMap> cap_map;
    std::optional<std::vector<Endpoint>> endpoints; ///< empty clears
    std::optional<NodeKey> key;
    Bytes key_signature;
    std::optional<DiscoKey> disco_key;
    std::optional<bool> online;
    std::optional<WallTime> last_seen;
    std::optional<WallTime> key_expiry; ///< zero time clears the expiry
    bool operator==(const PeerChange&) const = default;
};

Result<Node> parse_node(std::string_view text);
std::string write_node(const Node& node);
std::string write_user_profile(const UserProfile& profile);

} // namespace tailrace::wire

namespace tailrace {

template <>
struct JsonFields<wire::Node> {
    using S = wire::Node;
    static constexpr auto fields = field_table(
        field("ID", &S::id), field("StableID", &S::stable_id), field("Name", &S::name), field("User", &S::user),
        field("Sharer", &S::sharer, Omit::Zero), field("Key", &S::key), field("KeyExpiry", &S::key_expiry, Omit::Zero),
        field("KeySignature", &S::key_signature, Omit::Empty), field("Machine", &S::machine, Omit::Zero),
        field("DiscoKey", &S::disco_key, Omit::Zero), field("Addresses", &S::addresses),
        field("AllowedIPs", &S::allowed_ips, Omit::Zero), field("Endpoints", &S::endpoints, Omit::Empty),
        field("DERP", &S::legacy_derp, Omit::Zero), field("HomeDERP", &S::home_derp, Omit::Zero),
        field("Hostinfo", &S::hostinfo, Omit::Zero), field("Created", &S::created, Omit::Zero),
        field("Cap", &S::cap, Omit::Zero), field("Tags", &S::tags, Omit::Empty),
        field("PrimaryRoutes", &S::primary_routes, Omit::Empty), field("LastSeen", &S::last_seen, Omit::Empty),
        field("Online", &S::online, Omit::Empty), field("MachineAuthorized", &S::machine_authorized, Omit::Empty),
        field("Capabilities", &S::capabilities, Omit::Empty), field("CapMap", &S::cap_map, Omit::Empty),
        field("UnsignedPeerAPIOnly", &S::unsigned_peer_api_only, Omit::Zero),
        field("ComputedName", &S::computed_name, Omit::Zero),
        field("ComputedNameWithHost", &S::computed_name_with_host, Omit::Zero),
        field("DataPlaneAuditLogID", &S::data_plane_audit_log_id, Omit::Zero),
        field("Expired", &S::expired, Omit::Zero),
        field("SelfNodeV4MasqAddrForThisPeer", &S::self_node_v4_masq_addr_for_this_peer, Omit::Zero),
        field("SelfNodeV6MasqAddrForThisPeer", &S::self_node_v6_masq_addr_for_this_peer, Omit::Zero),
        field("IsWireGuardOnly", &S::is_wireguard_only, Omit::Zero), field("IsJailed", &S::is_jailed, Omit::Zero),
        field("ExitNodeDNSResolvers", &S::exit_node_dns_resolvers, Omit::Empty));
};

template <>
struct JsonFields<wire::User> {
    using S = wire::User;
    static constexpr auto fields =
        field_table(field("ID", &S::id), field("DisplayName", &S::display_name),
                    field("ProfilePicURL", &S::profile_pic_url, Omit::Zero), field("Created", &S::created, Omit::Zero));
};

template <>
struct JsonFields<wire::Login> {
    using S = wire::Login;
    static constexpr auto fields =
        field_table(field("ID", &S::id), field("Provider", &S::provider), field("LoginName", &S::login_name),
                    field("DisplayName", &S::display_name), field("ProfilePicURL", &S::profile_pic_url, Omit::Zero));
};

template <>
struct JsonFields<wire::UserProfile> {
    using S = wire::UserProfile;
    static constexpr auto fields =
        field_table(field("ID", &S::id), field("LoginName", &S::login_name), field("DisplayName", &S::display_name),
                    field("ProfilePicURL", &S::profile_pic_url, Omit::Zero), field("Groups", &S::groups, Omit::Empty));
};

template <>
struct JsonFields<wire::PeerChange> {
    using S = wire::PeerChange;
    static constexpr auto fields =
        field_table(field("NodeID", &S::node_id), field("DERPRegion", &S::derp_region, Omit::Zero),
                    field("Cap", &S::cap, Omit::Zero), field("CapMap", &S::cap_map, Omit::Zero),
                    field("Endpoints", &S::endpoints, Omit::Zero), field("Key", &S::key, Omit::Zero),
                    field("KeySignature", &S::key_signature, Omit::Empty), field("DiscoKey", &S::disco_key, Omit::Zero),
                    field("Online", &S::online, Omit::Zero), field("LastSeen", &S::last_seen, Omit::Zero),
                    field("KeyExpiry", &S::key_expiry, Omit::Zero));
};

} // namespace tailrace
