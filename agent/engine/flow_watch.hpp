// agent/engine/flow_watch.hpp - lets people watch flows and drops as they happen.
#pragma once
#include "agent/engine/flow_report.hpp"
#include "base/io/reactor.hpp"

#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace tailrace {

class PacketFilter;

/// Lines for one client, until they are written. What does not fit is left out and counted.
struct FlowWatcher {
    enum class Wants { Flows, Drops };
    static constexpr std::size_t kDepth = 512;
    FlowWatcher(Reactor& reactor, Wants what) : wants(what), wake(reactor) {}
    const Wants wants;
    std::deque<std::string> lines;
    std::uint64_t lost = 0; ///< lines that found no room
    Event wake;
};

/// Has the packet programs tell while there is a watcher, and not a moment longer than their lease otherwise. It looks
/// every kLookEvery and takes at most kEventsALook then: what a flood can make it do is bounded, and the rest is
/// counted as lost by the programs.
class FlowWatch {
public:
    static constexpr auto kLookEvery = std::chrono::milliseconds{250};
    static constexpr int kLooksAReport = 4;
    static constexpr auto kLease = std::chrono::seconds{3};
    static constexpr std::size_t kEventsALook = 2048, kShownFlows = 200, kMostWatchers = 16;
    static constexpr int kNearRulesALook = 10; ///< to look for near misses takes as long as there are rules

    struct Surroundings {
        std::function<PacketFilter*()> filter; ///< null while there is none
        std::function<std::string(const IpAddress&)> peer_name;
        std::function<std::vector<std::string>(const IpAddress&)> caps; ///< of the machine with that address
        std::function<std::vector<KnownRule>()> rules;
    };
    FlowWatch(Reactor& reactor, Surroundings surroundings);
    ~FlowWatch();

    /// An error when too many watch. It ends when the caller gives its reference away, at the next line at the latest.
    Result<std::shared_ptr<FlowWatcher>> watch(FlowWatcher::Wants wants);

    /// Who left is counted until the next look.
    std::size_t watchers() const { return watchers_.size(); }

private:
    static Task<void> run(std::shared_ptr<bool> alive, FlowWatch* self);
    void forget_those_who_left();
    bool anybody(FlowWatcher::Wants wants) const;
    /// Forgets what was told before anybody wanted to know, by this watch or by an agent that died in one.
    static void discard(PacketFilter& filter);
    void look(PacketFilter& filter, bool report);
    void tell(FlowWatcher::Wants wants, const std::string& line);

    Reactor& reactor_;
    Surroundings surroundings_;
    std::set<std::shared_ptr<FlowWatcher>> watchers_;
    bool running_ = false;
    bool counting_ = false; ///< what flows move is counted, since reported_
    FlowTable table_;
    TimePoint reported_{};
    std::optional<WatchTally> begun_; ///< what it was at the first look
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

} // namespace tailrace
