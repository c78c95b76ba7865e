// agent/path/peer_relay_loop.hpp - carries what PeerRelays wishes to relay servers and peers, and what they answer
// back.
#pragma once
#include "agent/path/disco_loop.hpp"
#include "agent/path/peer_relays.hpp"
#include "proto/geneve.hpp"

#include <functional>

namespace tailrace {

class PeerRelayLoop {
public:
    struct Callbacks {
        /// WireGuard's packet of a peer, out of its Geneve.
        std::function<void(const NodeKey& from, BytesView packet)> arrived;
        std::function<void(const AnsweredVia&)> ping_answered;
        /// Something authentic came from there.
        std::function<void(const Endpoint& from)> heard;
    };
    PeerRelayLoop(Reactor& reactor, DiscoLoop& disco, Callbacks callbacks);

    void set_enabled(bool enabled);
    void set_peers(std::set<NodeKey> capable, std::vector<NodeKey> servers);
    void on_network_change();
    /// A packet of WireGuard's for a peer without direct path. False when no route is in force, or it is not to be had.
    bool send(const NodeKey& to, BytesView datagram);
    /// Came over DERP.
    void on_message(const NodeKey& from, const DiscoMessage& message);
    /// Came to WireGuard's port.
    void on_geneve(const GenevePacket& packet, const Endpoint& from);
    std::uint64_t ask(const NodeKey& peer);
    PeerRelays::State state(const NodeKey& peer) const { return relays_.state(reactor_.now(), peer); }

private:
    void carry_out();
    void send_disco(const RelayRoute& to, const NodeKey& peer, const DiscoKey& key, const DiscoMessage& message);

    Reactor& reactor_;
    DiscoLoop& disco_;
    Callbacks callbacks_;
    PeerRelays relays_;
    Timer timer_;
};

} // namespace tailrace
