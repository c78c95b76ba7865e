// control/server/coordinator.hpp - the one writer of a tailnet and everything that waits for it: clients that register,
// map streams, the store, the policy, time.
#pragma once
#include "base/io/http2.hpp"
#include "base/io/reactor.hpp"
#include "control/config/config.hpp"
#include "control/map/composer.hpp"
#include "control/routes/home_regions.hpp"
#include "control/routes/route_watch.hpp"
#include "control/server/policy_input.hpp"
#include "control/store/journal.hpp"
#include "control/tailnet/tailnet_state.hpp"

#include <deque>
#include <memory>
#include <unordered_map>

namespace tailrace {

class Coordinator {
public:
    /// `policy_text` is the policy in force; it must have been checked.
    Coordinator(Reactor& reactor, ControlConfig config, std::unique_ptr<Store> store, StoredTailnet stored,
                std::shared_ptr<const Document> policy, MapComposer::Fixed fixed);
    ~Coordinator();

    Reactor& reactor() { return reactor_; }
    TailnetState& tailnet() { return tailnet_; }
    const ControlConfig& config() const { return config_; }

    /// Writes what has been decided, tells the streams, and returns when it is on disk.
    Task<Result<void>> commit();
    /// The same for an administrator's change: also wakes the machines that wait for approval.
    Task<Result<void>> commit_and_wake();

    Task<wire::RegisterResponse> register_machine(MachineKey machine, wire::RegisterRequest request,
                                                  std::shared_ptr<Http2Exchange> exchange);
    /// The node with this key on this machine; null otherwise.
    NodePtr authenticated(const MachineKey& machine, const NodeKey& key) const;
    /// Done when what the node said is on disk.
    Task<void> lite_update(NodeId id, wire::MapRequest request);
    /// Runs until the client leaves, a newer stream of the node begins or the node is gone.
    Task<void> stream_map(NodeId id, wire::MapRequest request, std::shared_ptr<Http2Exchange> exchange);
    /// One full map, nothing stored.
    Task<FramePieces> map_once(NodeId id, MapCompression compression);

    std::string policy_text() const { return *policy_->text; }
    /// Checks, stores and puts in force. Errors name line and column.
    Task<Result<void>> set_policy(std::string text);
    /// Reads policy_file again. What is not in order or breaks its own tests is refused as a whole, and said in the
    /// log.
    Task<void> reload_policy_file();
    /// The same settings with other ones for DNS: nodes are told.
    void set_dns(const DnsSettings& dns);
    /// What is wrong with it in view of this tailnet; its tests of those who are not in the tailnet say nothing.
    Result<void> check_policy_in_force();

    /// An answer to a question that went into a map stream.
    void on_answer(const MachineKey& machine, const std::string& token, const std::string& body);
    std::optional<RouteHealth::State> route_state(NodeId id) const { return route_watch_.state(id); }
    /// For whom a router of this route carries it: codes of regions and "others", or "everybody"; empty for a standby.
    std::vector<std::string> carries_for(NodeId id, const IpPrefix& route) const;
    /// Done when the policy in force knows everything that was decided before.
    Task<void> settled();

    /// Prometheus text.
    std::string metrics() const;
    bool healthy() const { return healthy_; }
    /// Ends all streams in an orderly way and writes what is still in memory.
    Task<void> stop();

private:
    struct MapStream {
        explicit MapStream(Reactor& reactor) : wake(reactor) {}
        MapViewer viewer;
        Event wake;
        bool over = false;
        std::deque<SharedText> questions; ///< frames for this client alone
        std::shared_ptr<Http2Exchange> exchange;
    };

    void publish(Changes changes);
    void tell(const NodeEvent& event);
    void tell_peers(NodeId id, NodeChange change);
    void wake(MapStream& stream);
    void wake_all();
    void flush_wakes();
    void policy_is_stale();
    Task<void> compile_policy();
    RouteWatch::Server route_watch_server();
    std::vector<NodeId> witnesses_of(NodeId router, std::size_t most) const;
    RouteHealth::Start start_of(const Node& node) const;
    RouterStandings router_standings() const;
    void settle_routes();
    bool approve_routes_by_policy();
    bool approve_hosts_by_policy();
    void ask_for_services(NodeId id);
    void ask_for_services_again();
    bool take_services(NodeId from, const std::string& token, const std::string& body);
    void put_question(NodeId to, const wire::PingRequest& question);
    bool note_primaries();
    bool note_regional();
    void note_region(const NodeEvent& event);
    std::shared_ptr<const RegionOfNode> regions();
    void follow_regions();
    void commit_later(const char* name);
    void arm_timer();
    void on_timer();
    Task<bool> write_pieces(std::shared_ptr<MapStream> stream, FramePieces pieces);
    void end_stream(const std::shared_ptr<MapStream>& stream);

    Reactor& reactor_;
    ControlConfig config_;
    std::shared_ptr<const Document> policy_; // before tailnet_, which asks it who owns a tag
    std::unique_ptr<Store> store_;
    TailnetState tailnet_;
    MapComposer composer_;
    std::unordered_map<NodeId, std::shared_ptr<MapStream>> streams_;
    std::vector<std::weak_ptr<MapStream>> to_wake_;
    bool flush_is_due_ = false;
    TimePoint last_flush_{};
    Timer flush_timer_;
    Timer tailnet_timer_;
    Timer report_timer_;
    bool report_timer_runs_ = false;
    Event policy_done_;
    Event registrations_; // somebody was approved
    bool policy_stale_ = false, compiling_ = false, stopping_ = false, healthy_ = true;
    Duration last_compile_{};
    TimePoint started_;
    RouteWatch route_watch_;
    struct ServicesQuestion {
        std::string token, hash; ///< asked because the node said that its services have this hash
        int times = 0;
    };
    std::map<NodeId, ServicesQuestion> services_asked_; ///< not answered yet
    Timer services_timer_;
    bool services_timer_runs_ = false;
    HomeRegions home_regions_; ///< with route_choice: region
    Timer region_timer_;
    bool has_rivals_ = false;             ///< several routers have the same route
    bool is_starting_ = true;             ///< nobody is watched yet
    std::map<NodeId, NodePtr> looked_at_; ///< for autoApprovers, under this policy:
    std::shared_ptr<const Document> looked_at_under_;
    std::uint64_t registrations_total_ = 0, streams_total_ = 0, frames_total_ = 0, compiles_total_ = 0;
    WorkerThread writer_; // before the journal that uses it
    Journal journal_;
};

} // namespace tailrace
