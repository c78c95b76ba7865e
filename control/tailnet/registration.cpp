// control/tailnet/registration.cpp - may this machine be a node, and as whom? The order of the questions is that of
// control-protocol.md 4.8.
#include "control/tailnet/tailnet_state.hpp"

#include "base/random.hpp"
#include "base/text.hpp"
#include "control/routes/route_rules.hpp"
#include "control/tailnet/attributes.hpp"
#include "control/tailnet/auth_key.hpp"
#include "control/tailnet/credential.hpp"

#include <algorithm>

namespace tailrace {

namespace {

constexpr std::string_view kPendingPrefix = "trkey-authreq-";

RegisterDecision refused(std::string why) {
    RegisterDecision decision;
    decision.response.error = std::move(why);
    return decision;
}

RegisterDecision key_expired() {
    RegisterDecision decision;
    decision.response.node_key_expired = true;
    return decision;
}

} // namespace

RegisterDecision TailnetState::success(const Node& node) const {
    RegisterDecision decision;
    wire::UserProfile profile = this->profile(owner_of(node.record));
    decision.response.user.id = profile.id;
    decision.response.user.display_name = profile.display_name;
    if (auto owner = user(profile.id)) decision.response.user.created = owner->created;
    decision.response.login.id = profile.id;
    decision.response.login.login_name = profile.login_name;
    decision.response.login.display_name = profile.display_name;
    decision.response.machine_authorized = node.record.authorized;
    return decision;
}

RegisterDecision TailnetState::on_register(WallTime now, const MachineKey& machine,
                                           const wire::RegisterRequest& request) {
    if (request.node_key.is_zero()) return refused("the node key is all zeros: the client must generate one");
    NodePtr known = node_by_key(request.node_key);
    if (known && known->record.machine_key != machine) return refused("node key already in use by another machine");
    bool wants_logout = !request.expiry.is_zero() && request.expiry <= now;
    bool has_key = request.auth && !request.auth->auth_key.empty();
    if (wants_logout && !known) return key_expired();
    if (known && (wants_logout || !has_key)) return known_node(now, known, request);
    if (has_key) return with_auth_key(now, machine, request);
    return interactive(now, machine, request);
}

/// The node is there and its machine asks: logout, a restart, or news of its expiry.
RegisterDecision TailnetState::known_node(WallTime now, const NodePtr& node, const wire::RegisterRequest& request) {
    if (node->record.expired(now)) return key_expired();
    if (request.expiry.is_zero()) return success(*node);
    if (request.expiry > now) { // a key may live shorter, never longer
        if (!node->record.key_expiry.is_zero() && request.expiry >= node->record.key_expiry)
            return refused("extending key is not allowed");
        (void)expire_node(now, node->id(), request.expiry); // it is there
        return success(*node);
    }
    if (node->record.ephemeral) {
        remove_node(node->id());
        return key_expired();
    }
    (void)expire_node(now, node->id(), now); // it is there
    return success(*node);
}

RegisterDecision TailnetState::with_auth_key(WallTime now, const MachineKey& machine,
                                             const wire::RegisterRequest& request) {
    NodePtr known = node_by_key(request.node_key);
    bool valid = known && !known->record.expired(now);
    AuthKeyPtr key;
    if (auto text = CredentialText::parse(Credential::AuthKey, request.auth->auth_key))
        for (const auto& [id, candidate] : auth_keys_)
            if (candidate->prefix == text->prefix && text->has_hash(candidate->secret_hash)) key = candidate;
    // A container that restarts brings the key it was made with, however spent it is by now.
    auto problem = key ? problem_of(*key, now) : std::optional<std::string>{"invalid authkey"};
    if (problem) return valid ? success(*known) : refused(*problem);

    UserPtr owner = user(key->user);
    if (!owner && key->oauth_client == 0) return refused("invalid authkey");
    Admission admission;
    admission.user = key->user;
    admission.key = key;
    admission.ephemeral = key->ephemeral || request.ephemeral;
    std::vector<std::string> wanted = request.hostinfo.value.request_tags;
    if (!key->tags.empty()) {
        admission.tags = key->tags;
        for (const std::string& tag : wanted)
            if (!std::binary_search(key->tags.begin(), key->tags.end(), tag))
                return refused(fmt::format("requested tags [{}] are invalid or not permitted", join(wanted, " ")));
    } else if (!wanted.empty()) {
        auto tags = allowed_tags(*owner, wanted);
        if (!tags) return refused(tags.error().message());
        admission.tags = *tags;
    }
    if (valid && known->record.tags == admission.tags &&
        (known->record.is_tagged() || known->record.user == admission.user))
        return success(*known); // a restart: nothing to consume
    auto node = admit(now, machine, request, admission);
    if (!node) return refused(node.error().message());
    return success(**node);
}

Result<std::vector<std::string>> TailnetState::allowed_tags(const User& user, std::vector<std::string> wanted) const {
    std::sort(wanted.begin(), wanted.end());
    wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
    for (const std::string& tag : wanted)
        if (settings_.tags_need_owners && !owners_.user_may(user, tag))
            return Error::make("requested tags [{}] are invalid or not permitted", join(wanted, " "));
    return wanted;
}

RegisterDecision TailnetState::interactive(WallTime now, const MachineKey& machine,
                                           const wire::RegisterRequest& request) {
    forget_old_pending(now);
    constexpr std::string_view kPath = "/register/";
    if (auto at = request.followup.rfind(kPath); at != std::string::npos) {
        auto found = pending_.find(std::string_view{request.followup}.substr(at + kPath.size()));
        if (found != pending_.end() && found->second.machine == machine &&
            found->second.request.node_key == request.node_key) {
            RegisterDecision decision;
            decision.wait_for = found->first;
            decision.response.auth_url = request.followup;
            return decision;
        }
    }
    if (pending_.size() >= kMaxPending) return refused("too many machines wait for approval: try again later");
    std::string id = std::string{kPendingPrefix} + hex_encode(random_array<12>());
    pending_[id] = {machine, request, now};
    RegisterDecision decision;
    decision.response.auth_url = fmt::format("{}/register/{}", settings_.server_url, id);
    return decision;
}

void TailnetState::forget_old_pending(WallTime now) {
    for (auto at = pending_.begin(); at != pending_.end();)
        at = at->second.created.plus(kPendingLifetime) <= now ? pending_.erase(at) : std::next(at);
}

Result<NodePtr> TailnetState::approve_registration(WallTime now, std::string_view pending_id,
                                                   std::string_view user_name) {
    forget_old_pending(now);
    auto at = pending_.find(pending_id);
    if (at == pending_.end())
        return Error::make("no machine waits under \"{}\": it may have been approved already, or waited longer than 15 "
                           "minutes",
                           pending_id);
    UserPtr owner = user_named(user_name);
    if (!owner) return Error::make("there is no user named {}", user_name);
    Pending pending = at->second;
    Admission admission;
    admission.user = owner->id;
    admission.ephemeral = pending.request.ephemeral;
    if (auto wanted = pending.request.hostinfo.value.request_tags; !wanted.empty()) {
        auto tags = allowed_tags(*owner, wanted);
        if (!tags) return tags.error();
        admission.tags = *tags;
    }
    auto node = admit(now, pending.machine, pending.request, admission);
    if (!node) return node.error();
    pending_.erase(std::string{pending_id});
    return node;
}

/// The node of this machine that would belong to the same owner: it keeps id, addresses and name.
NodePtr TailnetState::node_of_machine(const MachineKey& machine, UserId owner) const {
    auto at = by_machine_.find(machine);
    if (at == by_machine_.end()) return nullptr;
    NodePtr found;
    for (NodeId id : at->second) {
        NodePtr candidate = node(id);
        if (owner_of(candidate->record) == owner) return candidate;
        // From user to tags and back it stays the same node, if there is no better one.
        if (owner == kTaggedDevicesUser || candidate->record.is_tagged()) found = candidate;
    }
    return found;
}

Result<NodePtr> TailnetState::admit(WallTime now, const MachineKey& machine, const wire::RegisterRequest& request,
                                    const Admission& admission) {
    if (NodePtr other = node_by_key(request.node_key); other && other->record.machine_key != machine)
        return Error::make("node key already in use by another machine");
    UserId owner = admission.tags.empty() ? admission.user : kTaggedDevicesUser;
    NodePtr before = node_by_key(request.node_key);
    if (!before) before = node_of_machine(machine, owner);
    Node node;
    if (before) {
        node = *before;
    } else {
        auto pair = addresses_.take();
        if (!pair) return Error::make("no address is left in {}", settings_.prefix_v4.text());
        node.record.id = ++last_node_;
        node.record.machine_key = machine;
        node.record.v4 = pair->first;
        node.record.v6 = pair->second;
        node.record.created = now;
        node.report.last_seen = now;
        node.report.cap_version = request.version;
    }
    NodeRecord& record = node.record;
    record.node_key = request.node_key;
    record.user = admission.user;
    record.tags = admission.tags;
    record.ephemeral = admission.ephemeral;
    const bool is_preapproved = admission.key && admission.key->preapproved;
    record.authorized = !settings_.device_approval || is_preapproved || (before && before->record.authorized);
    record.auth_key = admission.key ? admission.key->id : 0;
    record.key_expiry = record.is_tagged() || request.expiry <= now ? WallTime{} : request.expiry;
    const wire::Hostinfo& hostinfo = request.hostinfo.value;
    record.hostname = hostinfo.hostname;
    if (record.given_name.empty() ||
        (!record.name_is_fixed && dns_label(record.hostname) != dns_label(before->record.hostname)))
        record.given_name = free_name(record.hostname, record.id);
    if (!before && !request.hostinfo.empty()) {
        node.report.routable_ips = offered_routes(hostinfo.routable_ips);
        node.report.hostinfo = wire::write_hostinfo(hostinfo);
        node.report.posture = reported_posture(hostinfo);
        node.report.app_connector = hostinfo.app_connector.value_or(false);
    }
    NodeId id = record.id;
    bool ephemeral = record.ephemeral, online = node.report.online;
    put_node(std::move(node), true);
    if (!before) changes_.operations.push_back(PutReport{this->node(id)});
    if (admission.key) {
        AuthKey used = *admission.key;
        used.used = now;
        if (!used.reusable || admission.key->used.is_zero())
            put_key(used.id, std::make_shared<const AuthKey>(std::move(used)));
    }
    if (ephemeral && !online) end_ephemeral_at(id, now.plus(settings_.ephemeral_timeout));
    return this->node(id);
}

} // namespace tailrace
