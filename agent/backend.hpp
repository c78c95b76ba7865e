// agent/backend.hpp - what the agent is and does: preferences, login, netmap, engine, and everybody who watches.
#pragma once
#include "agent/app_connector/app_connector.hpp"
#include "agent/coordination/control_client.hpp"
#include "agent/coordination/hostinfo.hpp"
#include "agent/dns/service.hpp"
#include "agent/engine/engine.hpp"
#include "agent/engine/flow_watch.hpp"
#include "agent/exit_node/choice.hpp"
#include "agent/exit_node/silence_watch.hpp"
#include "agent/local/status.hpp"
#include "agent/path/inner_ping.hpp"
#include "agent/path/look_pace.hpp"
#include "agent/path/own_endpoints.hpp"
#include "agent/path/path_traffic.hpp"
#include "agent/path/paths.hpp"
#include "agent/path/sleep_watch.hpp"
#include "agent/peerapi/peer_api.hpp"
#include "agent/store/prefs.hpp"
#include "agent/store/state_file.hpp"
#include "base/token_bucket.hpp"
#include "netlink/monitor.hpp"
#include "proto/netmap.hpp"

#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

class PrometheusText;

struct BackendOptions {
    std::string state_dir;
    EngineOptions engine;
    bool port_mapping = true;               ///< ask the gateway to forward our port
    std::vector<Endpoint> static_endpoints; ///< where else our port is reached
    std::optional<bool> probe_path_mtu;     ///< none: as control says
    std::string resolv_conf = kResolvConf;
};

ResolvConf resolv_conf_of(const BackendOptions& options);

/// One watcher of the bus: lines wait here until they are written.
struct BusWatcher {
    explicit BusWatcher(Reactor& reactor) : wake(reactor) {}
    static constexpr std::size_t kDepth = 128;
    std::list<std::string> lines;
    bool fell_behind = false;
    Event wake;
};

/// Disco messages that wait until they are written; what does not fit is counted.
struct DiscoCapture {
    explicit DiscoCapture(Reactor& reactor) : wake(reactor) {}
    static constexpr std::size_t kDepth = 1024;
    std::list<std::string> lines;
    std::uint64_t lost = 0;
    Event wake;
};

class Backend final : public ControlEvents {
public:
    /// Reads the state; a damaged file is kept aside and is an error.
    static Result<std::unique_ptr<Backend>> create(Reactor& reactor, BackendOptions options);
    ~Backend() override;
    /// The first thing that start() does. Alone it is for the boot.
    Result<void> close_before_start(const Prefs& prefs) { return close_past_tunnel(prefs); }
    /// Takes up what the preferences ask for.
    void start();
    /// Before an orderly end, by a router or a host of services: control leaves them with it for a moment.
    Task<void> announce_restart();
    /// Ends the conversation with control; traffic stays as it is.
    void stop();
    /// Before the process ends: relayed peers go where they can do without us.
    void park();
    /// Takes back everything that is in the kernel, and keeps the preferences for the next start.
    Task<Result<void>> take_down();
    /// Once running is wanted no more: until nothing of ours is in the kernel, or running is wanted again. Waits 10 s
    /// at most.
    Task<Result<void>> wait_until_down();
    /// What is wrong with the configuration file, for health; "" for nothing.
    void set_config_trouble(std::string text) { config_trouble_ = std::move(text); }

    BackendState state() const { return state_; }
    const Prefs& prefs() const { return prefs_; }
    Status status(bool with_peers);
    std::vector<std::string> health();
    const Netmap& netmap() const { return netmap_; }
    std::string netmap_json() const;
    /// The rules in force, with what each let in.
    std::string filter_json();
    /// How each peer is reached, or one.
    std::string paths_json(const std::optional<NodeKey>& only);
    /// Whom this node relays UDP for.
    std::string peer_relay_sessions_json();
    std::string drops_json() { return engine_.drops_json(); }
    Result<std::string> explain_json(const PacketQuestion& question);
    /// See FlowWatch::watch().
    Result<std::shared_ptr<FlowWatcher>> watch_packets(FlowWatcher::Wants wants) { return flow_watch_.watch(wants); }
    /// For Prometheus.
    std::string metrics_text();

    /// With the routes of the app connector, where we are one.
    Result<void> edit_prefs(Prefs wanted);
    /// Somebody chooses the routes by hand: those that names have led to count no more.
    void forget_learned_routes();
    /// What the app connector offers, and for which names.
    std::string app_connector_routes_json() const { return write_app_connector_routes(connector_.routes()); }
    Result<void> start_with(Prefs wanted, std::string auth_key);
    Result<void> login_interactive();
    /// We are out in any case; an error says what remains to be done.
    Task<Result<void>> logout();
    Task<PingResult> ping(std::string address, std::string type, Duration timeout, int size_bytes);
    /// A new report on our network, as `tailrace netcheck` shows it. JSON.
    Task<Result<std::string>> netcheck();
    std::string derp_map_json() const { return wire::write_derp_map(netmap_.derp_map()); }
    /// JSON, or an error with code() 404.
    Result<std::string> whois(std::string_view address) const;

    /// Empty, or why the kernel does not pass on what comes for these routes.
    std::string check_ip_forwarding(std::vector<IpPrefix> routes);
    /// Empty, or how UDP would be forwarded faster.
    std::string check_udp_gro_forwarding();
    /// What --accept-routes would do to this host, were it given, without or with --routes-over-lan. Sentences.
    std::vector<std::string> check_accept_routes(bool over_lan);
    /// {"ID","Name"} of the exit node that is best for us, empty ones when there is none.
    Result<std::string> suggest_exit_node_json();

    /// JSON as the reference client's: control's DNS settings, the host's, and an answer to one question.
    std::string dns_config_json() const;
    std::string dns_os_config_json() const;
    Task<Result<std::string>> dns_query_json(std::string name, std::string type);
    /// The host's own resolvers again. For the end of the process, and before its start.
    Result<void> restore_dns() { return restore_dns(prefs_); }
    Result<void> restore_dns(const Prefs& prefs) { return dns_.clear(reached_outside(prefs)); }

    std::shared_ptr<BusWatcher> watch(int mask);
    /// Every disco message from now on, a JSON object a line.
    std::shared_ptr<DiscoCapture> capture_disco();

    void on_login_url(const std::string& url) override;
    void on_logged_in(const NodePrivateKey& node_key, const NodePrivateKey& old_key,
                      const wire::RegisterResponse& answer) override;
    void on_login_refused(const std::string& text) override;
    void on_key_expired() override;
    void on_map_frame(wire::MapResponse frame) override;
    void on_connected(bool in_poll, const std::string& trouble) override;
    Task<wire::PingResponse> on_ping_wanted(std::string type, IpAddress address) override;
    std::string on_connector_routes_wanted() override;
    std::string on_services_wanted() override;

private:
    Backend(Reactor& reactor, BackendOptions options, StateFile state);
    Result<void> load();
    Result<void> save_prefs(const Prefs& prefs);
    void load_netmap();
    void save_netmap();
    void save_netmap_soon();
    std::string netmap_path() const;
    Result<ControlClient::Settings> control_settings() const;
    void connect(ControlClient::Login how, std::string auth_key);
    Task<Result<void>> tell_control_of_logout();
    void set_state(BackendState state);
    void publish(const std::string& notify);
    void publish_error(const std::string& text);
    void update_state();
    void wake_engine() { engine_wake_.notify(); }
    SelfReport report();
    void update_report();
    void refresh_endpoints();
    void refresh_endpoints_soon();
    /// If the way to the internet is another one, paths, relays and control are tried anew; several events at once are
    /// one change.
    void on_network_change_soon();
    void on_network_change();
    /// By which interface, gateway and address we reach the internet, both families.
    std::string way_out();
    static constexpr std::string_view kNoWayOut = "none, none"; ///< no family has one
    void look_for_sleep();
    bool must_read_device() const;
    void give_memory_back();
    static constexpr auto kLeastRetry = std::chrono::milliseconds{500};
    static constexpr std::size_t kSmallTailnet = 64; ///< peers; in a larger one what nobody needs is not done for all
    Result<std::vector<HostNetwork>> host_networks();
    std::vector<HostNetwork> host_networks_in(const std::vector<Link>& links) const;
    ExitNodeQuestion exit_node_question() const;
    /// The preferences follow who the exit node is, by address or by `auto:any`.
    void follow_exit_node();
    /// While an exit node is chosen and we shall run, nothing leaves past the tunnel, whatever is still missing.
    Result<void> close_past_tunnel(const Prefs& prefs);
    /// Networks that are reached past the exit node, others than our own loopback.
    std::vector<IpPrefix> reached_outside(const Prefs& prefs);
    bool is_closed(const Prefs& prefs) const { return prefs.want_running && uses_exit_node(prefs); }
    void add_route_health(std::vector<std::string>& out);
    /// By what WireGuard has counted.
    void look_at_exit_node(TimePoint now);
    std::string connector_key() const; ///< where the state has its routes
    void load_connector();
    void save_connector();
    /// `prefs` as they are with what the netmap wants of an app connector and what it has learned.
    Prefs with_connector_routes(Prefs prefs);
    void follow_connector();
    EngineConfig engine_config(const std::vector<HostNetwork>& networks);
    /// Of something that is watched or made beside the engine: whether it went well, logged when it changes.
    bool note_watch(std::string_view what, const Result<void>& outcome);
    Task<void> follow_network(std::shared_ptr<bool> alive);
    Task<void> follow_nftables(std::shared_ptr<bool> alive);
    void ensure_inner_ping();
    void wake_engine_later(Duration wait);
    /// Somebody took away what is ours. Whoever does it again and again does not keep us busy.
    void repair();
    PortMapping::Settings port_mapping_settings() const;
    void ensure_paths();
    void relay_for_peers();
    std::map<NodeKey, Endpoint> found_paths() const; ///< by an earlier agent, past hard NATs
    void shake_hands(const NodeKey& peer);
    std::optional<PeerApiCaller> peer_api_caller(const IpAddress& from);
    /// We are an exit node or an app connector, and the policy lets this peer ask a resolver in the internet.
    bool may_ask_names(const IpAddress& from);
    Task<Result<Bytes>> ask_names_for_peer(Bytes query);
    DnsResolver::Names dns_names() const;
    bool is_ours_to_ask(const IpAddress& from);
    void update_dns();
    Task<PingResult> ping_peer_api(PingResult result, NodeKey peer, Duration timeout);
    void tell_captures(const DiscoFrame& frame);
    void watch_disco_if_wanted();
    void announce_disco_key(const WireGuardPeerState& peer);
    /// Notices traffic and endpoints. Whoever reads the device passes what it read on to here.
    void take_device_state(WireGuardState state);
    void forget_gone_device();
    Task<void> run_engine();
    Task<void> run_monitor();
    Task<void> run_nft_watch();
    Task<void> run_poll();
    std::vector<KnownRule> policy_rules() const;
    std::string peer_of(const IpAddress& address) const;
    std::vector<std::string> caps_of(const IpAddress& address) const;
    FlowWatch::Surroundings flow_surroundings();
    void write_path_metrics(PrometheusText& out);
    PeerStatus peer_status(const wire::Node& node, bool is_self);

    Reactor& reactor_;
    BackendOptions options_;
    StateFile store_;
    Prefs prefs_;
    std::string profile_id_; ///< empty before the first login
    MachinePrivateKey machine_key_;
    NlPrivateKey lock_key_;
    wire::Hostinfo machine_info_;
    BackendState state_ = BackendState::NoState;
    std::string config_trouble_, auth_url_, login_trouble_, control_trouble_, engine_trouble_, engine_trouble_told_;
    /// By what the agent would do: watch the network, ... Each is tried again until it is possible.
    std::map<std::string_view, std::string> watch_troubles_;
    bool in_map_poll_ = false;
    TimePoint control_lost_{};

    Netmap netmap_;
    bool netmap_from_control_ = false; ///< else from the cache
    std::uint64_t filter_version_ = 1;
    std::array<std::byte, 32> last_filter_{}; ///< digest of what the filter is made of
    std::unique_ptr<ControlClient> control_;

    DiscoPrivateKey disco_key_ = DiscoPrivateKey::generate();
    Engine engine_;
    std::unique_ptr<Paths> paths_;
    std::unique_ptr<InnerPing> inner_ping_;
    PeerApi peer_api_;
    DnsService dns_;
    AppConnector connector_;
    AppConnectorRoutes connector_saved_; ///< what the state has of it
    std::string connector_trouble_;
    FlowWatch flow_watch_;
    PathTraffic path_traffic_;
    std::vector<Endpoint> endpoints_;   ///< of our interfaces
    std::vector<HostNetwork> attached_; ///< as the engine was told last
    TimePoint checked_{};               ///< when all was last seen to be as it should
    SleepWatch sleep_watch_;
    bool network_change_pending_ = false;
    LookPace look_pace_; ///< at the host's addresses
    TimePoint memory_given_back_{};
    TimePoint device_read_{};
    std::string way_out_; ///< as it was last
    Event engine_wake_;
    bool engine_down_ = false; ///< there is nothing of ours in the kernel
    Event engine_went_down_;
    bool engine_retry_pending_ = false;
    TokenBucket repairs_{2, 10, {}};
    bool repair_pending_ = false;
    bool engine_up_ = false; ///< what is in the kernel is as we want it
    int exit_node_home_ = 0; ///< our home relay's region when `auto:any` chose
    SilenceWatch exit_node_watch_;
    bool exit_node_is_silent_ = false;
    std::map<std::string, TimePoint> avoided_exit_nodes_; ///< by StableID, until when: they did not answer
    std::string suggested_exit_node_;
    bool firewall_touched_ = false; ///< somebody else's: our rules in it may be gone
    bool moves_adopted_ = false;    ///< ports that an earlier agent moved are known to paths_
    bool login_pending_ = false;    ///< somebody asked for a login that is not decided yet
    bool auth_key_does_it_ = false; ///< start_with() has begun one that needs nobody
    bool netmap_save_pending_ = false;
    std::string store_trouble_;
    WireGuardState wireguard_; ///< as read last
    int read_index_ = 0;       ///< of which device
    std::map<NodeKey, TimePoint> last_write_;
    std::map<NodeKey, WallTime> announced_; ///< the session over which a peer was told our disco key
    bool peers_know_us_ = false;            ///< they may have sessions with a device that we had before
    std::map<NodeKey, int> greeted_; ///< peers that got a first packet, so that there is a session; over which device

    struct PendingPing {
        explicit PendingPing(Reactor& reactor) : answered(reactor) {}
        Event answered;
        std::optional<PingAnswered> answer;
        std::optional<RelayRoute> via; ///< through a relay server
    };
    std::map<std::uint64_t, std::shared_ptr<PendingPing>> pending_pings_, pending_pings_via_;
    std::set<std::shared_ptr<BusWatcher>> watchers_;
    std::set<std::shared_ptr<DiscoCapture>> captures_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

} // namespace tailrace
