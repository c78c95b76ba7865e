#include "relay/table/relay_table.hpp"

#include <algorithm>

namespace tailrace::relay {

void RelayTable::tell_watchers(derp::FrameType type, const Bytes& payload) {
    for (const ConnectionRef& watcher : watchers_) actions_.push_back(Tell{watcher, type, payload});
}

Bytes RelayTable::presence_of(Slot slot) const {
    const Client& client = places_[slot].client;
    return derp::write_peer_present({client.key, client.from, client.flags});
}

void RelayTable::add(Slot slot, const Client& client) {
    if (places_.size() <= slot) places_.resize(slot + 1);
    Key& key = keys_[client.key];
    places_[slot] = Place{true, client, &key};
    if (!key.here) {
        key.here = true;
        ++local_keys_;
    } else if (!key.duplicates) {
        key.duplicates = std::make_unique<Duplicates>(Duplicates{{key.active, slot}, {key.active}});
        ++duplicate_keys_;
    } else {
        key.duplicates->members.push_back(slot);
        key.duplicates->history.push_back(slot);
    }
    key.active = slot;
    tell_watchers(derp::FrameType::PeerPresent, presence_of(slot));
}

void RelayTable::on_frame(Slot slot) {
    Key* key = places_[slot].key;
    if (key == nullptr || !key->duplicates || key->active == slot) return;
    std::erase(key->duplicates->history, slot);
    key->duplicates->history.push_back(slot);
    key->active = slot;
}

void RelayTable::remove(Slot slot) {
    if (slot >= places_.size() || !places_[slot].used) return;
    heard_.forget_receiver(slot);
    Place place = std::exchange(places_[slot], {});
    Key& key = *place.key;
    if (key.duplicates) {
        auto& [members, history] = *key.duplicates;
        std::erase(members, slot);
        std::erase(history, slot);
        if (members.size() == 1) {
            key.active = members.front();
            key.duplicates.reset();
            --duplicate_keys_;
        } else if (key.active == slot) {
            key.active = history.empty() ? members.back() : history.back();
        }
        return;
    }
    key.here = false;
    --local_keys_;
    tell_watchers(derp::FrameType::PeerGone, derp::write_peer_gone({place.client.key, derp::GoneReason::Disconnected}));
    drop_if_unused(place.client.key);
}

// Nobody has the key, neither here nor through the mesh.
void RelayTable::drop_if_unused(const NodeKey& key) {
    auto found = keys_.find(key);
    if (found == keys_.end() || found->second.here || found->second.forwarders) return;
    keys_.erase(found);
    actions_.push_back(KeyLeft{key});
}

Route RelayTable::route(const NodeKey& to) const {
    auto found = keys_.find(to);
    if (found == keys_.end()) return {};
    const Key& key = found->second;
    if (key.here) return {Route::Kind::Local, key.active, {}};
    return {Route::Kind::Forward, 0, key.forwarders->front()};
}

void RelayTable::on_key_left(const NodeKey& key) {
    for (Slot slot : heard_.take_receivers(key))
        actions_.push_back(Tell{{core_, slot, places_[slot].client.generation},
                                derp::FrameType::PeerGone,
                                derp::write_peer_gone({key, derp::GoneReason::Disconnected})});
}

std::vector<Slot> RelayTable::connections_of(const NodeKey& key) const {
    auto found = keys_.find(key);
    if (found == keys_.end() || !found->second.here) return {};
    if (found->second.duplicates) return found->second.duplicates->members;
    return {found->second.active};
}

void RelayTable::add_watcher(const ConnectionRef& watcher) {
    if (std::find(watchers_.begin(), watchers_.end(), watcher) != watchers_.end()) return;
    watchers_.push_back(watcher);
    for (const auto& [key, state] : keys_)
        if (state.here) actions_.push_back(Tell{watcher, derp::FrameType::PeerPresent, presence_of(state.active)});
}

void RelayTable::remove_watcher(const ConnectionRef& watcher) {
    std::erase(watchers_, watcher);
}

void RelayTable::add_forwarder(const NodeKey& key, const ConnectionRef& link) {
    auto& forwarders = keys_[key].forwarders;
    if (!forwarders) {
        forwarders = std::make_unique<std::vector<ConnectionRef>>();
        ++forwarded_keys_;
    }
    if (std::find(forwarders->begin(), forwarders->end(), link) == forwarders->end()) forwarders->push_back(link);
}

void RelayTable::remove_forwarder(const NodeKey& key, const ConnectionRef& link) {
    auto found = keys_.find(key);
    if (found == keys_.end() || !found->second.forwarders) return;
    auto& forwarders = found->second.forwarders;
    std::erase(*forwarders, link);
    if (!forwarders->empty()) return;
    forwarders.reset();
    --forwarded_keys_;
    drop_if_unused(key);
}

void RelayTable::remove_link(const ConnectionRef& link) {
    std::vector<NodeKey> announced;
    for (const auto& [key, state] : keys_)
        if (state.forwarders &&
            std::find(state.forwarders->begin(), state.forwarders->end(), link) != state.forwarders->end())
            announced.push_back(key);
    for (const NodeKey& key : announced) remove_forwarder(key, link);
}

} // namespace tailrace::relay
