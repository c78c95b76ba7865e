// control/admin/messages.hpp - what the command line and the server say to each other over the Unix socket. The same
// JSON is what `--json` prints.
#pragma once
#include "base/json/fields.hpp"
#include "base/net.hpp"
#include "base/time.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace tailrace::admin {

struct UserInfo {
    std::int64_t id = 0;
    std::string name, display_name;
    std::int64_t nodes = 0; ///< how many it owns
    WallTime created;
    std::string role; ///< "member", "admin" and so on
};
struct CreateUser {
    std::string name, display_name;
};
struct SetRole {
    std::string role;
};

struct KeyInfo {
    std::int64_t id = 0;
    std::string key; ///< the whole text, only in the answer to its creation; else the public part
    std::string user;
    std::string oauth_client; ///< the public part of the client that made it, instead of a user
    std::vector<std::string> tags;
    bool reusable = false, ephemeral = false, preapproved = false;
    std::string state; ///< "valid", "used", "expired", "revoked"
    WallTime created;
    std::optional<WallTime> expires, used;
};
struct CreateKey {
    std::string user;
    std::vector<std::string> tags;
    bool reusable = false, ephemeral = false, preapproved = false;
    std::string expiry; ///< a duration; "" for the default, "0" for never
};

struct OAuthClientInfo {
    std::int64_t id = 0;
    std::string client; ///< the whole secret, only in the answer to its creation; else the public part
    std::vector<std::string> scopes, tags;
    std::string state; ///< "valid", "revoked"
    WallTime created;
    std::string description;
};
struct CreateOAuthClient {
    std::vector<std::string> scopes, tags;
    std::string description;
};

struct NodeInfo {
    std::int64_t id = 0;
    std::string name; ///< first label of its DNS name
    std::string fqdn, hostname, user;
    std::vector<std::string> tags;
    std::vector<IpAddress> addresses;
    bool online = false, expired = false, ephemeral = false;
    bool approved = true; ///< false: it waits for `nodes approve`
    std::optional<WallTime> last_seen, key_expiry;
    WallTime created;
    std::string os, client_version, node_key, machine_key, disco_key;
    std::vector<Endpoint> endpoints;
    int home_derp = 0;
    std::vector<IpPrefix> advertised_routes, approved_routes;
    std::vector<IpPrefix> primary_routes; ///< of those in force
};
struct RegisterNode {
    std::string id, user;
};
struct RenameNode {
    std::string name;
};
struct TagNode {
    std::vector<std::string> tags;
};

/// One posture attribute of a node.
struct AttributeInfo {
    std::string name, value;
    std::string source; ///< "reported" by the node, or "set" by an administrator
    std::optional<WallTime> expires;
};
struct ChangeAttributes {
    std::map<std::string, std::string> set;
    std::vector<std::string> unset;
    std::string expiry; ///< of those that are set: a duration; "" for never
};

/// One route of one node.
struct RouteInfo {
    std::int64_t node = 0;
    std::string name; ///< of the node
    IpPrefix route;
    bool offered = false, approved = false;
    std::string decided_by; ///< "hand" or "policy"; "" when nobody has decided
    bool primary = false;   ///< packets of this route go through this node, if nothing is said for a region
    std::vector<std::string> carries_for; ///< regions by their codes, "others", or "everybody"
    std::string health;                   ///< of the router, in a word or two
    std::string problem;                  ///< why nobody can approve it
};
struct ChangeRoutes {
    std::vector<std::string> routes;
    bool all = false; ///< what it offers, or what is approved
};

struct ServiceHostInfo {
    std::int64_t node = 0;
    std::string name;  ///< of the node
    std::string state; ///< "serves", or what is missing
    bool online = false;
    bool primary = false;   ///< connections go to it
    std::string decided_by; ///< "hand" or "policy"; "" when nobody has decided
};
struct ServiceInfo {
    std::string name, dns_name;
    std::vector<IpAddress> addresses;
    std::vector<std::string> ports, tags;
    WallTime created;
    std::vector<ServiceHostInfo> hosts;
};
struct CreateService {
    std::string name;
    std::vector<std::string> tags, ports;
};
struct ServiceHostWish {
    std::string node;
};

struct Failure {
    std::string error;
};

} // namespace tailrace::admin

namespace tailrace {

template <>
struct JsonFields<admin::UserInfo> {
    using S = admin::UserInfo;
    static constexpr auto fields =
        field_table(field("id", &S::id), field("name", &S::name), field("displayName", &S::display_name, Omit::Empty),
                    field("nodes", &S::nodes), field("created", &S::created), field("role", &S::role));
};
template <>
struct JsonFields<admin::CreateUser> {
    using S = admin::CreateUser;
    static constexpr auto fields =
        field_table(field("name", &S::name), field("displayName", &S::display_name, Omit::Empty));
};
template <>
struct JsonFields<admin::SetRole> {
    static constexpr auto fields = field_table(field("role", &admin::SetRole::role));
};
template <>
struct JsonFields<admin::AttributeInfo> {
    using S = admin::AttributeInfo;
    static constexpr auto fields = field_table(field("name", &S::name), field("value", &S::value),
                                               field("source", &S::source), field("expires", &S::expires, Omit::Empty));
};
template <>
struct JsonFields<admin::ChangeAttributes> {
    using S = admin::ChangeAttributes;
    static constexpr auto fields =
        field_table(field("set", &S::set), field("unset", &S::unset), field("expiry", &S::expiry));
};
template <>
struct JsonFields<admin::KeyInfo> {
    using S = admin::KeyInfo;
    static constexpr auto fields =
        field_table(field("id", &S::id), field("key", &S::key), field("user", &S::user),
                    field("oauthClient", &S::oauth_client, Omit::Empty), field("tags", &S::tags),
                    field("reusable", &S::reusable), field("ephemeral", &S::ephemeral),
                    field("preapproved", &S::preapproved), field("state", &S::state), field("created", &S::created),
                    field("expires", &S::expires, Omit::Empty), field("used", &S::used, Omit::Empty));
};
template <>
struct JsonFields<admin::OAuthClientInfo> {
    using S = admin::OAuthClientInfo;
    static constexpr auto fields = field_table(
        field("id", &S::id), field("client", &S::client), field("scopes", &S::scopes), field("tags", &S::tags),
        field("state", &S::state), field("created", &S::created), field("description", &S::description, Omit::Empty));
};
template <>
struct JsonFields<admin::CreateOAuthClient> {
    using S = admin::CreateOAuthClient;
    static constexpr auto fields =
        field_table(field("scopes", &S::scopes), field("tags", &S::tags), field("description", &S::description));
};
template <>
struct JsonFields<admin::CreateKey> {
    using S = admin::CreateKey;
    static constexpr auto fields = field_table(field("user", &S::user), field("tags", &S::tags),
                                               field("reusable", &S::reusable), field("ephemeral", &S::ephemeral),
                                               field("preapproved", &S::preapproved), field("expiry", &S::expiry));
};
template <>
struct JsonFields<admin::NodeInfo> {
    using S = admin::NodeInfo;
    static constexpr auto fields = field_table(
        field("id", &S::id), field("name", &S::name), field("fqdn", &S::fqdn), field("hostname", &S::hostname),
        field("user", &S::user), field("tags", &S::tags), field("addresses", &S::addresses),
        field("online", &S::online), field("expired", &S::expired), field("ephemeral", &S::ephemeral),
        field("approved", &S::approved), field("lastSeen", &S::last_seen, Omit::Empty),
        field("keyExpiry", &S::key_expiry, Omit::Empty), field("created", &S::created), field("os", &S::os),
        field("clientVersion", &S::client_version), field("nodeKey", &S::node_key),
        field("machineKey", &S::machine_key), field("discoKey", &S::disco_key), field("endpoints", &S::endpoints),
        field("homeDerp", &S::home_derp), field("advertisedRoutes", &S::advertised_routes),
        field("approvedRoutes", &S::approved_routes), field("primaryRoutes", &S::primary_routes));
};
template <>
struct JsonFields<admin::RegisterNode> {
    using S = admin::RegisterNode;
    static constexpr auto fields = field_table(field("id", &S::id), field("user", &S::user));
};
template <>
struct JsonFields<admin::RenameNode> {
    static constexpr auto fields = field_table(field("name", &admin::RenameNode::name));
};
template <>
struct JsonFields<admin::TagNode> {
    static constexpr auto fields = field_table(field("tags", &admin::TagNode::tags));
};
template <>
struct JsonFields<admin::RouteInfo> {
    using S = admin::RouteInfo;
    static constexpr auto fields = field_table(
        field("node", &S::node), field("name", &S::name), field("route", &S::route), field("offered", &S::offered),
        field("approved", &S::approved), field("decidedBy", &S::decided_by), field("primary", &S::primary),
        field("carriesFor", &S::carries_for), field("health", &S::health), field("problem", &S::problem, Omit::Empty));
};
template <>
struct JsonFields<admin::ChangeRoutes> {
    using S = admin::ChangeRoutes;
    static constexpr auto fields = field_table(field("routes", &S::routes), field("all", &S::all));
};
template <>
struct JsonFields<admin::ServiceHostInfo> {
    using S = admin::ServiceHostInfo;
    static constexpr auto fields =
        field_table(field("node", &S::node), field("name", &S::name), field("state", &S::state),
                    field("online", &S::online), field("primary", &S::primary), field("decidedBy", &S::decided_by));
};
template <>
struct JsonFields<admin::ServiceInfo> {
    using S = admin::ServiceInfo;
    static constexpr auto fields = field_table(
        field("name", &S::name), field("dnsName", &S::dns_name, Omit::Empty), field("addresses", &S::addresses),
        field("ports", &S::ports), field("tags", &S::tags), field("created", &S::created), field("hosts", &S::hosts));
};
template <>
struct JsonFields<admin::CreateService> {
    using S = admin::CreateService;
    static constexpr auto fields =
        field_table(field("name", &S::name), field("tags", &S::tags), field("ports", &S::ports));
};
template <>
struct JsonFields<admin::ServiceHostWish> {
    static constexpr auto fields = field_table(field("node", &admin::ServiceHostWish::node));
};
template <>
struct JsonFields<admin::Failure> {
    static constexpr auto fields = field_table(field("error", &admin::Failure::error));
};

} // namespace tailrace
