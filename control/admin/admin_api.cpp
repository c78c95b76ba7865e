#include "control/admin/admin_api.hpp"

#include "base/json/json.hpp"
#include "control/admin/attributes_api.hpp"
#include "control/admin/failure.hpp"
#include "control/admin/messages.hpp"
#include "control/admin/oauth_api.hpp"
#include "control/admin/routes_api.hpp"
#include "control/admin/services_api.hpp"
#include "control/routes/route_rules.hpp"
#include "control/server/policy_input.hpp"
#include "policy/tailnet_json.hpp"

namespace tailrace {
namespace {

using namespace admin;

constexpr Duration kDefaultKeyLifetime = std::chrono::hours{1};

template <typename T>
HttpResponse ok(const T& value) {
    return HttpResponse::json(200, json::write(value));
}
HttpResponse done() {
    return HttpResponse::json(200, "{}");
}

std::optional<WallTime> when_set(const WallTime& time) {
    if (time.is_zero()) return std::nullopt;
    return time;
}

std::string user_name(const TailnetState& tailnet, UserId id) {
    auto user = tailnet.user(id);
    return user ? user->name : "";
}

UserInfo describe(const TailnetState& tailnet, const User& user) {
    UserInfo info{user.id, user.name, user.display_name, 0, user.created, std::string{role_name(user.role)}};
    for (const auto& [id, node] : tailnet.nodes())
        if (!node->record.is_tagged() && node->record.user == user.id) ++info.nodes;
    return info;
}

std::string state_of(const AuthKey& key, const WallTime& now) {
    if (!key.revoked.is_zero()) return "revoked";
    if (!key.expires.is_zero() && key.expires <= now) return "expired";
    if (!key.reusable && !key.used.is_zero()) return "used";
    return "valid";
}

KeyInfo describe(const TailnetState& tailnet, const AuthKey& key) {
    KeyInfo info;
    info.id = key.id;
    info.key = key.prefix;
    info.user = user_name(tailnet, key.user);
    if (auto by = tailnet.oauth_clients().find(key.oauth_client); by != tailnet.oauth_clients().end())
        info.oauth_client = by->second->prefix;
    info.tags = key.tags;
    info.reusable = key.reusable;
    info.ephemeral = key.ephemeral;
    info.preapproved = key.preapproved;
    info.state = state_of(key, WallTime::now());
    info.created = key.created;
    info.expires = when_set(key.expires);
    info.used = when_set(key.used);
    return info;
}

NodeInfo describe(const TailnetState& tailnet, const Node& node) {
    NodeInfo info;
    info.id = node.id();
    info.name = node.record.given_name;
    info.fqdn = tailnet.fqdn(node);
    info.hostname = node.record.hostname;
    info.user = node.record.is_tagged() ? "tagged-devices" : user_name(tailnet, node.record.user);
    info.tags = node.record.tags;
    for (const auto& address : {node.record.v4, node.record.v6})
        if (address.valid()) info.addresses.push_back(address);
    info.online = node.report.online;
    info.expired = node.record.expired(WallTime::now());
    info.ephemeral = node.record.ephemeral;
    info.approved = node.record.authorized;
    info.last_seen = when_set(node.report.last_seen);
    info.key_expiry = when_set(node.record.key_expiry);
    info.created = node.record.created;
    info.node_key = node.record.node_key.text();
    info.machine_key = node.record.machine_key.text();
    info.disco_key = node.report.disco_key.text();
    info.endpoints = node.report.endpoints;
    info.home_derp = node.report.home_derp;
    info.advertised_routes = node.report.routable_ips;
    info.approved_routes = node.record.approved_routes;
    for (const IpPrefix& route : node.record.primary_routes) // the others are addresses of services
        if (contains_route(node.record.approved_routes, route)) info.primary_routes.push_back(route);
    if (auto hostinfo = json::parse<wire::Hostinfo>(node.report.hostinfo.empty() ? "{}" : node.report.hostinfo)) {
        info.os = hostinfo->os;
        info.client_version = hostinfo->ipn_version;
    }
    return info;
}

// ---- users

Task<HttpResponse> set_role(AdminBackend& backend, std::string name, std::string body) {
    auto wish = json::parse<SetRole>(body);
    if (!wish) co_return failed(wish.error());
    auto role = parse_role(wish->role);
    if (!role) co_return failed(role.error());
    if (auto changed = backend.tailnet().set_role(name, *role); !changed)
        co_return failed(404, changed.error().message());
    auto committed = co_await backend.commit();
    if (!committed) co_return failed(500, committed.error().message());
    UserPtr user = backend.tailnet().user_named(name);
    if (!user) co_return failed(404, "the user has been deleted meanwhile");
    co_return ok(describe(backend.tailnet(), *user));
}

Task<HttpResponse> users(AdminBackend& backend, const HttpRequest& request, std::string name, std::string verb) {
    TailnetState& tailnet = backend.tailnet();
    if (name.empty() && request.method == "GET") {
        std::vector<UserInfo> all;
        for (const auto& [id, user] : tailnet.users()) all.push_back(describe(tailnet, *user));
        co_return ok(all);
    }
    if (name.empty() && request.method == "POST") {
        auto wish = json::parse<CreateUser>(request.body);
        if (!wish) co_return failed(wish.error());
        auto user = tailnet.create_user(WallTime::now(), wish->name, wish->display_name);
        if (!user) co_return failed(user.error());
        UserPtr created = *user;
        auto committed = co_await backend.commit();
        if (!committed) co_return failed(500, committed.error().message());
        co_return ok(describe(tailnet, *created));
    }
    if (verb == "role" && request.method == "POST") {
        auto changed = co_await set_role(backend, name, request.body);
        co_return changed;
    }
    if (!name.empty() && verb.empty() && request.method == "DELETE") {
        auto deleted = tailnet.delete_user(name);
        if (!deleted) co_return failed(deleted.error());
        auto committed = co_await backend.commit();
        if (!committed) co_return failed(500, committed.error().message());
        co_return done();
    }
    co_return failed(405, "this method is not for users");
}

// ---- keys

Task<HttpResponse> create_key(AdminBackend& backend, std::string body) {
    auto wish = json::parse<CreateKey>(body);
    if (!wish) co_return failed(wish.error());
    TailnetState::KeyWish key_wish;
    key_wish.user = wish->user;
    key_wish.tags = wish->tags;
    key_wish.reusable = wish->reusable;
    key_wish.ephemeral = wish->ephemeral;
    key_wish.preapproved = wish->preapproved;
    key_wish.lifetime = kDefaultKeyLifetime;
    if (!wish->expiry.empty()) {
        auto lifetime = parse_duration(wish->expiry);
        if (!lifetime) co_return failed(lifetime.error().with("expiry"));
        if (*lifetime < Duration{0})
            co_return failed(400, "expiry: a key can't expire in the past; use 0 for a key that never expires");
        key_wish.lifetime = *lifetime;
    }
    auto created = backend.tailnet().create_auth_key(WallTime::now(), key_wish);
    if (!created) co_return failed(created.error());
    auto key = *created;
    auto committed = co_await backend.commit();
    if (!committed) co_return failed(500, committed.error().message());
    KeyInfo info = describe(backend.tailnet(), *key.key);
    info.key = key.text;
    co_return ok(info);
}

Task<HttpResponse> keys(AdminBackend& backend, const HttpRequest& request, std::string which, std::string verb) {
    TailnetState& tailnet = backend.tailnet();
    if (which.empty() && request.method == "GET") {
        std::vector<KeyInfo> all;
        for (const auto& [id, key] : tailnet.auth_keys()) all.push_back(describe(tailnet, *key));
        co_return ok(all);
    }
    if (which.empty() && request.method == "POST") {
        auto created = co_await create_key(backend, request.body);
        co_return created;
    }
    if (!which.empty() && verb == "revoke" && request.method == "POST") {
        std::optional<AuthKeyId> id;
        for (const auto& [key_id, key] : tailnet.auth_keys())
            if (std::to_string(key_id) == which || key->prefix == which) id = key_id;
        if (!id) co_return failed(404, fmt::format("no key \"{}\": `keys list` shows the ids", which));
        auto revoked = tailnet.revoke_auth_key(WallTime::now(), *id);
        if (!revoked) co_return failed(revoked.error());
        auto committed = co_await backend.commit();
        if (!committed) co_return failed(500, committed.error().message());
        co_return done();
    }
    co_return failed(405, "this method is not for keys");
}

// ---- nodes

// What a POST to one node asks for; the change is in the tailnet but not yet committed.
Result<void> change_node(TailnetState& tailnet, const Node& node, const std::string& verb, const std::string& body) {
    if (verb == "approve") return tailnet.approve_node(node.id());
    if (verb == "expire") return tailnet.expire_node(WallTime::now(), node.id(), WallTime::now());
    if (verb == "rename") {
        auto wish = json::parse<RenameNode>(body);
        if (!wish) return wish.error();
        return tailnet.rename_node(node.id(), wish->name);
    }
    if (verb == "tag") {
        auto wish = json::parse<TagNode>(body);
        if (!wish) return wish.error();
        return tailnet.tag_node(node.id(), wish->tags);
    }
    return Error::make("nodes can't be asked to \"{}\"", verb);
}

Task<HttpResponse> register_node(AdminBackend& backend, std::string body) {
    auto wish = json::parse<RegisterNode>(body);
    if (!wish) co_return failed(wish.error());
    auto approved = backend.tailnet().approve_registration(WallTime::now(), wish->id, wish->user);
    if (!approved) co_return failed(approved.error());
    NodeId id = (*approved)->id();
    auto committed = co_await backend.commit();
    if (!committed) co_return failed(500, committed.error().message());
    auto node = backend.tailnet().node(id);
    if (!node) co_return failed(404, "the node has left already");
    co_return ok(describe(backend.tailnet(), *node));
}

Task<HttpResponse> nodes(AdminBackend& backend, const HttpRequest& request, std::string which, std::string verb) {
    TailnetState& tailnet = backend.tailnet();
    if (which.empty() && request.method == "GET") {
        std::vector<NodeInfo> all;
        for (const auto& [id, node] : tailnet.nodes()) all.push_back(describe(tailnet, *node));
        co_return ok(all);
    }
    if (which == "register" && verb.empty() && request.method == "POST") {
        auto registered = co_await register_node(backend, request.body);
        co_return registered;
    }
    auto found = tailnet.find_node(which);
    if (!found) co_return failed(404, found.error().message());
    NodePtr node = *found;
    if (verb.empty() && request.method == "GET") co_return ok(describe(tailnet, *node));
    if (verb == "routes" && request.method == "GET") co_return ok(describe_routes(backend, *node));
    if ((verb == "approve-routes" || verb == "revoke-routes") && request.method == "POST")
        co_return co_await change_routes(backend, node->id(), verb, request.body);
    if (verb == "attributes" && request.method == "GET") co_return ok(describe_attributes(*node));
    if (verb == "attributes" && request.method == "POST")
        co_return co_await change_attributes(backend, node->id(), request.body);
    Result<void> changed;
    if (verb.empty() && request.method == "DELETE")
        changed = tailnet.delete_node(node->id());
    else if (!verb.empty() && request.method == "POST")
        changed = change_node(tailnet, *node, verb, request.body);
    else
        co_return failed(405, "this method is not for nodes");
    if (!changed) co_return failed(changed.error());
    NodeId id = node->id();
    auto committed = co_await backend.commit();
    if (!committed) co_return failed(500, committed.error().message());
    node = tailnet.node(id);
    if (!node) co_return done();
    co_return ok(describe(tailnet, *node));
}

HttpResponse all_routes(AdminBackend& backend) {
    std::vector<RouteInfo> all;
    for (const auto& [id, node] : backend.tailnet().nodes())
        for (RouteInfo& route : describe_routes(backend, *node)) all.push_back(std::move(route));
    return ok(all);
}

HttpResponse policy_tailnet_json(AdminBackend& backend) {
    return HttpResponse::json(200, tailnet_json(policy_tailnet(*backend.tailnet().snapshot())));
}

Task<HttpResponse> policy(AdminBackend& backend, const HttpRequest& request) {
    if (request.method == "GET") co_return HttpResponse::text(200, backend.policy_text());
    if (request.method != "PUT") co_return failed(405, "this method is not for the policy");
    auto set = co_await backend.set_policy(request.body);
    if (!set) co_return failed(set.error());
    co_return done();
}

} // namespace

Task<HttpResponse> answer_admin(AdminBackend& backend, HttpRequest request) {
    std::vector<std::string> parts;
    std::string_view raw = request.target;
    for (auto part : split(raw.substr(0, raw.find('?')), '/')) parts.push_back(percent_decode(part));
    parts.resize(std::max<std::size_t>(parts.size(), 5)); // "", "v1", what, which, verb
    if (parts.size() > 5 || parts[1] != "v1") co_return failed(404, "no such thing here");
    HttpResponse response = failed(404, "no such thing here");
    if (parts[2] == "users")
        response = co_await users(backend, request, parts[3], parts[4]);
    else if (parts[2] == "keys")
        response = co_await keys(backend, request, parts[3], parts[4]);
    else if (parts[2] == "oauth-clients")
        response = co_await answer_oauth_clients(backend, request, parts[3], parts[4]);
    else if (parts[2] == "services")
        response = co_await answer_services(backend, request, parts[3], parts[4]);
    else if (parts[2] == "nodes")
        response = co_await nodes(backend, request, parts[3], parts[4]);
    else if (parts[2] == "routes" && parts[3].empty() && request.method == "GET")
        response = all_routes(backend);
    else if (parts[2] == "policy" && parts[3] == "tailnet" && parts[4].empty() && request.method == "GET")
        response = policy_tailnet_json(backend);
    else if (parts[2] == "policy" && parts[3].empty())
        response = co_await policy(backend, request);
    co_return response;
}

} // namespace tailrace
