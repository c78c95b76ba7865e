// agent/path/paths.hpp - how peers are reached: direct addresses (PathBook, disco), relays, and what STUN says of our
// own network, put together.
#pragma once
#include "agent/path/disco_loop.hpp"
#include "agent/path/initiations.hpp"
#include "agent/path/net_report.hpp"
#include "agent/path/own_endpoints.hpp"
#include "agent/path/peer_relay_loop.hpp"
#include "agent/path/port_mapper.hpp"
#include "agent/path/punch_loop.hpp"
#include "agent/path/relay_servers.hpp"
#include "agent/peer_relay/peer_relay_server.hpp"
#include "agent/relay/derp_client.hpp"
#include "agent/relay/relay_port.hpp"
#include "netlink/wireguard.hpp"

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace tailrace {

class Paths {
public:
    /// Own endpoints older than this are measured again before a peer is told to try them.
    static constexpr auto kFreshEnough = std::chrono::seconds{27};
    /// ... where a direct path has just been lost: a NAT may have started over.
    static constexpr auto kFreshAfterLoss = std::chrono::seconds{3};

    struct Callbacks {
        std::function<void(const std::vector<UseEndpoint>&)> use_endpoints;
        std::function<void(const PingAnswered&)> ping_answered;
        /// The same of Paths::ask_via().
        std::function<void(const AnsweredVia&)> ping_answered_via;
        std::function<void(const NodeKey&)> path_works;
        /// Something authentic of a peer came from there.
        std::function<void(const Endpoint& from)> heard;
        /// own_endpoints(), report() or the home relay changed: control wants to know.
        std::function<void()> changed;
        PunchLoop::MovePorts move_ports;
        PunchLoop::KeepFound keep_found;
    };
    struct Options {
        std::uint16_t wireguard_port = 0;
        std::uint32_t mark = 0;
        /// What an earlier agent left in the device: relayed endpoints are given to the same peers again.
        std::optional<WireGuardState> device;
        pcp::Nonce mapping_nonce{}; ///< see PortMapping
        /// Where else WireGuard's port is reached, as the administrator says.
        std::vector<Endpoint> static_endpoints;
    };
    static Result<std::unique_ptr<Paths>> create(Reactor& reactor, DiscoPrivateKey key, Options options,
                                                 Callbacks callbacks);
    ~Paths();

    DiscoLoop& disco() { return *disco_; }
    PathBook& book() { return disco_->book(); }
    void carry_out() { disco_->carry_out(); }

    void set_identity(const NodePrivateKey& node);
    void set_derp_map(const wire::DerpMap& map);
    void set_peers(std::vector<PathBook::Peer> peers);
    /// Peers that do not know how, and all of them when it is forbidden, are reached otherwise from now on.
    void set_relay_servers(RelayServers servers);
    /// How this node relays UDP for others.
    struct PeerRelaying {
        std::optional<std::uint16_t> port; ///< 0: any; empty: it does not
        std::vector<Endpoint> named;       ///< where else this port is reached, as its owner says
        std::set<NodeKey> clients;         ///< who may ask
    };
    /// Fails when the port is not to be had; then it does not relay, and tries when it is called again.
    Result<void> set_peer_relaying(PeerRelaying wanted);
    const PeerRelayServer* peer_relay_server() const { return relay_server_.get(); }
    /// Our interfaces' addresses, with the port: what is tried on a LAN.
    void set_local_endpoints(std::vector<Endpoint> local);
    void on_network_change();
    /// Addresses have come, and none has gone.
    void on_new_addresses();
    void on_routes_change();
    /// Switched off, the gateway is asked to forget what it forwards to us.
    void set_port_mapping(const PortMapping::Settings& settings) { mapper_.set_settings(settings); }
    bool has_port_mapping() const { return mapper_.external().has_value(); }
    /// Whether many mappings are opened or probed for want of a direct path (HolePuncher).
    void set_hard_nat_traversal(bool on);
    /// Nothing but TCP to port 443 leaves: no STUN, no direct path, no probing for hard NATs.
    void set_only_tcp(bool only);
    /// Paths in use are not pinged (PathBook::set_silent).
    void set_silent(bool silent);
    /// How large packets to peers may be is found out (PathBook::set_probing_sizes).
    void set_probing_sizes(bool on);
    /// How long paths outlive silence is found out (PathBook::set_probing_lifetime).
    void set_probing_lifetime(bool on);
    /// Host of the coordination server, asked for a captive portal where no relay can be.
    void set_control_host(std::string host) { control_host_ = std::move(host); }
    /// Ports that an earlier agent left moved, and the paths past hard NATs that its probes had found.
    void adopt_punched(const std::map<Endpoint, std::uint16_t>& ports, const std::map<NodeKey, Endpoint>& found) {
        punch_->adopt(ports, found);
    }
    /// A last step before the agent ends in good order.
    void park();

    const std::vector<OwnEndpoint>& own_endpoints() const { return own_; }
    const NetReport& report() const { return report_; }
    int home() const { return home_.home(); }
    /// While control is away the home relay stays as it is: nobody would learn of another.
    void set_control_connected(bool connected) { can_tell_home_ = connected; }
    bool is_relaying() const { return relays_.is_connected(home_.home()); }
    const DerpClient& relays() const { return relays_; }
    bool is_relayed(const Endpoint& endpoint) const { return port_->is_ours(endpoint); }
    /// How a peer is reached through a relay server of the tailnet.
    PeerRelays::State peer_relay(const NodeKey& peer) const { return peer_relays_->state(peer); }
    /// Pings a peer that way, if that is how it is reached; else 0.
    std::uint64_t ask_via(const NodeKey& peer);
    /// Some peer is talked to.
    bool anybody_active() const;
    /// A new measurement, waited for.
    Task<NetReport> measure();

private:
    Paths(Reactor& reactor, Options options, Callbacks callbacks);
    static Task<void> keep_measuring(std::shared_ptr<bool> alive, Paths* self);
    static Task<void> measure_now(std::shared_ptr<bool> alive, Paths* self);
    void want_measurement();
    void on_relay_changed(int region, bool connected);
    void copy_initiations();
    static Task<void> copy_initiations_later(std::shared_ptr<bool> alive, Paths* self);
    void update_relaying();
    Task<std::vector<NetCheck::Server>> servers();
    /// What else can be found out where no STUN server answers.
    static Task<NetReport> look_closer(std::shared_ptr<bool> alive, Paths* self, NetReport report);
    void take_report(NetReport report);
    void send_waiting_calls();
    void update_own();
    void ask_cloud();
    std::vector<IpAddress> local_addresses() const;
    void on_mapping_changed();
    void update_punch();
    void from_kernel(const NodeKey& to, const Bytes& datagram);
    /// A packet of WireGuard's that came otherwise than to its port.
    void arrived(const NodeKey& from, BytesView packet);
    bool from_relay(int region, const NodeKey& from, BytesView packet);
    void call(const NodeKey& to, const DiscoKey& disco);
    void on_relay_request(const NodeKey& from, const DiscoAllocateRequest& request);
    void update_relay_server();

    Reactor& reactor_;
    Options options_;
    Callbacks callbacks_;
    std::unique_ptr<DiscoLoop> disco_;
    std::unique_ptr<PunchLoop> punch_;
    std::unique_ptr<PeerRelayLoop> peer_relays_;
    PeerRelaying relaying_;
    std::unique_ptr<PeerRelayServer> relay_server_;
    bool hard_nat_traversal_ = true, only_tcp_ = false;
    std::string control_host_;
    std::unique_ptr<RelayPort> port_;
    DerpClient relays_;
    PortMapper mapper_;
    wire::DerpMap map_;
    NodeKey self_;
    std::map<NodeKey, int> home_of_;
    Initiations initiations_;
    std::map<NodeKey, DiscoKey> waiting_calls_; ///< until our endpoints are fresh

    std::vector<Endpoint> local_;
    std::vector<OwnEndpoint> own_;
    EndpointMemory seen_;
    bool in_cloud_ = false, asking_cloud_ = false;
    std::vector<IpAddress> cloud_; ///< what it said last
    NetReport report_;
    HomeChooser home_;
    std::optional<NetCheck> check_;
    std::optional<TimePoint> measured_;
    bool measuring_ = false, measure_again_ = false;
    bool look_closer_ = true; ///< with the next measurement, for something changed or somebody asks
    std::optional<TimePoint> looked_closer_;
    bool measure_fully_ = true; ///< every region, not only those near
    std::optional<TimePoint> measured_fully_;
    bool can_tell_home_ = false; ///< control hears of another home relay
    bool relay_failed_ = false;  ///< the home relay cannot be reached; else we believe that it can
    Event measured_event_, measure_wanted_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

} // namespace tailrace
