#include "control/map/composer.hpp"

#include "base/json/json.hpp"
#include "control/tailnet/services.hpp"
#include "policy/app_connectors.hpp"

#include <algorithm>

namespace tailrace {

namespace {

/// Chunks end at nodes whose id hashes so: about every 64th, and the same ones whatever else a viewer sees.
bool ends_chunk(NodeId id) {
    return (static_cast<std::uint64_t>(id) * 0x9e3779b97f4a7c15u) >> 58 == 0;
}

SharedText shared(std::string text) {
    return std::make_shared<const std::string>(std::move(text));
}

std::string compressed(std::string_view text) {
    auto done = zstd_compress(as_bytes(text));
    if (!done) return {}; // only when memory is used up
    return std::string{as_chars(*done)};
}

std::string length_prefix(std::size_t length) {
    std::string out;
    for (int i = 0; i < 4; ++i) out += static_cast<char>(length >> (8 * i) & 0xff);
    return out;
}

void append_item(std::string& list, std::string_view item) {
    if (!list.empty()) list += ',';
    list += item;
}

bool contains(const CompiledPolicy::NodeList& list, NodeId id) {
    return list && std::binary_search(list->begin(), list->end(), id);
}

constexpr std::size_t kMaxViews = 64;
constexpr std::size_t kMaxFrames = 4096;

/// Source: policy.md, derpMap: its regions stand above the operator's, a null one takes the operator's away.
wire::DerpMap merged_derp_map(const wire::DerpMap& base, const std::string& policy_json) {
    if (policy_json.empty()) return base;
    auto wanted = wire::parse_derp_map(policy_json);
    if (!wanted) return base; // the policy's check has refused it
    wire::DerpMap merged = base;
    if (!merged.regions || wanted->omit_default_regions) merged.regions.emplace();
    for (auto& [id, region] : wanted->regions.value_or(std::map<int, std::optional<wire::DerpRegion>>{})) {
        if (region)
            (*merged.regions)[id] = std::move(region);
        else
            merged.regions->erase(id);
    }
    return merged.regions->empty() ? base : merged; // without any region clients do not even start
}

} // namespace

void MapViewer::note(NodeId node, NodeChange change) {
    changed.emplace_back(node, change);
    // A client that reads slowly costs a set, not a queue.
    if (changed.size() >= 64 && changed.size() >= 2 * merged_) merge_changes();
}

void MapViewer::merge_changes() {
    std::sort(changed.begin(), changed.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    auto last = changed.begin();
    for (auto at = changed.begin(); at != changed.end(); ++at) {
        if (at == last) continue;
        if (at->first == last->first)
            last->second = last->second | at->second;
        else
            *++last = *at;
    }
    if (!changed.empty()) changed.erase(last + 1, changed.end());
    merged_ = changed.size();
}

MapComposer::MapComposer(const TailnetState& tailnet, Fixed fixed) : tailnet_(tailnet), fixed_(std::move(fixed)) {}

News news_of(const NodeEvent& event) {
    if (!event.before || !event.after) return {};
    const Node& before = *event.before;
    const Node& after = *event.after;
    bool expired_now = event.before != event.after && before == after; // time alone made the difference
    NodeChange change = expired_now ? NodeChange::Full : difference(before, after);
    NodeRecord same_routes = before.record;
    take_routes(same_routes, after.record);
    bool itself = same_routes != after.record || before.report.routable_ips != after.report.routable_ips;
    return {change, expired_now || itself};
}

void MapComposer::set_policy(std::shared_ptr<const CompiledPolicy> policy) {
    policy_ = std::move(policy);
    ++generation_;
    wire::DerpMap relays = merged_derp_map(fixed_.derp_map, policy_->document().derp_map);
    std::string derp_map = wire::write_derp_map(relays);
    if (!derp_map_ || *derp_map_ != derp_map) {
        derp_map_ = shared(std::move(derp_map));
        region_codes_.clear();
        if (relays.regions)
            for (const auto& [id, region] : *relays.regions)
                if (region && !region->region_code.empty()) region_codes_[id] = region->region_code;
    }
    looks_depend_on_viewer_ = !policy_->document().node_attributes.empty() || policy_->document().disable_ipv4;
    routers_.clear();
    for (const TailnetNode& node : policy_->tailnet().nodes)
        if (!node.routes.empty()) routers_.insert(node.id);
    for (auto* texts : {&filters_, &lines_})
        std::erase_if(*texts, [](const auto& entry) { return entry.second.use_count() == 1; });
    std::erase_if(dns_, [](const auto& entry) { return entry.second.use_count() == 1; });
    views_.clear();
    differences_.clear();
}

bool MapComposer::knows(NodeId id) const {
    if (!policy_) return false;
    const auto& nodes = policy_->tailnet().nodes;
    auto at = std::lower_bound(nodes.begin(), nodes.end(), id,
                               [](const TailnetNode& node, NodeId wanted) { return node.id < wanted; });
    return at != nodes.end() && at->id == id;
}

bool MapComposer::waits_for_approval(NodeId id) const {
    const NodePtr& node = tailnet_.node(id);
    return node && !node->record.authorized;
}

std::string MapComposer::region_code(int region) const {
    auto at = region_codes_.find(region);
    return at == region_codes_.end() ? std::to_string(region) : at->second;
}

bool MapComposer::concerns(const MapViewer& viewer, NodeId id, const CompiledPolicy::NodeList& view) const {
    if (!viewer.started || viewer.id == id) return false; // a full map will say it
    return contains(view, viewer.id) || (viewer.generation != generation_ && contains(viewer.view, id));
}

void MapComposer::on_node_event(const NodeEvent& event) {
    if (!event.after) texts_.erase(event.id);
    for (auto& [key, view] : views_) {
        auto chunk = std::upper_bound(view.chunks.begin(), view.chunks.end(), event.id,
                                      [](NodeId id, const Chunk& candidate) { return id < candidate.first; });
        if (chunk == view.chunks.begin()) continue;
        --chunk;
        chunk->compressed.clear();
        chunk->keep_alive.clear();
    }
}

bool MapComposer::is_special(const Node& node) const {
    return looks_depend_on_viewer_ || routers_.contains(node.id());
}

NodeView MapComposer::look(NodeId viewer, const Node& node) const {
    NodeView view;
    if (!is_special(node)) {
        view.addresses = {node.record.v4, node.record.v6};
        return view;
    }
    view.addresses = policy_->addresses(viewer, node.id());
    view.routes = policy_->allowed_routes(viewer, node.id());
    view.primary_routes = policy_->primary_routes(viewer, node.id());
    view.capabilities =
        viewer == node.id() ? policy_->self_capabilities(viewer) : policy_->peer_capabilities(viewer, node.id());
    return view;
}

MapComposer::NodeTexts& MapComposer::texts_of(const NodePtr& node) {
    NodeTexts& texts = texts_[node->id()];
    if (texts.made_from != node) texts = NodeTexts{node, {}, {}};
    return texts;
}

SharedText MapComposer::peer_text(NodeId viewer, const NodePtr& node, const WallTime& now) {
    NodeTexts& texts = texts_of(node);
    NodeView view;
    std::string key;
    if (is_special(*node)) {
        view = look(viewer, *node);
        key = view.text();
    }
    SharedText& text = texts.by_view[key];
    if (!text) {
        if (key.empty()) view = look(viewer, *node);
        text = shared(peer_json(*node, tailnet_.fqdn(*node), view, now));
        ++counters_.nodes_serialised;
    }
    return text;
}

SharedText MapComposer::patch_text(const NodePtr& node, NodeChange change) {
    SharedText& text = texts_of(node).patches[change];
    if (!text) text = shared(patch_json(*node, change));
    return text;
}

SharedText MapComposer::filter_text(NodeId viewer) {
    // One text for equal filters, also of different policies, so that pointers can be compared.
    SharedText& text = filters_[policy_->filter_id(viewer)];
    if (!text) text = shared(filter_json(*policy_->rules_for(viewer)));
    return text;
}

SharedText MapComposer::lines_text(const MapViewer& viewer) {
    if (!viewer.wants_lines) return nullptr;
    SharedText& text = lines_[policy_->lines_id(viewer.id)];
    if (!text) text = shared(lines_json(policy_->lines_for(viewer.id)));
    return text;
}

std::string MapComposer::ssh_rules_text(NodeId viewer) const {
    if (!policy_->document().has_ssh) return "[]"; // an object with no rules denies; absence would keep older rules
    return ssh_rules_json(policy_->ssh_rules_for(viewer));
}

/// Names that the viewer's app connectors lead to are asked of these, which learn from the answers where routes shall
/// lead. A connector itself asks those whom it asked before.
std::map<std::string, std::vector<wire::Resolver>> MapComposer::connector_routes(NodeId viewer) const {
    std::map<std::string, std::vector<wire::Resolver>> out;
    const auto connectors = policy_->connectors_for(viewer);
    const NodePtr& self = tailnet_.node(viewer);
    if (connectors.empty() || !self) return out;
    const bool has_v4 =
        !policy_->addresses(viewer, viewer).empty() && policy_->addresses(viewer, viewer).front().is_v4();
    for (const auto& [name, values] : policy_->self_capabilities(viewer)) {
        if (name != kAppConnectorsCap) continue;
        for (const std::string& value : values) {
            auto entry = parse_app_connector_entry(value);
            if (!entry || (policy_->is_connector(viewer) && entry->means(self->record.tags))) continue;
            for (NodeId id : connectors) {
                const NodePtr& node = tailnet_.node(id);
                if (!node || !entry->means(node->record.tags)) continue;
                auto addresses = policy_->addresses(viewer, id);
                auto at = std::find_if(addresses.begin(), addresses.end(),
                                       [&](const IpAddress& address) { return address.is_v4() == has_v4; });
                std::uint16_t port = has_v4 ? node->report.peer_api4 : node->report.peer_api6;
                if (at == addresses.end() || port == 0) continue;
                wire::Resolver resolver{fmt::format("http://{}/dns-query", Endpoint{*at, port}.text()), {}, true};
                for (const std::string& domain : entry->domains) {
                    std::string suffix = plain_domain(domain.starts_with("*.") ? domain.substr(2) : domain);
                    auto& resolvers = out[suffix];
                    if (!suffix.empty() && std::find(resolvers.begin(), resolvers.end(), resolver) == resolvers.end())
                        resolvers.push_back(resolver);
                }
            }
        }
    }
    out.erase("");
    return out;
}

/// A viewer knows the names of the services that it can reach.
SharedText MapComposer::dns_text(NodeId viewer) {
    std::vector<wire::DnsRecord> records;
    std::string key;
    const std::string& base_domain = tailnet_.settings().base_domain;
    if (!base_domain.empty()) {
        for (const TailnetService* service : policy_->services_for(viewer)) {
            for (const IpAddress& address : service->addresses) {
                auto name = fmt::format("{}.{}", service_label(service->name), base_domain);
                records.push_back({std::move(name), "", address.text()});
                key += records.back().name + ' ' + records.back().value + ' ';
            }
        }
    }
    const auto routes = connector_routes(viewer);
    if (!routes.empty()) key += json::write(routes);
    SharedText& text = dns_[key];
    if (!text) {
        wire::DnsConfig config = fixed_.dns;
        for (const auto& [suffix, resolvers] : routes) config.routes[suffix] = resolvers;
        config.extra_records.insert(config.extra_records.end(), records.begin(), records.end());
        text = shared(json::write(config));
    }
    return text;
}

MapComposer::SharedView& MapComposer::shared_view(const CompiledPolicy::NodeList& nodes) {
    if (auto at = views_.find(nodes.get()); at != views_.end()) return at->second;
    if (views_.size() >= kMaxViews) views_.clear();
    SharedView& view = views_[nodes.get()];
    view.nodes = nodes;
    bool fresh = true;
    for (NodeId id : *nodes) {
        if (fresh) view.chunks.emplace_back().first = id;
        view.chunks.back().nodes.push_back(id);
        fresh = ends_chunk(id);
    }
    return view;
}

const MapComposer::Difference& MapComposer::difference_of(const CompiledPolicy::NodeList& from,
                                                          const CompiledPolicy::NodeList& to) {
    auto [at, fresh] = differences_.try_emplace({from.get(), to.get()});
    Difference& difference = at->second;
    if (fresh) {
        difference.from = from;
        difference.to = to;
        static const std::vector<NodeId> kNone;
        const auto& a = from ? *from : kNone;
        const auto& b = to ? *to : kNone;
        std::set_difference(b.begin(), b.end(), a.begin(), a.end(), std::back_inserter(difference.added));
        std::set_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(difference.removed));
    }
    return difference;
}

/// The peers of a chunk without the viewer, comma between them; also notes what the viewer is told.
std::string MapComposer::chunk_json(const Chunk& chunk, MapViewer& viewer, const WallTime& now) {
    std::string out;
    for (NodeId id : chunk.nodes) {
        if (id == viewer.id) continue;
        const NodePtr& node = tailnet_.node(id);
        if (node) append_item(out, *peer_text(viewer.id, node, now));
    }
    return out;
}

void MapComposer::note_profile(MapViewer& viewer, UserId user, std::string& profiles) {
    if (!viewer.profiles.insert(user).second) return;
    append_item(profiles, wire::write_user_profile(tailnet_.profile(user)));
}

const SharedText& MapComposer::keep_alive(MapCompression compression) {
    static const SharedText kPlain = shared(std::string{as_chars(keep_alive_frame(MapCompression::None))});
    static const SharedText kZstd = shared(std::string{as_chars(keep_alive_frame(MapCompression::Zstd))});
    return compression == MapCompression::Zstd ? kZstd : kPlain;
}

SharedText MapComposer::question(const wire::PingRequest& question, MapCompression compression) {
    wire::MapResponse frame;
    frame.keep_alive = true;
    frame.ping_request = question;
    std::string json = wire::write_map_response(frame);
    if (compression == MapCompression::Zstd) json = compressed(json);
    return shared(length_prefix(json.size()) + json);
}

SharedText MapComposer::whole_frame(std::string json, MapCompression compression) {
    if (compression == MapCompression::None) return shared(length_prefix(json.size()) + json);
    if (auto at = frames_.find(json); at != frames_.end()) {
        ++counters_.frames_shared;
        return at->second;
    }
    std::string payload = compressed(json);
    auto frame = shared(length_prefix(payload.size()) + payload);
    ++counters_.frames_compressed;
    if (frames_.size() >= kMaxFrames) frames_.clear();
    frames_.emplace(std::move(json), frame);
    return frame;
}

/// Itself and nobody else; no packet may come. The client sees that it is not authorized, and waits.
FramePieces MapComposer::waiting(MapViewer& viewer, const Node& self, const WallTime& now) {
    MapCompression compression = viewer.compression;
    bool wants_lines = viewer.wants_lines;
    viewer = MapViewer{};
    viewer.id = self.id();
    viewer.compression = compression;
    viewer.wants_lines = wants_lines;
    viewer.started = viewer.waits = true;
    NodeView own;
    own.addresses = {self.record.v4, self.record.v6};
    std::string out = fmt::format(R"({{"ControlTime":"{}","Node":{},"DERPMap":{},"DNSConfig":{},"Domain":)", now.text(),
                                  self_json(self, tailnet_.fqdn(self), own, now), *derp_map_, json::write(fixed_.dns));
    json::append_string(out, fixed_.domain);
    out += fmt::format(R"(,"PacketFilters":{{"base":[]}},"SSHPolicy":{{"rules":[]}},"UserProfiles":[{}],"Peers":[]}})",
                       wire::write_user_profile(tailnet_.profile(TailnetState::owner_of(self.record))));
    return {whole_frame(std::move(out), compression)};
}

FramePieces MapComposer::full(MapViewer& viewer, const WallTime& now) {
    NodePtr self = tailnet_.node(viewer.id);
    if (!self) return {};
    if (!self->record.authorized) return waiting(viewer, *self, now);
    if (!knows(viewer.id)) return {};
    viewer.started = true;
    viewer.waits = false;
    viewer.changed.clear();
    viewer.self_changed = false;
    viewer.view = policy_->view_of(viewer.id);
    viewer.generation = generation_;
    viewer.derp_map = derp_map_;
    viewer.dns = dns_text(viewer.id);
    viewer.filter = filter_text(viewer.id);
    viewer.lines = lines_text(viewer);
    viewer.ssh_rules = ssh_rules_text(viewer.id);
    viewer.special.clear();
    viewer.profiles.clear();

    std::string profiles;
    note_profile(viewer, TailnetState::owner_of(self->record), profiles);
    for (NodeId id : *viewer.view)
        if (const NodePtr& node = tailnet_.node(id)) {
            note_profile(viewer, TailnetState::owner_of(node->record), profiles);
            if (id != viewer.id && is_special(*node)) viewer.special[id] = peer_text(viewer.id, node, now);
        }

    NodeView own = look(viewer.id, *self);
    viewer.own_look = is_special(*self) ? own.text() : "";
    std::string head =
        fmt::format(R"({{"ControlTime":"{}","Node":{},"DERPMap":{},"DNSConfig":{},"Domain":)", now.text(),
                    self_json(*self, tailnet_.fqdn(*self), own, now), *viewer.derp_map, *viewer.dns);
    json::append_string(head, fixed_.domain);
    head += fmt::format(R"(,"PacketFilters":{{"base":{}}},"SSHPolicy":{{"rules":{}}},"UserProfiles":[{}])",
                        *viewer.filter, viewer.ssh_rules, profiles);
    if (viewer.lines) head += R"(,"TailracePolicyLines":)" + *viewer.lines;

    SharedView& view = shared_view(viewer.view);
    FramePieces peers;
    static const SharedText kComma = shared(compressed(","));
    for (Chunk& chunk : view.chunks) {
        SharedText text;
        bool own_chunk = std::binary_search(chunk.nodes.begin(), chunk.nodes.end(), viewer.id);
        if (own_chunk || viewer.compression == MapCompression::None) {
            std::string json = chunk_json(chunk, viewer, now);
            if (json.empty()) continue;
            text = shared(viewer.compression == MapCompression::None ? std::move(json) : compressed(json));
            if (viewer.compression == MapCompression::Zstd) ++counters_.chunks_compressed;
        } else {
            std::vector<const std::string*> key;
            std::vector<SharedText> key_texts;
            for (auto at = viewer.special.lower_bound(chunk.first);
                 at != viewer.special.end() && at->first <= chunk.nodes.back(); ++at) {
                key.push_back(at->second.get());
                key_texts.push_back(at->second);
            }
            SharedText& kept = chunk.compressed[key];
            if (!kept) {
                std::string json = chunk_json(chunk, viewer, now);
                kept = shared(json.empty() ? "" : compressed(json));
                chunk.keep_alive.insert(chunk.keep_alive.end(), key_texts.begin(), key_texts.end());
                ++counters_.chunks_compressed;
            }
            if (kept->empty()) continue;
            text = kept;
        }
        if (!peers.empty()) peers.push_back(viewer.compression == MapCompression::Zstd ? kComma : shared(","));
        peers.push_back(std::move(text));
    }
    std::string tail = "}";
    if (!peers.empty()) {
        head += R"(,"Peers":[)";
        tail = "]}";
    }
    if (viewer.compression == MapCompression::Zstd) {
        head = compressed(head);
        tail = compressed(tail);
    }
    std::size_t length = head.size() + tail.size();
    for (const SharedText& piece : peers) length += piece->size();
    FramePieces frame{shared(length_prefix(length) + head)};
    std::move(peers.begin(), peers.end(), std::back_inserter(frame));
    frame.push_back(shared(std::move(tail)));
    return frame;
}

FramePieces MapComposer::delta(MapViewer& viewer, const WallTime& now) {
    NodePtr self = tailnet_.node(viewer.id);
    if (!self) return {};
    const bool waits = !self->record.authorized;
    if (waits && viewer.waits && !viewer.self_changed) return {};
    if (waits || viewer.waits) return full(viewer, now);
    if (!knows(viewer.id)) return {};
    std::string removed;
    std::string out;
    if (viewer.generation != generation_) {
        viewer.generation = generation_;
        auto view = policy_->view_of(viewer.id);
        if (view != viewer.view) {
            const Difference& difference = difference_of(viewer.view, view);
            for (NodeId id : difference.added)
                if (id != viewer.id) viewer.note(id, NodeChange::Full);
            for (NodeId id : difference.removed) {
                if (id == viewer.id) continue;
                append_item(removed, std::to_string(id));
                viewer.special.erase(id);
            }
            viewer.view = view;
        }
        auto check = [&](NodeId id) { // does it look different now?
            if (id == viewer.id || !contains(viewer.view, id)) return;
            if (const NodePtr& node = tailnet_.node(id); node && is_special(*node)) {
                SharedText& told = viewer.special[id];
                SharedText text = peer_text(viewer.id, node, now);
                if (!told || (told != text && *told != *text)) viewer.note(id, NodeChange::Full);
                told = text;
            }
        };
        std::vector<NodeId> were_special;
        for (const auto& [id, told] : viewer.special)
            if (const NodePtr& node = tailnet_.node(id); node && !is_special(*node)) were_special.push_back(id);
        for (NodeId id : were_special) {
            viewer.special.erase(id);
            if (contains(viewer.view, id)) viewer.note(id, NodeChange::Full);
        }
        if (looks_depend_on_viewer_)
            for (NodeId id : *viewer.view) check(id);
        else
            for (NodeId id : routers_) check(id);
        std::string own_look = is_special(*self) ? look(viewer.id, *self).text() : "";
        viewer.self_changed = viewer.self_changed || own_look != viewer.own_look;
        viewer.own_look = std::move(own_look);
        if (viewer.derp_map != derp_map_) {
            viewer.derp_map = derp_map_;
            out += R"(,"DERPMap":)" + *derp_map_;
        }
        if (SharedText dns = dns_text(viewer.id); std::exchange(viewer.dns, dns) != dns)
            out += R"(,"DNSConfig":)" + *dns;
        SharedText filter = filter_text(viewer.id);
        bool is_new_filter = std::exchange(viewer.filter, filter) != filter;
        if (is_new_filter) out += fmt::format(R"(,"PacketFilters":{{"base":{}}})", *filter);
        SharedText lines = lines_text(viewer); // a new filter voids those that were told
        bool are_new_lines = std::exchange(viewer.lines, lines) != lines;
        if (lines && (is_new_filter || are_new_lines)) out += R"(,"TailracePolicyLines":)" + *lines;
        if (std::string rules = ssh_rules_text(viewer.id); rules != viewer.ssh_rules) {
            viewer.ssh_rules = std::move(rules);
            out += fmt::format(R"(,"SSHPolicy":{{"rules":{}}})", viewer.ssh_rules);
        }
    }
    if (viewer.self_changed) {
        viewer.self_changed = false;
        NodeView own = look(viewer.id, *self);
        out += R"(,"Node":)" + self_json(*self, tailnet_.fqdn(*self), own, now);
    }
    std::string changed, patched, profiles;
    note_profile(viewer, TailnetState::owner_of(self->record), profiles);
    viewer.merge_changes();
    for (const auto& [id, change] : viewer.changed) {
        const NodePtr& node = tailnet_.node(id);
        if (!node || id == viewer.id || !contains(viewer.view, id)) continue;
        if (has(change, NodeChange::Full)) {
            SharedText text = peer_text(viewer.id, node, now);
            if (is_special(*node)) viewer.special[id] = text;
            append_item(changed, *text);
            note_profile(viewer, TailnetState::owner_of(node->record), profiles);
        } else {
            append_item(patched, *patch_text(node, change));
        }
    }
    viewer.changed.clear();
    if (!profiles.empty()) out += fmt::format(R"(,"UserProfiles":[{}])", profiles);
    if (!changed.empty()) out += fmt::format(R"(,"PeersChanged":[{}])", changed);
    if (!removed.empty()) out += fmt::format(R"(,"PeersRemoved":[{}])", removed);
    if (!patched.empty()) out += fmt::format(R"(,"PeersChangedPatch":[{}])", patched);
    if (out.empty()) return {};
    out.front() = '{';
    out += '}';
    return {whole_frame(std::move(out), viewer.compression)};
}

} // namespace tailrace
