// control/tailnet/tailnet_state.cpp - the state and what time and administrators do to it. Registration:
// registration.cpp, routes: routes.cpp, services: services.cpp, OAuth clients: oauth_clients.cpp.
#include "control/tailnet/tailnet_state.hpp"

#include "base/random.hpp"
#include "base/text.hpp"
#include "control/routes/region_choice.hpp"
#include "control/routes/route_rules.hpp"
#include "control/tailnet/attributes.hpp"
#include "control/tailnet/credential.hpp"
#include "control/tailnet/tags.hpp"
#include "proto/control/names.hpp"

#include <algorithm>

namespace tailrace {

namespace {

/// What is not stored by itself.
void take_hostinfo(NodeReport& report, const wire::Hostinfo& hostinfo) {
    report.posture = reported_posture(hostinfo);
    report.services_hash = hostinfo.services_hash;
    report.app_connector = hostinfo.app_connector.value_or(false);
    report.peer_api4 = report.peer_api6 = 0;
    for (const wire::Service& service : hostinfo.services) {
        if (!report.app_connector) break;
        if (service.proto == "peerapi4") report.peer_api4 = service.port;
        if (service.proto == "peerapi6") report.peer_api6 = service.port;
    }
    report.relay_latencies.clear();
    bool may_carry = !report.routable_ips.empty() || !report.services_hash.empty();
    if (hostinfo.net_info && may_carry) report.relay_latencies = relay_latencies(*hostinfo.net_info);
}

} // namespace

TailnetState::TailnetState(Settings settings, StoredTailnet stored, TagOwners owners, WallTime now)
    : settings_(std::move(settings)), owners_(std::move(owners)), addresses_(settings_.prefix_v4, settings_.prefix_v6),
      last_user_(stored.last_user), last_auth_key_(stored.last_auth_key), last_oauth_client_(stored.last_oauth_client),
      last_node_(stored.last_node) {
    for (User& user : stored.users) {
        last_user_ = std::max(last_user_, user.id);
        users_[user.id] = std::make_shared<const User>(std::move(user));
    }
    for (OAuthClient& client : stored.oauth_clients) {
        last_oauth_client_ = std::max(last_oauth_client_, client.id);
        oauth_clients_[client.id] = std::make_shared<const OAuthClient>(std::move(client));
    }
    for (AuthKey& key : stored.auth_keys) {
        last_auth_key_ = std::max(last_auth_key_, key.id);
        auth_keys_[key.id] = std::make_shared<const AuthKey>(std::move(key));
    }
    for (Service& service : stored.services) {
        addresses_.mark_used(service.v4, service.v6);
        std::string name = service.name;
        services_[std::move(name)] = std::make_shared<const Service>(std::move(service));
    }
    for (Node& node : stored.nodes) {
        last_node_ = std::max(last_node_, node.id());
        if (auto hostinfo = wire::parse_hostinfo(node.report.hostinfo); hostinfo) take_hostinfo(node.report, *hostinfo);
        if (node.report.online) offline_at_[node.id()] = now.plus(kRestartGrace);
        const bool waits_for_nobody =
            !node.record.authorized && !settings_.device_approval; // it is no longer asked for
        if (waits_for_nobody) node.record.authorized = true;
        auto shared = std::make_shared<const Node>(std::move(node));
        keep(shared->id(), shared);
        index(nullptr, shared);
        if (waits_for_nobody) changes_.operations.push_back(PutNode{shared});
        if (shared->record.ephemeral && !shared->report.online)
            end_ephemeral_at(shared->id(), now.plus(settings_.ephemeral_timeout));
    }
}

const NodePtr& TailnetState::node(NodeId id) const {
    static const NodePtr kNone;
    auto at = by_id_.find(id);
    return at == by_id_.end() ? kNone : at->second;
}

void TailnetState::keep(NodeId id, NodePtr node) {
    if (node) {
        by_id_[id] = node;
        nodes_[id] = std::move(node);
    } else {
        by_id_.erase(id);
        nodes_.erase(id);
    }
    snapshot_.reset();
}
NodePtr TailnetState::node_by_key(const NodeKey& key) const {
    auto at = by_node_key_.find(key);
    return at == by_node_key_.end() ? nullptr : node(at->second);
}
std::set<NodeId> TailnetState::nodes_of_machine(const MachineKey& machine) const {
    auto at = by_machine_.find(machine);
    return at == by_machine_.end() ? std::set<NodeId>{} : at->second;
}
UserPtr TailnetState::user(UserId id) const {
    auto at = users_.find(id);
    return at == users_.end() ? nullptr : at->second;
}
UserPtr TailnetState::user_named(std::string_view name) const {
    for (const auto& [id, user] : users_)
        if (equals_ignoring_case(user->name, name)) return user;
    return nullptr;
}

std::shared_ptr<const Snapshot> TailnetState::snapshot() {
    if (!snapshot_) snapshot_ = std::make_shared<const Snapshot>(Snapshot{nodes_, users_, services_});
    return snapshot_;
}

std::string TailnetState::fqdn(const Node& node) const {
    if (settings_.base_domain.empty()) return node.record.given_name + ".";
    return fmt::format("{}.{}.", node.record.given_name, settings_.base_domain);
}

wire::UserProfile TailnetState::profile(UserId id) const {
    wire::UserProfile profile;
    profile.id = id;
    if (id == kTaggedDevicesUser) {
        profile.login_name = "tagged-devices";
        profile.display_name = "Tagged Devices";
    } else if (auto found = user(id)) {
        profile.login_name = found->name;
        profile.display_name = found->display_name.empty() ? found->name : found->display_name;
    } else {
        profile.login_name = profile.display_name = fmt::format("user-{}", id); // deleted meanwhile
    }
    return profile;
}

void TailnetState::index(const NodePtr& before, const NodePtr& after) {
    if (before) {
        const NodeRecord& old = before->record;
        auto erase_own = [&](auto& map, const auto& key) {
            if (auto at = map.find(key); at != map.end() && at->second == old.id) map.erase(at);
        };
        erase_own(by_node_key_, old.node_key);
        erase_own(by_name_, old.given_name);
        erase_own(by_address_, old.v4);
        erase_own(by_address_, old.v6);
        if (auto at = by_machine_.find(old.machine_key); at != by_machine_.end()) {
            at->second.erase(old.id);
            if (at->second.empty()) by_machine_.erase(at);
        }
        addresses_.release(old.v4, old.v6);
        if (!old.key_expiry.is_zero()) expiries_.erase({old.key_expiry, old.id});
        for (const auto& [name, attribute] : old.attributes) attribute_expiries_.erase({attribute.expires, old.id});
    }
    if (after) {
        const NodeRecord& now = after->record;
        by_node_key_[now.node_key] = now.id;
        by_name_[now.given_name] = now.id;
        by_address_[now.v4] = now.id;
        by_address_[now.v6] = now.id;
        by_machine_[now.machine_key].insert(now.id);
        addresses_.mark_used(now.v4, now.v6);
        if (!now.key_expiry.is_zero()) expiries_.insert({now.key_expiry, now.id});
        for (const auto& [name, attribute] : now.attributes)
            if (!attribute.expires.is_zero()) attribute_expiries_.insert({attribute.expires, now.id});
    }
}

void TailnetState::put_node(Node node, bool durable) {
    NodeId id = node.id();
    NodePtr before = this->node(id);
    auto after = std::make_shared<const Node>(std::move(node));
    keep(id, after);
    if (!before || before->record != after->record) index(before, after);
    changes_.events.push_back({id, before, after});
    if (!durable) {
        changes_.reports.push_back(after);
        return;
    }
    changes_.operations.push_back(PutNode{after});
    if (before && before->report != after->report) changes_.operations.push_back(PutReport{after});
    changes_.undo.push_back([this, id, before] { restore_node(id, before); });
}

void TailnetState::remove_node(NodeId id) {
    NodePtr before = node(id);
    if (!before) return;
    keep(id, nullptr);
    index(before, nullptr);
    offline_at_.erase(id);
    end_ephemeral_at(id, std::nullopt);
    changes_.events.push_back({id, before, nullptr});
    changes_.operations.push_back(DeleteNode{id});
    changes_.undo.push_back([this, id, before] { restore_node(id, before); });
}

/// Back to what is on disk, for a change that could not be written. What the node reported meanwhile stays.
void TailnetState::restore_node(NodeId id, const NodePtr& old) {
    NodePtr now = node(id);
    NodePtr restored = old;
    if (old && now) restored = std::make_shared<const Node>(Node{old->record, now->report});
    index(now, restored);
    keep(id, restored);
    changes_.events.push_back({id, now, restored});
}

void TailnetState::put_user(UserId id, UserPtr user) {
    UserPtr before = this->user(id);
    auto set = [this, id](const UserPtr& value) {
        if (value)
            users_[id] = value;
        else
            users_.erase(id);
        snapshot_.reset();
        changes_.users_changed = true;
    };
    set(user);
    if (user)
        changes_.operations.push_back(PutUser{user});
    else
        changes_.operations.push_back(DeleteUser{id});
    changes_.undo.push_back([set, before] { set(before); });
}

void TailnetState::put_key(AuthKeyId id, AuthKeyPtr key) {
    auto at = auth_keys_.find(id);
    AuthKeyPtr before = at == auth_keys_.end() ? nullptr : at->second;
    auto set = [this, id](const AuthKeyPtr& value) {
        if (value)
            auth_keys_[id] = value;
        else
            auth_keys_.erase(id);
    };
    set(key);
    if (key)
        changes_.operations.push_back(PutAuthKey{key});
    else
        changes_.operations.push_back(DeleteAuthKey{id});
    changes_.undo.push_back([set, before] { set(before); });
}

Changes TailnetState::take_changes() {
    return std::exchange(changes_, {});
}

std::string TailnetState::free_name(std::string_view hostname, NodeId for_node) const {
    std::string label = dns_label(hostname);
    auto is_free = [&](const std::string& name) {
        if (service("svc:" + name)) return false;
        auto at = by_name_.find(name);
        return at == by_name_.end() || at->second == for_node;
    };
    if (is_free(label)) return label;
    std::string stem = label.substr(0, 56);
    for (std::uint32_t n = 1;; ++n)
        if (std::string name = fmt::format("{}-{}", stem, n); is_free(name)) return name;
}

// ---- reports and streams

void TailnetState::take_report(Node& node, const wire::MapRequest& request) {
    NodeReport& report = node.report;
    if (!request.disco_key.is_zero()) report.disco_key = request.disco_key;
    if (request.version > 0) report.cap_version = request.version;
    report.endpoints = wire::usable_endpoints(request);
    if (request.hostinfo.empty()) return;
    wire::Hostinfo hostinfo = request.hostinfo.value;
    if (!hostinfo.net_info && !report.hostinfo.empty()) // an absent NetInfo keeps the stored one
        if (auto old = wire::parse_hostinfo(report.hostinfo); old && old->net_info) hostinfo.net_info = old->net_info;
    if (hostinfo.net_info && hostinfo.net_info->preferred_derp != 0)
        report.home_derp = hostinfo.net_info->preferred_derp;
    report.routable_ips = offered_routes(hostinfo.routable_ips);
    report.hostinfo = wire::write_hostinfo(hostinfo);
    take_hostinfo(report, hostinfo);
    if (report.services_hash.empty()) report.announced = {}; // it hosts none: no need to ask
    if (!hostinfo.hostname.empty()) node.record.hostname = hostinfo.hostname;
}

void TailnetState::on_report(WallTime now, NodeId id, const wire::MapRequest& request) {
    NodePtr before = node(id);
    if (!before) return;
    Node after = *before;
    take_report(after, request);
    if (after == *before) return;
    after.report.last_seen = now;
    bool renamed = after.record.hostname != before->record.hostname;
    if (renamed && !after.record.name_is_fixed) after.record.given_name = free_name(after.record.hostname, id);
    put_node(std::move(after), renamed);
}

void TailnetState::on_stream_begin(WallTime now, NodeId id, const wire::MapRequest& request) {
    NodePtr before = node(id);
    if (!before) return;
    offline_at_.erase(id);
    end_ephemeral_at(id, std::nullopt);
    Node after = *before;
    after.report.online = true;
    after.report.last_seen = now;
    if (after.report.disco_key.is_zero()) after.report.disco_key = request.disco_key;
    if (after.report.hostinfo.empty() && !request.hostinfo.empty()) {
        auto endpoints = after.report.endpoints;
        take_report(after, request);
        after.record.hostname = before->record.hostname; // lite updates rename
        if (after.report.endpoints.empty()) after.report.endpoints = endpoints;
    }
    if (request.version > 0) after.report.cap_version = request.version;
    after.report.last_seen = before->report.last_seen;
    if (after == *before) return; // a client that comes back within the grace is no news
    after.report.last_seen = now;
    put_node(std::move(after), false);
}

void TailnetState::on_stream_end(WallTime now, NodeId id) {
    NodePtr before = node(id);
    if (!before) return;
    offline_at_[id] = now.plus(kOfflineGrace);
    if (before->record.ephemeral) end_ephemeral_at(id, now.plus(settings_.ephemeral_timeout));
}

void TailnetState::end_ephemeral_at(NodeId id, std::optional<WallTime> when) {
    if (auto at = ephemeral_end_of_.find(id); at != ephemeral_end_of_.end()) {
        ephemeral_ends_.erase({at->second, id});
        ephemeral_end_of_.erase(at);
    }
    if (!when) return;
    ephemeral_end_of_[id] = *when;
    ephemeral_ends_.insert({*when, id});
}

void TailnetState::on_timer(WallTime now) {
    for (auto at = offline_at_.begin(); at != offline_at_.end();) {
        if (at->second > now) {
            ++at;
            continue;
        }
        NodeId id = at->first;
        at = offline_at_.erase(at);
        NodePtr before = node(id);
        if (!before || !before->report.online) continue;
        Node after = *before;
        after.report.online = false;
        after.report.last_seen = now;
        put_node(std::move(after), false);
        if (before->record.ephemeral && !ephemeral_end_of_.contains(id))
            end_ephemeral_at(id, now.plus(settings_.ephemeral_timeout));
    }
    while (!ephemeral_ends_.empty() && ephemeral_ends_.begin()->first <= now)
        remove_node(ephemeral_ends_.begin()->second);
    while (!expiries_.empty() && expiries_.begin()->first <= now) {
        NodePtr expired = node(expiries_.begin()->second);
        expiries_.erase(expiries_.begin());
        // Nothing in the record changes, but everybody must hear of it: a fresh copy makes a fresh serialisation.
        auto again = std::make_shared<const Node>(*expired);
        keep(again->id(), again);
        changes_.events.push_back({again->id(), expired, again});
    }
    while (!attribute_expiries_.empty() && attribute_expiries_.begin()->first <= now) {
        NodePtr before = node(attribute_expiries_.begin()->second);
        Node after = *before;
        std::erase_if(after.record.attributes, [&](const auto& entry) {
            return !entry.second.expires.is_zero() && entry.second.expires <= now;
        });
        put_node(std::move(after), true); // and out of the set
    }
    forget_old_pending(now);
}

std::optional<WallTime> TailnetState::next_timer() const {
    std::optional<WallTime> next;
    auto consider = [&](const WallTime& when) {
        if (!next || when < *next) next = when;
    };
    for (const auto& [id, when] : offline_at_) consider(when);
    if (!expiries_.empty()) consider(expiries_.begin()->first);
    if (!attribute_expiries_.empty()) consider(attribute_expiries_.begin()->first);
    if (!ephemeral_ends_.empty()) consider(ephemeral_ends_.begin()->first);
    return next;
}

// ---- administrators

Result<UserPtr> TailnetState::create_user(WallTime now, std::string name, std::string display_name) {
    if (name.empty() || name.size() > 200 || name.find_first_of(" \t\r\n\"'<>:,/\\") != std::string::npos)
        return Error::make("\"{}\" can't be a user's name: use a login name such as alice or alice@example.com", name);
    if (user_named(name)) return Error::make("there is already a user named {}", name);
    auto user = std::make_shared<const User>(User{++last_user_, std::move(name), std::move(display_name), now});
    put_user(user->id, user);
    return UserPtr{user};
}

Result<void> TailnetState::delete_user(std::string_view name) {
    UserPtr user = user_named(name);
    if (!user) return Error::make("there is no user named {}", name);
    std::size_t owned = 0;
    for (const auto& [id, node] : nodes_)
        if (node->record.user == user->id && !node->record.is_tagged()) ++owned;
    if (owned > 0)
        return Error::make("{} still owns {} node{}: delete or tag {} first", name, owned, owned == 1 ? "" : "s",
                           owned == 1 ? "it" : "them");
    std::vector<AuthKeyId> keys;
    for (const auto& [id, key] : auth_keys_)
        if (key->user == user->id) keys.push_back(id);
    for (AuthKeyId id : keys) put_key(id, nullptr);
    put_user(user->id, nullptr);
    return {};
}

Result<void> TailnetState::set_role(std::string_view name, UserRole role) {
    UserPtr before = user_named(name);
    if (!before) return Error::make("there is no user named {}", name);
    User after = *before;
    after.role = role;
    put_user(after.id, std::make_shared<const User>(std::move(after)));
    return {};
}

Result<TailnetState::NewKey> TailnetState::create_auth_key(WallTime now, const KeyWish& wish) {
    UserPtr user = user_named(wish.user);
    if (!user && wish.oauth_client == 0)
        return Error::make("there is no user named {}: create it with \"users create {}\"", wish.user, wish.user);
    auto tags = checked_tags(wish.tags);
    if (!tags) return tags.error();
    AuthKey key;
    key.tags = std::move(*tags);
    if (wish.lifetime < Duration::zero()) return Error::make("a key can't expire in the past");
    if (wish.oauth_client != 0) forget_spent_keys(now);
    CredentialText text = CredentialText::generate(Credential::AuthKey);
    key.id = ++last_auth_key_;
    key.prefix = text.prefix;
    key.secret_hash = text.hash();
    key.user = user ? user->id : 0;
    key.oauth_client = wish.oauth_client;
    key.reusable = wish.reusable;
    key.ephemeral = wish.ephemeral;
    key.preapproved = wish.preapproved;
    key.created = now;
    if (wish.lifetime > Duration::zero()) key.expires = now.plus(wish.lifetime);
    key.description = wish.description;
    auto shared = std::make_shared<const AuthKey>(std::move(key));
    put_key(shared->id, shared);
    return NewKey{shared, text.text()};
}

Result<void> TailnetState::revoke_auth_key(WallTime now, AuthKeyId id) {
    auto at = auth_keys_.find(id);
    if (at == auth_keys_.end()) return Error::make("there is no key with id {}", id);
    if (!at->second->revoked.is_zero()) return Error::make("key {} is already revoked", id);
    AuthKey key = *at->second;
    key.revoked = now;
    put_key(id, std::make_shared<const AuthKey>(std::move(key)));
    return {};
}

Result<NodePtr> TailnetState::find_node(std::string_view what) const {
    if (auto id = parse_number<NodeId>(what))
        if (auto found = node(*id)) return found;
    std::string name = to_lower(what);
    if (!name.empty() && name.back() == '.') name.pop_back();
    if (auto suffix = "." + settings_.base_domain; !settings_.base_domain.empty() && name.ends_with(suffix))
        name.resize(name.size() - suffix.size());
    if (auto at = by_name_.find(name); at != by_name_.end()) return node(at->second);
    if (auto address = IpAddress::parse(what); address && address->valid())
        if (auto at = by_address_.find(*address); at != by_address_.end()) return node(at->second);
    if (auto key = NodeKey::parse(what))
        if (auto found = node_by_key(*key)) return found;
    return Error::make("there is no node \"{}\": \"nodes list\" shows ids, names and addresses", what);
}

Result<void> TailnetState::approve_node(NodeId id) {
    NodePtr before = node(id);
    if (!before) return Error::make("there is no node {}", id);
    if (before->record.authorized) return {};
    Node after = *before;
    after.record.authorized = true;
    put_node(std::move(after), true);
    return {};
}

Result<void> TailnetState::expire_node(WallTime now, NodeId id, WallTime expiry) {
    NodePtr before = node(id);
    if (!before) return Error::make("there is no node {}", id);
    Node after = *before;
    after.record.key_expiry = !expiry.is_zero() && expiry < now ? now : expiry;
    put_node(std::move(after), true);
    return {};
}

Result<void> TailnetState::delete_node(NodeId id) {
    if (!node(id)) return Error::make("there is no node {}", id);
    remove_node(id);
    return {};
}

Result<void> TailnetState::rename_node(NodeId id, std::string_view name) {
    NodePtr before = node(id);
    if (!before) return Error::make("there is no node {}", id);
    std::string label = to_lower(name);
    if (!is_dns_label(label))
        return Error::make("\"{}\" can't be a node's name: use letters, digits and dashes, at most 63", name);
    if (auto at = by_name_.find(label); at != by_name_.end() && at->second != id)
        return Error::make("node {} is already named {}", at->second, label);
    if (service("svc:" + label))
        return Error::make("there is a service svc:{}: services and nodes share their names", label);
    Node after = *before;
    after.record.given_name = label;
    after.record.name_is_fixed = true;
    put_node(std::move(after), true);
    return {};
}

Result<void> TailnetState::tag_node(NodeId id, std::vector<std::string> tags) {
    NodePtr before = node(id);
    if (!before) return Error::make("there is no node {}", id);
    auto checked = checked_tags(std::move(tags));
    if (!checked) return checked.error();
    for (const std::string& tag : *checked) { // what it has it may keep, as when a policy changed
        const auto& has = before->record.tags;
        if (settings_.tags_need_owners && std::ranges::find(has, tag) == has.end() && !owners_.is_known(tag))
            return Error::make(
                "the policy does not know {0}, and the node would be nobody's: say in it who owns the tag, "
                "such as \"tagOwners\": {{\"{0}\": [\"autogroup:admin\"]}}",
                tag);
    }
    if (checked->empty() && !user(before->record.user))
        return Error::make("the user who registered {} is gone, so it must keep a tag", before->record.given_name);
    Node after = *before;
    after.record.tags = std::move(*checked);
    if (after.record.is_tagged()) after.record.key_expiry = {}; // tagged nodes do not expire
    put_node(std::move(after), true);
    return {};
}

void TailnetState::set_policy_text(std::string text) {
    changes_.operations.push_back(PutPolicy{std::move(text)});
}

} // namespace tailrace
