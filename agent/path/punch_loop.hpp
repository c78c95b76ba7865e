// agent/path/punch_loop.hpp - opens sockets, sends probes and moves ports as the HolePuncher wishes.
#pragma once
#include "agent/path/disco_loop.hpp"
#include "agent/path/hole_puncher.hpp"
#include "agent/path/punch_sockets.hpp"

#include <functional>
#include <map>
#include <memory>

namespace tailrace {

class PunchLoop {
public:
    /// What WireGuard sends to these leaves from these ports, and no others do (dataplane/steering.hpp, PortMove).
    using MovePorts = std::function<Result<void>(const std::map<Endpoint, std::uint16_t>&)>;

    /// What probes have found, to be given to the next agent's adopt().
    using KeepFound = std::function<void(const std::map<NodeKey, Endpoint>&)>;

    PunchLoop(Reactor& reactor, DiscoLoop& disco, std::uint16_t wireguard_port, std::uint32_t mark,
              MovePorts move_ports, KeepFound keep_found);
    ~PunchLoop();

    void set_self(HolePuncher::Self self);
    void keep_only(const std::set<NodeKey>& peers);
    void adopt(const std::map<Endpoint, std::uint16_t>& ports, const std::map<NodeKey, Endpoint>& found);
    void on_network_change();
    /// Called for each, so it does little.
    void on_relayed_packet(const NodeKey& peer);
    void on_message(const NodeKey& peer, const DiscoPunch& message);
    void on_heard(const NodeKey& peer, const Endpoint& from);

private:
    static Task<void> listen(std::shared_ptr<bool> alive, PunchLoop* loop, std::shared_ptr<PunchSockets> sockets);
    static Task<void> watch_errors(std::shared_ptr<bool> alive, PunchLoop* loop, std::shared_ptr<Descriptor> socket);
    void carry_out();
    void open(const PunchOpen& wish);
    void probe(const PunchProbe& wish);
    void move(const PunchMoves& wish);
    void take(PunchSockets& sockets, PunchSockets::Arrival arrival);
    void refuse(const std::string& why);
    bool works(const Endpoint& remote);

    Reactor& reactor_;
    DiscoLoop& disco_;
    std::uint16_t port_;
    std::uint32_t mark_;
    MovePorts move_ports_;
    KeepFound keep_found_;
    HolePuncher puncher_;
    Timer timer_;
    std::shared_ptr<PunchSockets> sockets_;
    std::map<std::uint16_t, Fd> held_;   ///< our ports that are moved; nobody reads them
    std::shared_ptr<Descriptor> errors_; ///< a raw ICMP socket, while we probe
    std::set<NodeKey> peers_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

} // namespace tailrace
