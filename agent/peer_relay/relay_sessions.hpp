// agent/peer_relay/relay_sessions.hpp - pairs of clients for whom this node relays UDP, and what their packets may do.
// Pure. Source: tailscale net/udprelay/server.go (derp-disco-paths.md 4.14).
#pragma once
#include "base/net.hpp"
#include "base/time.hpp"
#include "proto/disco.hpp"

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <unordered_map>
#include <vector>

namespace tailrace {

/// Where a datagram came from, and to which of our addresses: the answer comes from there.
struct RelayedPlace {
    Endpoint client;
    IpAddress ours;
    bool operator==(const RelayedPlace&) const = default;
};

class RelaySessions {
public:
    static constexpr auto kBindLifetime = std::chrono::seconds{30};
    static constexpr auto kSteadyLifetime = std::chrono::minutes{5};
    static constexpr auto kSecretLifetime = std::chrono::minutes{2};
    static constexpr std::size_t kMostSessions = 65536;
    static constexpr std::size_t kMostUnbound = 256; ///< that one client asked for

    struct State {
        std::uint32_t vni = 0;
        struct Client {
            DiscoKey disco;
            std::optional<RelayedPlace> at;       ///< set once its handshake is complete
            std::uint64_t packets = 0, bytes = 0; ///< from it, Geneve's header included
        };
        std::array<Client, 2> clients;
    };

    explicit RelaySessions(DiscoPrivateKey key) : key_(std::move(key)), public_(key_.public_key()) {}

    /// A session of two clients, of whom `asking` is one; the same again while it lasts. Its addresses are for the
    /// caller to fill in. Empty: not for these, or there are too many already.
    std::optional<DiscoRelayEndpoint> allocate(TimePoint now, const DiscoAllocateRequest& request,
                                               const DiscoKey& asking);
    /// A handshake message of a client. Returns the answer to send back, without Geneve; empty: silence.
    Bytes on_control(TimePoint now, std::uint32_t vni, BytesView disco, const RelayedPlace& from);
    /// Packets of a client. Returns the other client's place; empty: they are not forwarded.
    std::optional<RelayedPlace> on_data(TimePoint now, std::uint32_t vni, const RelayedPlace& from, std::size_t packets,
                                        std::size_t bytes);
    /// Forgets what was not bound in time, and what has been silent for too long.
    void expire(TimePoint now);

    bool empty() const { return sessions_.empty(); }
    std::vector<State> states() const;

private:
    struct Session : State {
        std::uint64_t lamport_id = 0;
        TimePoint allocated;
        DiscoKey asked_by;
        std::array<std::uint32_t, 2> generation{}; ///< of the handshake under way, 0: none
        std::array<TimePoint, 2> seen{};
        bool is_bound() const { return clients[0].at && clients[1].at; }
    };
    using Pair = std::array<DiscoKey, 2>;
    using Challenge = std::array<std::byte, 32>;

    const Secret<32>& secret(TimePoint now);
    static Challenge challenge(const Secret<32>& secret, const DiscoRelayHandshake& message, const RelayedPlace& from);
    bool is_fresh(const DiscoRelayHandshake& answer, const RelayedPlace& from) const;

    DiscoPrivateKey key_;
    DiscoKey public_;
    std::unordered_map<std::uint32_t, Session> sessions_; ///< by VNI
    std::map<Pair, std::uint32_t> by_clients_;
    std::uint32_t last_vni_ = 0;
    std::uint64_t last_lamport_ = 0;
    std::optional<Secret<32>> secret_, former_secret_;
    TimePoint secret_made_;
};

} // namespace tailrace
