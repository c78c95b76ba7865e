#include "proto/netmap.hpp"

#include <algorithm>
#include <set>

namespace tailrace {
namespace {

/// A server clock before this is not believed. Source: tailscale control/controlclient (control-protocol.md 5.4).
constexpr WallTime kEarliestControlTime{1673373066, 0}; // 2023-01-10T17:51:06Z
constexpr Duration kToleratedSkew = std::chrono::minutes{1};

void normalise(wire::Node& node) {
    node.home_derp = node.home_region();
    for (const std::string& capability : node.capabilities) node.cap_map.try_emplace(capability);
    if (!node.allowed_ips || node.unsigned_peer_api_only) node.allowed_ips = node.addresses;
}

// An old frame must not take back a disco key that we learned since (derp-disco-paths.md 3.5).
bool seen_later(const std::optional<WallTime>& fresh, const std::optional<WallTime>& known) {
    return !known || (fresh && *fresh > *known);
}

void sort_unique(std::vector<wire::NodeId>& list) {
    std::sort(list.begin(), list.end());
    list.erase(std::unique(list.begin(), list.end()), list.end());
}

} // namespace

Result<NetmapChanges> Netmap::apply(wire::MapResponse frame, WallTime now) {
    NetmapChanges changes;
    apply_clock(frame, now);
    if (frame.client_version && frame.client_version != client_version_) {
        client_version_ = frame.client_version;
        changes.other = true;
    }
    if (frame.control_dial_plan && *frame.control_dial_plan != dial_plan_) {
        dial_plan_ = *frame.control_dial_plan;
        changes.other = true;
    }
    if (frame.keep_alive) return changes;

    if (awaiting_first_) {
        if (!frame.node) return Error::make("the first map response of the stream has no Node");
        awaiting_first_ = false;
        changes.first_of_stream = true;
        Netmap fresh;
        fresh.awaiting_first_ = false;
        fresh.peers_ = std::move(peers_); // compared with, and the origin of disco keys learned since
        fresh.by_key_ = std::move(by_key_);
        fresh.by_address_ = std::move(by_address_);
        fresh.dial_plan_ = std::move(dial_plan_);
        fresh.client_version_ = std::move(client_version_);
        fresh.clock_skew_ = clock_skew_;
        *this = std::move(fresh);
        // Here, and only here, no peers means no peers.
        if (!frame.peers || frame.peers->empty())
            while (!peers_.empty()) remove(peers_.begin()->first, changes);
        changes.self = changes.derp_map = changes.dns = changes.filter = changes.ssh = changes.domain = true;
        changes.user_profiles = changes.health = changes.tka = changes.other = true;
    }

    apply_peers(frame, now, changes);
    if (frame.node) {
        normalise(*frame.node);
        if (self_ != frame.node) changes.self = true;
        self_ = std::move(frame.node);
    }
    for (wire::UserProfile& profile : frame.user_profiles) {
        wire::UserProfile& known = users_[profile.id];
        if (known == profile) continue;
        known = std::move(profile);
        changes.user_profiles = true;
    }
    if (frame.derp_map) apply_derp_map(std::move(*frame.derp_map), changes);
    apply_filters(frame, changes);
    if (frame.dns_config && *frame.dns_config != dns_) {
        dns_ = std::move(*frame.dns_config);
        changes.dns = true;
    }
    if (frame.ssh_policy && frame.ssh_policy != ssh_policy_) {
        ssh_policy_ = std::move(frame.ssh_policy);
        changes.ssh = true;
    }
    if (!frame.domain.empty() && frame.domain != domain_) {
        domain_ = std::move(frame.domain);
        changes.domain = true;
    }
    if (frame.collect_services && *frame.collect_services != collect_services_) {
        collect_services_ = *frame.collect_services;
        changes.other = true;
    }
    if (!frame.domain_data_plane_audit_log_id.empty()) {
        audit_log_id_ = std::move(frame.domain_data_plane_audit_log_id);
        changes.other = true;
    }
    if (frame.default_auto_update) {
        default_auto_update_ = frame.default_auto_update;
        changes.other = true;
    }
    apply_display(frame, changes);
    if (frame.tka_info && frame.tka_info != tka_info_) {
        tka_info_ = std::move(frame.tka_info);
        changes.tka = true;
    }

    // A peer that was changed and then removed is only removed, one that was removed and came back only changed.
    auto& changed = changes.peers_changed;
    auto& removed = changes.peers_removed;
    sort_unique(changed);
    sort_unique(removed);
    changed.erase(std::remove_if(changed.begin(), changed.end(), [&](auto id) { return peers_.count(id) == 0; }),
                  changed.end());
    removed.erase(std::remove_if(removed.begin(), removed.end(), [&](auto id) { return peers_.count(id) > 0; }),
                  removed.end());
    return changes;
}

void Netmap::apply_peers(wire::MapResponse& frame, WallTime now, NetmapChanges& changes) {
    if (frame.peers && !frame.peers->empty()) {
        // The whole list: whatever else the frame says about peers is void.
        std::set<wire::NodeId> listed;
        for (const wire::Node& node : *frame.peers) listed.insert(node.id);
        std::vector<wire::NodeId> gone;
        for (const auto& [id, node] : peers_)
            if (listed.count(id) == 0) gone.push_back(id);
        for (wire::NodeId id : gone) remove(id, changes);
        for (wire::Node& node : *frame.peers) upsert(std::move(node), true, changes);
        return;
    }
    for (wire::NodeId id : frame.peers_removed) remove(id, changes);
    for (wire::Node& node : frame.peers_changed) upsert(std::move(node), false, changes);
    for (auto [id, seen] : frame.peer_seen_change) {
        auto peer = peers_.find(id);
        if (peer == peers_.end()) continue;
        peer->second.last_seen = seen ? std::optional{now} : std::nullopt;
        changes.peers_changed.push_back(id);
    }
    for (auto [id, online] : frame.online_change) {
        auto peer = peers_.find(id);
        if (peer == peers_.end() || peer->second.online == online) continue;
        peer->second.online = online;
        changes.peers_changed.push_back(id);
    }
    for (wire::PeerChange& patch : frame.peers_changed_patch) apply_patch(patch, changes);
}

void Netmap::upsert(wire::Node node, bool whole_list, NetmapChanges& changes) {
    normalise(node);
    wire::NodeId id = node.id;
    auto known = peers_.find(id);
    if (known != peers_.end()) {
        const wire::Node& old = known->second;
        bool said_offline = whole_list ? !node.online.value_or(false) : node.online == false && node.last_seen;
        if (!node.disco_key.is_zero() && node.disco_key != old.disco_key && said_offline &&
            !seen_later(node.last_seen, old.last_seen)) {
            node.disco_key = old.disco_key;
            node.last_seen = old.last_seen;
        }
        if (node == old) return;
        forget_index(old);
        known->second = std::move(node);
        index(known->second);
    } else {
        index(peers_.emplace(id, std::move(node)).first->second);
    }
    changes.peers_changed.push_back(id);
}

void Netmap::apply_patch(wire::PeerChange& patch, NetmapChanges& changes) {
    auto found = peers_.find(patch.node_id);
    if (found == peers_.end()) return;
    wire::Node& peer = found->second;
    if (patch.disco_key && *patch.disco_key != peer.disco_key && patch.online == false && patch.last_seen &&
        !seen_later(patch.last_seen, peer.last_seen))
        return;
    forget_index(peer);
    if (patch.derp_region != 0) peer.home_derp = patch.derp_region;
    if (patch.cap != 0) peer.cap = patch.cap;
    if (patch.cap_map) peer.cap_map = std::move(*patch.cap_map);
    if (patch.endpoints) peer.endpoints = std::move(*patch.endpoints);
    if (patch.key) peer.key = *patch.key;
    if (!patch.key_signature.empty()) peer.key_signature = std::move(patch.key_signature);
    if (patch.disco_key) peer.disco_key = *patch.disco_key;
    if (patch.online) peer.online = patch.online;
    if (patch.last_seen) peer.last_seen = patch.last_seen;
    if (patch.key_expiry) peer.key_expiry = *patch.key_expiry;
    index(peer);
    changes.peers_changed.push_back(peer.id);
}

void Netmap::remove(wire::NodeId id, NetmapChanges& changes) {
    auto found = peers_.find(id);
    if (found == peers_.end()) return;
    forget_index(found->second);
    peers_.erase(found);
    changes.peers_removed.push_back(id);
}

void Netmap::apply_filters(wire::MapResponse& frame, NetmapChanges& changes) {
    if (frame.packet_filter) {
        filters_["base"] = std::move(*frame.packet_filter);
        has_filter_ = changes.filter = true;
    }
    if (frame.packet_filters) {
        has_filter_ = changes.filter = true;
        apply_filter_chunks(*frame.packet_filters);
    }
    if (changes.filter) policy_lines_.clear(); // they were those of other rules
    if (!frame.policy_lines || *frame.policy_lines == policy_lines_) return;
    std::size_t rules = 0;
    for (const auto& [name, chunk] : filters_) rules += chunk.size();
    if (frame.policy_lines->size() != rules) return; // of some other filter: better none than wrong ones
    policy_lines_ = std::move(*frame.policy_lines);
    changes.other = true;
}

void Netmap::apply_filter_chunks(std::map<std::string, std::optional<std::vector<wire::FilterRule>>>& chunks) {
    if (auto all = chunks.find("*"); all != chunks.end() && !all->second) filters_.clear();
    for (auto& [name, rules] : chunks) {
        if (name == "*") continue;
        if (rules)
            filters_[name] = std::move(*rules);
        else
            filters_.erase(name);
    }
}

void Netmap::apply_derp_map(wire::DerpMap map, NetmapChanges& changes) {
    if (map.regions) {
        for (auto region = map.regions->begin(); region != map.regions->end();)
            region = region->second ? std::next(region) : map.regions->erase(region);
    } else {
        map.regions = derp_map_.regions;
        map.omit_default_regions = derp_map_.omit_default_regions;
    }
    if (!map.home_params)
        map.home_params = derp_map_.home_params;
    else if (!map.home_params->region_score && derp_map_.home_params)
        map.home_params->region_score = derp_map_.home_params->region_score;
    if (map == derp_map_) return;
    derp_map_ = std::move(map);
    changes.derp_map = true;
}

void Netmap::apply_display(wire::MapResponse& frame, NetmapChanges& changes) {
    if (frame.health && *frame.health != health_) {
        health_ = std::move(*frame.health);
        changes.health = true;
    }
    if (!frame.display_messages) return;
    auto& messages = *frame.display_messages;
    if (auto all = messages.find("*"); all != messages.end() && !all->second) display_messages_.clear();
    for (auto& [id, message] : messages) {
        if (id == "*") continue;
        if (message)
            display_messages_[id] = std::move(*message);
        else
            display_messages_.erase(id);
    }
    changes.health = true;
}

void Netmap::apply_clock(const wire::MapResponse& frame, WallTime now) {
    if (!frame.control_time || *frame.control_time < kEarliestControlTime) return;
    Duration skew = frame.control_time->minus(now);
    clock_skew_ = skew > kToleratedSkew || skew < -kToleratedSkew ? skew : Duration{0};
}

bool Netmap::learn_disco_key(wire::NodeId id, const DiscoKey& key, WallTime now) {
    auto found = peers_.find(id);
    if (found == peers_.end() || key.is_zero() || found->second.disco_key == key) return false;
    for (const auto& [other, peer] : peers_)
        if (peer.disco_key == key) return false; // it would hear, and answer, in the other's name
    found->second.disco_key = key;
    found->second.last_seen = now;
    found->second.online = false;
    return true;
}

void Netmap::index(const wire::Node& node) {
    by_key_[node.key] = node.id;
    for (const IpPrefix& address : node.addresses)
        if (address.is_single()) by_address_[address.address()] = node.id;
}

void Netmap::forget_index(const wire::Node& node) {
    // Another node may own the key or address by now: then it stays.
    if (auto at = by_key_.find(node.key); at != by_key_.end() && at->second == node.id) by_key_.erase(at);
    for (const IpPrefix& address : node.addresses)
        if (auto at = by_address_.find(address.address()); at != by_address_.end() && at->second == node.id)
            by_address_.erase(at);
}

const wire::Node* Netmap::find(wire::NodeId peer) const {
    auto found = peers_.find(peer);
    return found == peers_.end() ? nullptr : &found->second;
}

const wire::Node* Netmap::find(const NodeKey& key) const {
    auto found = by_key_.find(key);
    return found == by_key_.end() ? nullptr : find(found->second);
}

const wire::Node* Netmap::owner_of(const IpAddress& address) const {
    if (self_)
        for (const IpPrefix& own : self_->addresses)
            if (own.is_single() && own.address() == address) return &*self_;
    auto found = by_address_.find(address);
    return found == by_address_.end() ? nullptr : find(found->second);
}

const wire::UserProfile* Netmap::user(wire::UserId id) const {
    auto found = users_.find(id);
    return found == users_.end() ? nullptr : &found->second;
}

std::string Netmap::magic_dns_suffix() const {
    if (!self_) return {};
    std::string_view name = self_->name;
    if (!name.empty() && name.back() == '.') name.remove_suffix(1);
    auto dot = name.find('.');
    return std::string{dot == std::string_view::npos ? name : name.substr(dot + 1)};
}

std::vector<wire::FilterRule> Netmap::filter_rules() const {
    std::vector<wire::FilterRule> all;
    for (const auto& [name, rules] : filters_) all.insert(all.end(), rules.begin(), rules.end());
    return all;
}

bool Netmap::peer_usable(const wire::Node& peer, WallTime now) const {
    return !peer.expired && (peer.key_expiry.is_zero() || now.plus(clock_skew_) < peer.key_expiry);
}

bool Netmap::self_expired(WallTime now) const {
    return self_ && (self_->expired || (!self_->key_expiry.is_zero() && self_->key_expiry <= now));
}

std::optional<WallTime> Netmap::next_expiry(WallTime now) const {
    std::optional<WallTime> next;
    auto consider = [&](const WallTime& local) {
        if (local > now && (!next || local < *next)) next = local;
    };
    if (self_ && !self_->key_expiry.is_zero()) consider(self_->key_expiry);
    for (const auto& [id, peer] : peers_)
        if (!peer.key_expiry.is_zero()) consider(peer.key_expiry.plus(-clock_skew_));
    return next;
}

} // namespace tailrace
