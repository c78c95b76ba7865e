// proto/disco.hpp - path discovery packets: "does this path work?" (derp-disco-paths.md 3). Source: tailscale
// disco/disco.go.
#pragma once
#include "base/bytes.hpp"
#include "base/net.hpp"
#include "base/random.hpp"
#include "base/time.hpp"
#include "proto/keys.hpp"

#include <array>
#include <variant>
#include <vector>

namespace tailrace {

constexpr std::size_t kDiscoHeaderSize = 62; // magic, sender's key, nonce
using DiscoNonce = std::array<std::byte, 24>;
using DiscoTxId = std::array<std::byte, 12>;

struct DiscoPing {
    DiscoTxId tx_id{};
    NodeKey node_key;        ///< zero: not said
    std::size_t padding = 0; ///< zero bytes behind it; a MTU probe
    bool operator==(const DiscoPing&) const = default;
};

/// Padding with which a ping fills an IP packet of this size; 0 where it is larger without.
std::size_t disco_ping_padding(std::size_t packet_bytes, bool v6);
/// Size of the IP packet that carries a disco message of this size.
int disco_packet_bytes(int message_bytes, bool v6);
/// The largest ping that somebody may ask for. Source: tailscale wgengine/magicsock/endpoint.go, MaxDiscoPingSize.
inline constexpr int kLargestDiscoPing = 9000 - 20 - 8;

struct DiscoPong {
    DiscoTxId tx_id{};
    Endpoint seen_from; ///< where the ping came from; 127.3.3.40:<region> over a relay
    bool operator==(const DiscoPong&) const = default;
};

/// "Ping me at these now": over a relay only.
struct DiscoCallMeMaybe {
    std::vector<Endpoint> endpoints;
    bool operator==(const DiscoCallMeMaybe&) const = default;
};

/// How two tailrace nodes agree to find one of many mappings of a NAT that is hard (agent/path/hole_puncher.hpp). A
/// type of our own, over a relay only; reference clients ignore it silently, as every type that they do not know.
struct DiscoPunch {
    enum class Step : std::uint8_t {
        Ask = 1,    ///< hard side: will you look for me? `outside` has my address, its port is zero
        Ready = 2,  ///< easy side: yes; `outside` is where I am
        Go = 3,     ///< hard side: my mappings are open, look now
        Refuse = 4, ///< easy side: not now
        Stop = 5,   ///< either side: somebody on the way does not want this
    };
    Step step = Step::Ask;
    std::uint32_t run = 0; ///< which attempt, the hard side's choice
    Endpoint outside;      ///< of the sender; unset where it says nothing
    bool operator==(const DiscoPunch&) const = default;
};

/// What a relay server of the tailnet has set aside for two clients.
struct DiscoRelayEndpoint {
    DiscoKey server;                   ///< of its own, not the node's
    std::array<DiscoKey, 2> clients{}; ///< sorted
    std::uint64_t lamport_id = 0;      ///< the later of two of one server has the greater one
    std::uint32_t vni = 0;
    Duration bind_lifetime{};   ///< both have to be bound within
    Duration steady_lifetime{}; ///< after silence of that length it is gone
    std::vector<Endpoint> addresses;
    bool operator==(const DiscoRelayEndpoint&) const = default;
};

/// A client shows a relay server that it is where it says: in Geneve with the control bit.
struct DiscoRelayHandshake {
    enum class Step : std::uint8_t { Bind = 4, Challenge = 5, Answer = 6 };
    Step step = Step::Bind;
    std::uint32_t vni = 0;
    std::uint32_t generation = 0; ///< which attempt, the client's choice, not zero
    DiscoKey remote;              ///< the other client
    std::array<std::byte, 32> challenge{};
    bool operator==(const DiscoRelayHandshake&) const = default;
};

/// "Meet me at this relay server": over DERP only, from client to client.
struct DiscoCallMeMaybeVia {
    DiscoRelayEndpoint endpoint;
    bool operator==(const DiscoCallMeMaybeVia&) const = default;
};

/// Over DERP only, from a client to a relay server.
struct DiscoAllocateRequest {
    std::array<DiscoKey, 2> clients{}; ///< sorted
    std::uint32_t generation = 0;
    bool operator==(const DiscoAllocateRequest&) const = default;
};

struct DiscoAllocateResponse {
    std::uint32_t generation = 0;
    DiscoRelayEndpoint endpoint;
    bool operator==(const DiscoAllocateResponse&) const = default;
};

/// A type or version that this version does not know; to be ignored.
struct DiscoUnknown {
    std::uint8_t type = 0;
    bool operator==(const DiscoUnknown&) const = default;
};

using DiscoMessage = std::variant<DiscoPing, DiscoPong, DiscoCallMeMaybe, DiscoPunch, DiscoRelayHandshake,
                                  DiscoCallMeMaybeVia, DiscoAllocateRequest, DiscoAllocateResponse, DiscoUnknown>;

/// The plaintext of a packet: type, version, payload.
Bytes write_disco_message(const DiscoMessage& message);
Result<DiscoMessage> parse_disco_message(BytesView plaintext);

/// Whether a datagram is for disco: magic and a sender's key.
bool looks_like_disco(BytesView packet);
/// Who says to have sent it; only after looks_like_disco().
DiscoKey disco_sender(BytesView packet);

/// The shared secret of two disco keys, worked out once. NaCl box.
class DiscoBox {
public:
    static Result<DiscoBox> between(const DiscoPrivateKey& ours, const DiscoKey& theirs);

    /// A whole packet to the other side. `nonce` is for tests only.
    Bytes seal(const DiscoMessage& message, const DiscoNonce& nonce = random_array<24>()) const;
    /// A whole packet from the other side. Fails when it does not open.
    Result<DiscoMessage> open(BytesView packet) const;

private:
    DiscoBox(const DiscoKey& sender, const Secret<32>& shared) : sender_(sender), shared_(shared) {}
    DiscoKey sender_;
    Secret<32> shared_;
};

} // namespace tailrace
