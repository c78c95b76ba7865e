// control/server/map_streams.cpp - the long polls. A stream has one message in flight and a set of what changed since;
// the next message is made when the last was written, so a slow client costs a set and no queue.
#include "control/server/coordinator.hpp"

#include "base/random.hpp"
#include "control/routes/route_rules.hpp"

#include <algorithm>

namespace tailrace {

namespace {

/// Clients give up after 120 s of silence. Source: control-protocol.md 5.3.
Duration keep_alive_interval() {
    return std::chrono::milliseconds{50'000 + random_below(9'000)};
}

constexpr auto kFirstNews = std::chrono::milliseconds{3};

bool has_flag(const wire::MapRequest& request, std::string_view flag) {
    return std::find(request.debug_flags.begin(), request.debug_flags.end(), flag) != request.debug_flags.end();
}

} // namespace

Task<void> Coordinator::lite_update(NodeId id, wire::MapRequest request) {
    if (auto offered = request.hostinfo.value.routable_ips.size(); offered > kMostRoutes)
        log::warn("a node offers more routes than are looked at",
                  {{"node", id}, {"offers", offered}, {"most", kMostRoutes}});
    bool restarting = has_flag(request, wire::kRestartingFlag);
    route_watch_.tell([&](RouteHealth& health, TimePoint now) {
        health.on_word(now, id);
        if (restarting) health.on_restart_announced(now, id);
    });
    tailnet_.on_report(WallTime::now(), id, request);
    (void)co_await commit(); // it has logged
    if (!journal_.has_reports()) co_return;
    // Without its disco key and its home relay a peer is no peer for stock clients: a restart must not forget them.
    auto written = std::make_shared<Event>(reactor_);
    journal_.append({}, nullptr, [written](const Result<void>& outcome) {
        if (!outcome) log::error("a node's report was not written", {{"error", outcome.error()}});
        written->notify();
    });
    co_await written->wait();
}

void Coordinator::tell(const NodeEvent& event) {
    if (!event.after) {
        if (auto at = streams_.find(event.id); at != streams_.end()) end_stream(at->second);
        return; // the next policy takes it from its peers
    }
    News news = news_of(event);
    if (auto at = streams_.find(event.id); news.for_itself && at != streams_.end()) {
        at->second->viewer.self_changed = true;
        wake(*at->second);
    }
    if (news.for_peers != NodeChange::None) tell_peers(event.id, news.for_peers);
}

void Coordinator::tell_peers(NodeId id, NodeChange change) {
    auto view = composer_.view_of(id);
    for (auto& [viewer, stream] : streams_) {
        if (!composer_.concerns(stream->viewer, id, view)) continue;
        stream->viewer.note(id, change);
        wake(*stream);
    }
}

void Coordinator::wake(MapStream& stream) {
    auto at = streams_.find(stream.viewer.id);
    if (at == streams_.end() || at->second.get() != &stream) return;
    to_wake_.push_back(at->second);
    if (std::exchange(flush_is_due_, true)) return;
    // One change goes out at once. Under a storm of changes all streams get theirs together, at most ten times a
    // second with a thousand streams: equal messages are then made once.
    auto pace = std::min(std::chrono::microseconds{100} * static_cast<std::int64_t>(streams_.size()),
                         std::chrono::microseconds{100'000});
    auto wait = std::max<Duration>(kFirstNews, last_flush_ + pace - reactor_.now());
    flush_timer_.after(wait, [this] { flush_wakes(); });
}

void Coordinator::wake_all() {
    for (auto& [id, stream] : streams_) wake(*stream);
}

void Coordinator::flush_wakes() {
    flush_is_due_ = false;
    last_flush_ = reactor_.now();
    composer_.forget_frames();
    auto streams = std::move(to_wake_);
    to_wake_.clear();
    for (const auto& weak : streams)
        if (auto stream = weak.lock()) stream->wake.notify();
}

void Coordinator::end_stream(const std::shared_ptr<MapStream>& stream) {
    stream->over = true;
    stream->wake.notify();
}

Task<bool> Coordinator::write_pieces(std::shared_ptr<MapStream> stream, FramePieces pieces) {
    for (SharedText& piece : pieces) {
        auto written = co_await stream->exchange->write(std::move(piece));
        if (!written) co_return false;
    }
    ++frames_total_;
    co_return true;
}

Task<void> Coordinator::stream_map(NodeId id, wire::MapRequest request, std::shared_ptr<Http2Exchange> exchange) {
    auto stream = std::make_shared<MapStream>(reactor_);
    stream->viewer.id = id;
    stream->viewer.compression = request.compress == "zstd" ? MapCompression::Zstd : MapCompression::None;
    stream->viewer.wants_lines = has_flag(request, wire::kPolicyLinesFlag);
    stream->exchange = exchange;
    if (auto old = std::exchange(streams_[id], stream)) end_stream(old); // a newer stream replaces an older one
    ++streams_total_;
    std::weak_ptr<MapStream> weak = stream;
    exchange->on_closed([weak] {
        if (auto open = weak.lock()) open->wake.notify();
    });
    route_watch_.tell([id](RouteHealth& health, TimePoint now) { health.on_word(now, id); });
    tailnet_.on_stream_begin(WallTime::now(), id, request);
    (void)co_await commit(); // a report: nothing that could fail

    HttpHeaders headers{{"content-type", "application/json"}};
    bool alive = static_cast<bool>(exchange->start(200, headers));
    bool is_known = false; // to the route watch: when it has the map it can be asked
    TimePoint keep_alive_at = reactor_.now() + keep_alive_interval();
    while (alive && !stream->over && !exchange->closed() && !stopping_) {
        FramePieces pieces;
        if (composer_.has_map_for(id)) { // else the policy that knows it is being compiled, and wakes us
            WallTime now = WallTime::now();
            pieces =
                stream->viewer.started ? composer_.delta(stream->viewer, now) : composer_.full(stream->viewer, now);
        }
        if (!stream->questions.empty() && stream->viewer.started) {
            pieces.push_back(std::move(stream->questions.front()));
            stream->questions.pop_front();
        }
        if (!pieces.empty()) {
            bool first = !std::exchange(is_known, true);
            alive = co_await write_pieces(stream, std::move(pieces));
            if (first && alive) ask_for_services(id);
            if (first && alive)
                route_watch_.tell([id](RouteHealth& health, TimePoint now) { health.on_stream_begin(now, id); });
            keep_alive_at = reactor_.now() + keep_alive_interval();
            continue; // more may have happened meanwhile
        }
        if (reactor_.now() < keep_alive_at) {
            (void)co_await stream->wake.wait_for(keep_alive_at - reactor_.now()); // news, or the time has come
            continue;
        }
        FramePieces keep_alive{MapComposer::keep_alive(stream->viewer.compression)};
        alive = co_await write_pieces(stream, std::move(keep_alive));
        keep_alive_at = reactor_.now() + keep_alive_interval();
    }
    exchange->end();
    auto at = streams_.find(id);
    if (at == streams_.end() || at->second != stream) co_return; // replaced: the node is still online
    streams_.erase(at);
    if (stopping_) co_return; // it was online when we went: nobody shall flap
    route_watch_.tell([id](RouteHealth& health, TimePoint now) { health.on_stream_end(now, id); });
    tailnet_.on_stream_end(WallTime::now(), id);
    arm_timer();
}

Task<FramePieces> Coordinator::map_once(NodeId id, MapCompression compression) {
    MapViewer viewer;
    viewer.id = id;
    viewer.compression = compression;
    for (int tries = 0; tries < 50 && !composer_.has_map_for(id); ++tries)
        (void)co_await policy_done_.wait_for(std::chrono::milliseconds{100}); // looks again anyway
    co_return composer_.full(viewer, WallTime::now());
}

Task<void> Coordinator::stop() {
    stopping_ = true;
    route_watch_.stop();
    services_timer_.cancel();
    for (auto& [id, stream] : streams_) stream->wake.notify();
    journal_.flush_reports();
    while (!journal_.idle()) co_await reactor_.sleep(std::chrono::milliseconds{2});
}

} // namespace tailrace
