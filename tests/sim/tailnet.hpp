// tests/sim/tailnet.hpp - the cores of tailrace-control and of many agents, joined by the wires of sim/internet.hpp.
//
// Everything that decides is the real class; frames and disco packets are the real bytes. What a kernel does (WireGuard
// follows the source of what it receives) is one line each.
#pragma once
#include "agent/path/path_book.hpp"
#include "control/map/composer.hpp"
#include "control/tailnet/tailnet_state.hpp"
#include "proto/disco.hpp"
#include "proto/map_frame.hpp"
#include "proto/netmap.hpp"
#include "tests/sim/internet.hpp"

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

namespace tailrace::sim {

class Agent;

/// tailrace-control without disk and sockets: decisions, policy, and a stream to each agent. A stream has one message
/// under way; agents may be slow readers.
class Control {
public:
    explicit Control(World& world);

    void set_policy(const std::string& text);
    TailnetState& tailnet() { return tailnet_; }
    const MapComposer& composer() const { return composer_; }
    std::string auth_key(const std::string& user);

    wire::RegisterResponse on_register(const MachineKey& machine, const wire::RegisterRequest& request);
    void on_report(const wire::MapRequest& request);
    void open_stream(Agent& agent, const wire::MapRequest& request);
    void close_stream(NodeId id);
    /// Tells everybody what was decided since the last call.
    void publish();
    /// What a new stream of this node would get.
    wire::MapResponse whole_map(NodeId id);

private:
    struct Stream {
        Agent* agent = nullptr;
        MapViewer viewer;
        std::uint64_t number = 0;
        bool message_under_way = false;
    };
    void pump(NodeId id);
    void compile();

    World& world_;
    TailnetState tailnet_;
    MapComposer composer_;
    std::shared_ptr<const Document> policy_;
    std::map<NodeId, Stream> streams_;
    std::uint64_t last_stream_ = 0;
};

/// The relays of all regions, 1 and up, and the STUN server of the internet. TCP: nothing is lost on the way, and who
/// is connected learns of a relay's death.
class Relays {
public:
    using Receive = std::function<void(int region, const NodeKey& from, const Bytes& packet)>;

    Relays(World& world, Duration latency, int regions, Endpoint stun)
        : world_(world), latency_(latency), alive_(static_cast<std::size_t>(regions), true), stun_(stun) {}
    int regions() const { return static_cast<int>(alive_.size()); }
    bool is_alive(int region) const { return region >= 1 && region <= regions() && alive_[region - 1]; }
    void set_alive(int region, bool alive);
    const Endpoint& stun() const { return stun_; }
    /// Takes a client's packets from its home; `changed` is called when any relay dies or comes back.
    void connect(const NodeKey& key, int home, Receive receive, std::function<void()> changed) {
        clients_[key] = {home, std::move(receive), std::move(changed)};
    }
    void disconnect(const NodeKey& key) { clients_.erase(key); }
    void send(int region, const NodeKey& from, const NodeKey& to, Bytes packet);

private:
    struct Client {
        int home = 0;
        Receive receive;
        std::function<void()> changed;
    };
    World& world_;
    Duration latency_;
    std::vector<bool> alive_;
    Endpoint stun_;
    std::map<NodeKey, Client> clients_;
};

/// tailraced without kernel and sockets: keys, netmap, path book.
class Agent {
public:
    /// Without relays it also does without STUN: control tells of its own socket only.
    Agent(World& world, Internet& internet, Control& control, std::string hostname, Endpoint socket,
          Nat* behind = nullptr, Relays* relays = nullptr);

    /// The id that control gave it, or a failed test.
    NodeId join(const std::string& auth_key);
    void open_stream();
    void close_stream();
    /// Another socket from now on, as after a change of network.
    void move_to(const Endpoint& socket, Nat* behind = nullptr);
    /// The lid is closed: nothing is heard or sent, and no timer runs, until the lid is opened again.
    void sleep();
    void wake();
    bool is_asleep() const { return asleep_; }
    /// The program is killed: what the kernel does goes on. Then another one is started.
    void kill();
    void start();
    Nat* behind() const { return behind_; }
    void read_slowly(Duration time_a_message) { reading_time_ = time_a_message; }
    Duration reading_time() const { return reading_time_; }
    void on_frame(const std::string& bytes);

    /// A packet through the tunnel, if WireGuard has somewhere to send it.
    void send_packet(const Agent& to);
    std::size_t packets_from(const Agent& from) const;

    NodeId id() const { return id_; }
    const NodeKey& key() const { return key_; }
    const Endpoint& socket() const { return socket_; }
    const Netmap& netmap() const { return netmap_; }
    PathBook::State path_to(const Agent& peer) const { return book_.state(world_.now(), peer.key()); }
    bool is_direct_to(const Agent& peer) const { return path_to(peer).validated; }
    bool trusts_path_to(const Agent& peer) const { return path_to(peer).trusted; }

private:
    void attach();
    void report();
    void look_at_device();
    void measure();
    void keep_measuring();
    void choose_home();
    void call(const NodeKey& peer, const DiscoKey& disco);
    void receive(const Endpoint& from, const Bytes& datagram);
    void on_relayed(int region, const NodeKey& from, const Bytes& packet);
    void relay(const NodeKey& to, Bytes packet);
    void on_disco(const Endpoint& from, const NodeKey& relayed_from, const Bytes& datagram);
    Endpoint relayed_endpoint(NodeId id) const;
    void on_packet(const Endpoint& from, BytesView packet);
    void carry_out();
    const DiscoBox& box(const DiscoKey& peer);

    World& world_;
    Internet& internet_;
    Control& control_;
    std::string hostname_;
    Endpoint socket_;
    Nat* behind_;
    MachineKey machine_ = MachinePrivateKey::generate().public_key();
    NodeKey key_ = NodePrivateKey::generate().public_key();
    DiscoPrivateKey disco_ = DiscoPrivateKey::generate();
    NodeId id_ = 0;
    bool has_stream_ = false;
    Duration reading_time_{std::chrono::milliseconds{1}};
    Netmap netmap_;
    MapFrameReader reader_{MapCompression::Zstd};
    PathBook book_;
    std::optional<TimePoint> timer_;
    std::unordered_map<DiscoKey, DiscoBox> boxes_;
    std::map<NodeKey, Endpoint> kernel_; ///< where WireGuard sends each peer's packets
    std::map<NodeKey, std::size_t> received_;

    Relays* relays_;
    int home_ = 0;
    bool asleep_ = false;
    bool killed_ = false;
    bool adopts_ = false;     ///< what an earlier agent left in the kernel
    std::set<NodeKey> heard_; ///< since the last look at the device
    TimePoint looked_at_{};
    std::optional<Endpoint> outside_; ///< as STUN said last
    std::optional<TimePoint> measured_;
    std::map<NodeKey, DiscoKey> waiting_calls_;
};

} // namespace tailrace::sim
