// control/model/model.hpp - the records of a tailnet: who and what is in it. Plain values, the same in memory and in
// the store.
#pragma once
#include "base/net.hpp"
#include "base/time.hpp"
#include "policy/tailnet.hpp"
#include "proto/control/vip_services.hpp"
#include "proto/keys.hpp"

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace tailrace {

using UserId = std::int64_t;
using NodeId = std::int64_t; ///< > 0, never used twice
using AuthKeyId = std::int64_t;
/// By the regions of the relays.
using RelayLatencies = std::map<int, Duration>;
/// The regions whose clients a router has, by route; sorted.
using RegionalRoutes = std::map<IpPrefix, std::vector<int>>;
using OAuthClientId = std::int64_t;

/// Nodes with tags belong to nobody; on the wire they belong to this user. Source: control-protocol.md 4.7.
inline constexpr UserId kTaggedDevicesUser = 2147455555;

struct User {
    UserId id = 0;
    std::string name; ///< login name: "alice" or "alice@example.com"; unique
    std::string display_name;
    WallTime created;
    UserRole role = UserRole::Member; ///< what autogroup:admin and its kin go by

    bool operator==(const User&) const = default;
};

/// A pre-authentication key. The secret itself is shown once and never stored.
struct AuthKey {
    AuthKeyId id = 0;
    std::string prefix;                      ///< 12 hex digits, the public part of the key's text
    std::array<std::byte, 32> secret_hash{}; ///< SHA-256
    UserId user = 0;                         ///< who made it; owns the nodes unless there are tags. 0: an OAuth client
    std::vector<std::string> tags;           ///< sorted; not empty: nodes get these tags
    bool reusable = false;
    bool ephemeral = false;
    bool preapproved = false;
    WallTime created;
    WallTime expires; ///< zero: never
    WallTime used;    ///< zero: not yet; the last use of a reusable one
    WallTime revoked; ///< zero: still good
    std::string description;
    OAuthClientId oauth_client = 0; ///< which made it instead of a user; such a key has tags

    bool operator==(const AuthKey&) const = default;
};

/// Something that makes auth keys by the API, for a fleet. The secret itself is shown once and never stored.
struct OAuthClient {
    OAuthClientId id = 0;
    std::string prefix;                      ///< 12 hex digits, the public part of the secret's text; its id in the API
    std::array<std::byte, 32> secret_hash{}; ///< SHA-256
    std::vector<std::string> scopes;         ///< sorted: what it may ask for
    std::vector<std::string> tags;           ///< sorted: what it may make keys for, with what these own
    WallTime created;
    WallTime revoked; ///< zero: still good
    std::string description;

    bool operator==(const OAuthClient&) const = default;
};

/// What an administrator says of a node: policies ask for it in "postures".
struct CustomAttribute {
    PostureValue value;
    WallTime expires; ///< zero: never

    bool operator==(const CustomAttribute&) const = default;
};
using CustomAttributes = std::map<std::string, CustomAttribute>; ///< by name: "custom:tier"

/// A name with addresses of its own, behind which stand the nodes that host it.
struct Service {
    std::string name; ///< "svc:web"; its label is the name of no node
    IpAddress v4, v6;
    std::vector<std::string> tags; ///< sorted: a host has one of them
    std::vector<PortRange> ports;  ///< of TCP, as given; empty: any
    WallTime created;

    bool operator==(const Service&) const = default;
};
/// Who said of a node that it may host a service, or that it may not.
enum class HostApproval : std::uint8_t { Person, Policy, Revoked };
using Hosting = std::map<std::string, HostApproval>; ///< by the names of services

/// What must survive anything about a node: written before anybody hears of it.
struct NodeRecord {
    NodeId id = 0;
    MachineKey machine_key;
    NodeKey node_key;
    std::string hostname;          ///< as the node reported it
    std::string given_name;        ///< its DNS label, unique in the tailnet
    bool name_is_fixed = false;    ///< an administrator chose it: the host name no longer matters
    UserId user = 0;               ///< who registered it; with tags, who may have to answer for it
    std::vector<std::string> tags; ///< sorted
    IpAddress v4, v6;
    bool ephemeral = false;
    bool authorized = true;
    AuthKeyId auth_key = 0; ///< 0: approved by hand
    WallTime created;
    WallTime key_expiry;                   ///< zero: never
    std::vector<IpPrefix> approved_routes; ///< sorted, as the lists below; offered or not
    std::vector<IpPrefix> policy_routes;   ///< those of the approved that the policy approved, not a person
    std::vector<IpPrefix> revoked_routes;  ///< taken away by a person: the policy does not approve them again
    std::vector<IpPrefix> primary_routes;  ///< those that it was chosen as the primary of, of services too
    RegionalRoutes regional_routes;        ///< and those that it was chosen for clients of some regions for
    WallTime router_since;                 ///< when it last began to be a router, or to be one again; zero: ever since
    int router_falls = 0;                  ///< how often it had gone in short order when it came back then
    bool router_gone = false;              ///< it went, and has not come back
    Hosting hosting;                       ///< services that it may host, whether or not it does
    CustomAttributes attributes;

    bool is_tagged() const { return !tags.empty(); }
    bool expired(const WallTime& now) const { return !key_expiry.is_zero() && key_expiry <= now; }
    bool operator==(const NodeRecord&) const = default;
};

/// What a node says about itself all the time. Written lazily: after a crash it says it again.
struct NodeReport {
    DiscoKey disco_key;
    std::vector<Endpoint> endpoints;
    int home_derp = 0;
    int cap_version = 0;
    std::string hostinfo;                        ///< whole, as JSON
    std::vector<IpPrefix> routable_ips;          ///< from hostinfo, sorted: the routes it offers
    RelayLatencies relay_latencies;              ///< from hostinfo, of one that offers routes
    std::map<std::string, PostureValue> posture; ///< from hostinfo: "node:os" and the like
    std::string services_hash;                   ///< from hostinfo: changes with the services that it hosts
    bool app_connector = false;                  ///< from hostinfo: it offers to be one
    std::uint16_t peer_api4 = 0,
                  peer_api6 = 0; ///< from hostinfo, of one that does: ports at which it answers for names
    wire::VipServices announced; ///< those, as it said when it was last asked
    WallTime last_seen;
    bool online = false;

    bool operator==(const NodeReport&) const = default;
};

struct Node {
    NodeRecord record;
    NodeReport report;

    NodeId id() const { return record.id; }
    bool operator==(const Node&) const = default;
};

using UserPtr = std::shared_ptr<const User>;
using AuthKeyPtr = std::shared_ptr<const AuthKey>;
using OAuthClientPtr = std::shared_ptr<const OAuthClient>;
using ServicePtr = std::shared_ptr<const Service>;
using NodePtr = std::shared_ptr<const Node>;

} // namespace tailrace
