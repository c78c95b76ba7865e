#include "agent/engine/flow_watch.hpp"

#include "agent/engine/packet_filter.hpp"
#include "base/log.hpp"

#include <algorithm>

namespace tailrace {
namespace {

void add_line(FlowWatcher& watcher, const std::string& line) {
    if (watcher.lines.size() >= FlowWatcher::kDepth) {
        ++watcher.lost;
        return;
    }
    watcher.lines.push_back(line + "\n");
    watcher.wake.notify();
}

} // namespace

FlowWatch::FlowWatch(Reactor& reactor, Surroundings surroundings)
    : reactor_(reactor), surroundings_(std::move(surroundings)) {}

FlowWatch::~FlowWatch() {
    *alive_ = false;
}

Result<std::shared_ptr<FlowWatcher>> FlowWatch::watch(FlowWatcher::Wants wants) {
    forget_those_who_left();
    if (watchers_.size() >= kMostWatchers)
        return Error::make("{} others watch packets already; end one of them first", watchers_.size());
    if (surroundings_.filter() == nullptr)
        return Error::make("no packet filter is in force: run \"tailrace up\" first");
    auto watcher = std::make_shared<FlowWatcher>(reactor_, wants);
    watchers_.insert(watcher);
    if (!running_) {
        running_ = true;
        spawn(reactor_, "watch of flows", run(alive_, this));
    }
    return watcher;
}

void FlowWatch::forget_those_who_left() {
    std::erase_if(watchers_, [](const auto& watcher) { return watcher.use_count() == 1; });
}

bool FlowWatch::anybody(FlowWatcher::Wants wants) const {
    return std::any_of(watchers_.begin(), watchers_.end(), [&](const auto& one) { return one->wants == wants; });
}

Task<void> FlowWatch::run(std::shared_ptr<bool> alive, FlowWatch* self) {
    self->begun_.reset();
    self->counting_ = false;
    std::string trouble;
    for (int looks = 0;; ++looks) {
        self->forget_those_who_left();
        PacketFilter* filter = self->surroundings_.filter();
        if (self->watchers_.empty()) {
            self->running_ = false;
            self->table_ = {};
            if (filter == nullptr) co_return;
            (void)filter->watch({}, {}); // the lease ends by itself too
            discard(*filter);
            co_return;
        }
        if (filter != nullptr) {
            bool flows = self->anybody(FlowWatcher::Wants::Flows);
            if (!self->begun_ || (flows && !self->counting_)) {
                discard(*filter);
                self->table_ = {};
                self->reported_ = self->reactor_.now();
                looks = 0;
            }
            self->counting_ = flows;
            Duration counts = flows ? Duration{kLease} : Duration{};
            if (auto wanted = filter->watch(kLease, counts); wanted) {
                trouble.clear();
                self->look(*filter, looks % kLooksAReport == 0 && looks > 0);
            } else if (wanted.error().message() != trouble) {
                trouble = wanted.error().message();
                log::warn("packets cannot be watched", {{"error", trouble}});
            }
        }
        co_await self->reactor_.sleep(kLookEvery);
        if (!*alive) co_return;
    }
}

void FlowWatch::discard(PacketFilter& filter) {
    (void)filter.packet_watch().take_traffic(); // a failure shows at the next look
    (void)filter.packet_watch().take_events(TR_EVENT_RING_BYTES / sizeof(tr_event));
}

void FlowWatch::look(PacketFilter& filter, bool report) {
    TimePoint now = reactor_.now();
    WallTime wall = WallTime::now();
    auto events = filter.packet_watch().take_events(kEventsALook);
    auto tally = filter.packet_watch().tally();
    if (!events || !tally) return;
    bool made_anew =
        begun_ && (tally->drops_not_sampled < begun_->drops_not_sampled || tally->events_lost < begun_->events_lost ||
                   tally->packets_uncounted < begun_->packets_uncounted);
    if (!begun_ || made_anew) begun_ = *tally;
    WatchTally since{tally->drops_not_sampled - begun_->drops_not_sampled, tally->events_lost - begun_->events_lost,
                     tally->packets_uncounted - begun_->packets_uncounted};

    bool drops = anybody(FlowWatcher::Wants::Drops);
    bool any_drop = drops && std::any_of(events->begin(), events->end(), [](const PacketEvent& event) {
                        return event.kind == PacketEventKind::Dropped;
                    });
    std::vector<KnownRule> rules; // a copy of thousands, so only when it is looked into
    if (any_drop || (report && counting_)) rules = surroundings_.rules();
    FlowNames names{surroundings_.peer_name, surroundings_.caps,
                    [&](std::uint32_t rule) { return filter.index_of(rule); }, rules};
    int near_rules = kNearRulesALook;
    for (const PacketEvent& event : *events) {
        if (counting_) table_.take_event(now, event);
        if (!drops || event.kind != PacketEventKind::Dropped) continue;
        Duration ago = now.time_since_epoch() - std::chrono::nanoseconds{event.time_ns};
        tell(FlowWatcher::Wants::Drops, write_drop(wall.plus(-ago), event, names, near_rules-- > 0));
    }
    if (!report) return;
    for (const auto& watcher : watchers_) {
        if (watcher->wants != FlowWatcher::Wants::Drops) continue;
        WatchTally for_this_one = since;
        for_this_one.events_lost += watcher->lost;
        add_line(*watcher, write_drop_tally(for_this_one));
    }
    if (!counting_) return;
    auto traffic = filter.packet_watch().take_traffic();
    if (!traffic) return;
    table_.take_traffic(now, now - reported_, *traffic);
    reported_ = now;
    tell(FlowWatcher::Wants::Flows, write_flows(wall, table_.rows(now, kShownFlows), table_.totals(), since, names));
}

void FlowWatch::tell(FlowWatcher::Wants wants, const std::string& line) {
    for (const auto& watcher : watchers_)
        if (watcher->wants == wants) add_line(*watcher, line);
}

} // namespace tailrace
