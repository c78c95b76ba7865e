// agent/peer_relay/peer_relay_server.hpp - relays UDP for pairs of peers that no direct path joins: a port of its own,
// and what comes to it.
#pragma once
#include "agent/peer_relay/relay_sessions.hpp"
#include "base/io/socket.hpp"
#include "proto/geneve.hpp"
#include "proto/stun.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <vector>

namespace tailrace {

class PeerRelayServer {
public:
    /// STUN servers are asked so often where they see us: a NAT on the way keeps the port, and we hear when it moves.
    static constexpr auto kLookEvery = std::chrono::seconds{23};
    using StunServers = std::function<Task<std::vector<Endpoint>>()>;

    /// `port` 0: any but `avoid`. One address family may be missing.
    static Result<std::unique_ptr<PeerRelayServer>> open(Reactor& reactor, std::uint16_t port, std::uint32_t mark,
                                                         std::uint16_t avoid, StunServers stun_servers);
    ~PeerRelayServer();

    std::uint16_t port4() const { return v4_ ? v4_->local().port : 0; }
    std::uint16_t port6() const { return v6_ ? v6_->local().port : 0; }
    /// Of this host's interfaces, and those that its owner names.
    void set_addresses(std::vector<IpAddress> local, std::vector<Endpoint> named);

    /// The answer to a peer that the policy lets ask; empty: silence.
    std::optional<DiscoAllocateResponse> allocate(const DiscoAllocateRequest& request, const DiscoKey& asking);
    std::vector<Endpoint> addresses() const;
    std::vector<RelaySessions::State> sessions() const { return sessions_.states(); }
    struct Traffic {
        std::uint64_t packets = 0, bytes = 0; ///< Geneve's header included
    };
    /// What was forwarded from clients by IPv4 or IPv6 to clients by IPv4 or IPv6.
    const Traffic& forwarded(bool from_v6, bool to_v6) const { return forwarded_[from_v6][to_v6]; }

private:
    explicit PeerRelayServer(Reactor& reactor)
        : reactor_(reactor), sessions_(DiscoPrivateKey::generate()), tidy_(reactor) {}
    static Task<void> receive(std::shared_ptr<bool> alive, PeerRelayServer* self, UdpSocket* socket);
    static Task<void> keep_looking(std::shared_ptr<bool> alive, PeerRelayServer* self, StunServers servers);
    void look(const std::vector<Endpoint>& stun_servers);
    bool take(const UdpSocket& socket, Bytes& buffer);
    /// Datagrams of one client, each of `each` bytes but the last.
    void on_datagrams(BytesView data, std::size_t each, const RelayedPlace& from);
    void on_stun(BytesView datagram);
    void send(BytesView data, std::size_t each, const RelayedPlace& to);
    void tidy();

    Reactor& reactor_;
    RelaySessions sessions_;
    std::optional<UdpSocket> v4_, v6_;
    std::vector<IpAddress> local_;
    std::vector<Endpoint> named_;
    std::array<std::array<Traffic, 2>, 2> forwarded_{};
    std::set<stun::TxId> asked_;
    std::set<Endpoint> seen_, seen_now_; ///< by STUN servers: in the last look, and in this one
    Timer tidy_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

} // namespace tailrace
