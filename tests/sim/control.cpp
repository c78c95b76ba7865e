#include "control/server/policy_input.hpp"
#include "tests/sim/tailnet.hpp"

#include <gtest/gtest.h>

namespace tailrace::sim {
namespace {

constexpr auto kLatency = std::chrono::milliseconds{5}; // of a map frame

TailnetState::Settings settings() {
    TailnetState::Settings settings;
    settings.server_url = "http://10.99.0.1:8080";
    settings.base_domain = "tail.lab";
    settings.prefix_v4 = cgnat_prefix();
    settings.prefix_v6 = tailscale_ula_prefix();
    settings.tags_need_owners = false;
    return settings;
}

} // namespace

Control::Control(World& world)
    : world_(world), tailnet_(settings(), {}, {}, world.wall()),
      composer_(tailnet_, {{}, dns_config("tail.lab", {}), "tail.lab"}) {
    set_policy("{}");
}

std::string Control::auth_key(const std::string& user) {
    if (!tailnet_.user_named(user)) EXPECT_TRUE(tailnet_.create_user(world_.wall(), user, ""));
    TailnetState::KeyWish wish;
    wish.user = user;
    wish.reusable = true;
    auto key = tailnet_.create_auth_key(world_.wall(), wish);
    EXPECT_TRUE(key);
    return key ? key->text : "";
}

void Control::set_policy(const std::string& text) {
    auto document = Document::parse(text);
    ASSERT_TRUE(document) << document.error().message();
    policy_ = std::make_shared<const Document>(std::move(*document));
    compile();
}

void Control::compile() {
    composer_.set_policy(compile_for(policy_, tailnet_.snapshot(), nullptr));
    for (auto& [id, stream] : streams_) pump(id);
}

wire::RegisterResponse Control::on_register(const MachineKey& machine, const wire::RegisterRequest& request) {
    auto response = tailnet_.on_register(world_.wall(), machine, request).response;
    publish();
    return response;
}

void Control::on_report(const wire::MapRequest& request) {
    if (NodePtr node = tailnet_.node_by_key(request.node_key)) tailnet_.on_report(world_.wall(), node->id(), request);
    publish();
}

void Control::open_stream(Agent& agent, const wire::MapRequest& request) {
    Stream& stream = streams_[agent.id()];
    stream = Stream{};
    stream.agent = &agent;
    stream.viewer.id = agent.id();
    stream.number = ++last_stream_;
    tailnet_.on_stream_begin(world_.wall(), agent.id(), request);
    publish();
    pump(agent.id());
}

void Control::close_stream(NodeId id) {
    if (streams_.erase(id) > 0) tailnet_.on_stream_end(world_.wall(), id);
}

void Control::publish() {
    tailnet_.on_timer(world_.wall());
    bool stale = false;
    for (const NodeEvent& event : tailnet_.take_changes().events) {
        composer_.on_node_event(event);
        stale = stale || concerns_policy(event);
        if (!event.after) streams_.erase(event.id);
        News news = news_of(event);
        if (auto at = streams_.find(event.id); at != streams_.end() && news.for_itself)
            at->second.viewer.self_changed = true;
        if (news.for_peers == NodeChange::None) continue;
        auto view = composer_.view_of(event.id);
        for (auto& [viewer, stream] : streams_)
            if (composer_.concerns(stream.viewer, event.id, view)) stream.viewer.note(event.id, news.for_peers);
    }
    if (stale)
        compile();
    else
        for (auto& [id, stream] : streams_) pump(id);
}

void Control::pump(NodeId id) {
    auto at = streams_.find(id);
    if (at == streams_.end() || at->second.message_under_way || !composer_.knows(id)) return;
    Stream& stream = at->second;
    FramePieces pieces = stream.viewer.started ? composer_.delta(stream.viewer, world_.wall())
                                               : composer_.full(stream.viewer, world_.wall());
    if (pieces.empty()) return;
    std::string bytes;
    for (const SharedText& piece : pieces) bytes += *piece;
    stream.message_under_way = true;
    auto arrived = [this, id, number = stream.number, bytes = std::move(bytes)] {
        auto open = streams_.find(id);
        if (open == streams_.end() || open->second.number != number) return; // the stream broke meanwhile
        open->second.message_under_way = false;
        open->second.agent->on_frame(bytes);
        pump(id);
    };
    world_.after(kLatency + stream.agent->reading_time(), std::move(arrived));
}

wire::MapResponse Control::whole_map(NodeId id) {
    MapViewer viewer;
    viewer.id = id;
    viewer.compression = MapCompression::None;
    std::string bytes;
    for (const SharedText& piece : composer_.full(viewer, world_.wall())) bytes += *piece;
    MapFrameReader reader{MapCompression::None};
    reader.feed(as_bytes(bytes));
    auto json = reader.next();
    EXPECT_TRUE(json && *json);
    if (!json || !*json) return {};
    auto map = wire::parse_map_response(**json);
    EXPECT_TRUE(map);
    return map ? *map : wire::MapResponse{};
}

} // namespace tailrace::sim
