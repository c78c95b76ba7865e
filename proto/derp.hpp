// proto/derp.hpp - what clients and relays say to each other: sealed packets addressed by node key
// (derp-disco-paths.md 1.5). Source: tailscale derp/derp.go.
//
// A frame is u8 type | be32 length of the payload | payload. Payload functions here neither write nor expect the
// header; write_frame() puts one in front.
#pragma once
#include "base/bytes.hpp"
#include "base/net.hpp"
#include "base/random.hpp"
#include "base/secret.hpp"
#include "proto/keys.hpp"

#include <optional>
#include <string>
#include <string_view>

namespace tailrace::derp {

constexpr std::size_t kHeaderSize = 5;
constexpr std::size_t kMaxPacket = 64 * 1024;          ///< of a packet, without keys
constexpr std::size_t kMaxClientInfo = 256 * 1024;     ///< what a server reads of one
constexpr std::size_t kMaxReceivedFrame = 1024 * 1024; ///< what a client reads of any frame
constexpr std::size_t kPingSize = 8, kMaxPing = 1000;
constexpr int kVersion = 2;

enum class FrameType : std::uint8_t {
    ServerKey = 0x01,
    ClientInfo = 0x02,
    ServerInfo = 0x03,
    SendPacket = 0x04,
    RecvPacket = 0x05,
    KeepAlive = 0x06,
    NotePreferred = 0x07,
    PeerGone = 0x08,
    PeerPresent = 0x09,
    ForwardPacket = 0x0a,
    WatchConns = 0x10,
    ClosePeer = 0x11,
    Ping = 0x12,
    Pong = 0x13,
    Health = 0x14,
    Restarting = 0x15,
};

struct FrameHeader {
    FrameType type{};
    std::uint32_t length = 0;
};
FrameHeader read_header(std::span<const std::byte, kHeaderSize> from);
void write_header(std::span<std::byte, kHeaderSize> into, FrameType type, std::size_t length);
Bytes write_frame(FrameType type, BytesView payload);

// -- login

/// Magic and key. More may follow in later versions.
Bytes write_server_key(const NodeKey& key);
Result<NodeKey> parse_server_key(BytesView payload);

/// Of a request to a relay that is reached through another server of ours, on a Unix socket: "192.0.2.7:40000".
constexpr std::string_view kClientField = "Tailrace-Client";

/// The common name of the last certificate that a relay shows in TLS: clients know its key before a byte of DERP. The
/// serial number is the version of the protocol (derp-disco-paths.md 1.2).
constexpr std::string_view kKeyNamePrefix = "derpkey";
std::string name_of_key(const NodeKey& key);

using MeshKey = Secret<32>;
/// 64 hex digits of either case.
Result<MeshKey> parse_mesh_key(std::string_view text);

struct ClientInfo {
    std::optional<MeshKey> mesh_key;
    int version = 0; ///< 0: not said; not checked by anybody
    bool can_ack_pings = false;
    bool is_prober = false;
    std::string app_name;
};
using Nonce = std::array<std::byte, 24>;

/// The key in front of a ClientInfo, which is not proven before the box opens. The zero key is an error.
Result<NodeKey> parse_client_key(BytesView payload);
Result<ClientInfo> open_client_info(BytesView payload, const NodePrivateKey& server);
Bytes seal_client_info(const ClientInfo& info, const NodePrivateKey& client, const NodeKey& server,
                       const Nonce& nonce = random_array<24>());

struct ServerInfo {
    int version = kVersion;
    std::int64_t bytes_per_second = 0; ///< of the token bucket that the client shall keep; 0: none
    std::int64_t bytes_burst = 0;
};
Result<ServerInfo> open_server_info(BytesView payload, const NodePrivateKey& client, const NodeKey& server);
Bytes seal_server_info(const ServerInfo& info, const NodePrivateKey& server, const NodeKey& client,
                       const Nonce& nonce = random_array<24>());

// -- traffic. The views point into the payload.

/// SendPacket: the other side's key is the destination. RecvPacket: the source.
struct PacketView {
    NodeKey key;
    BytesView packet;
};
Result<PacketView> parse_packet(BytesView payload);
/// The whole frame, header included, into `out`, which has kHeaderSize + 32 + packet.size() bytes.
void write_packet_frame(std::span<std::byte> out, FrameType type, const NodeKey& key, BytesView packet);

/// ForwardPacket: one relay of a region to another.
struct ForwardView {
    NodeKey from, to;
    BytesView packet;
};
Result<ForwardView> parse_forward(BytesView payload);
void write_forward_frame(std::span<std::byte> out, const NodeKey& from, const NodeKey& to, BytesView packet);

/// True for disco as a relay sees it: a whole disco header is there.
bool looks_like_disco(BytesView packet);

// -- notices

Result<bool> parse_note_preferred(BytesView payload); ///< true: this region is the sender's home
Bytes write_note_preferred(bool home);

enum class GoneReason : std::uint8_t { Disconnected = 0, NotHere = 1 };
struct PeerGone {
    NodeKey key;
    GoneReason reason = GoneReason::Disconnected; ///< reasons that we do not know read as they are
    bool operator==(const PeerGone&) const = default;
};
Result<PeerGone> parse_peer_gone(BytesView payload);
Bytes write_peer_gone(const PeerGone& gone);

/// Flags of PeerPresent.
constexpr std::uint8_t kPresentRegular = 1, kPresentMesh = 2, kPresentProber = 4, kPresentNotIdeal = 8;
struct PeerPresent {
    NodeKey key;
    Endpoint from;
    std::uint8_t flags = 0; ///< kPresentRegular only when there is no other
    bool operator==(const PeerPresent&) const = default;
};
Result<PeerPresent> parse_peer_present(BytesView payload); ///< 32, 50 and 51 or more bytes are known forms
Bytes write_peer_present(const PeerPresent& present);

Result<NodeKey> parse_close_peer(BytesView payload);

using PingData = std::array<std::byte, kPingSize>;
Result<PingData> parse_ping(BytesView payload); ///< of a Ping or a Pong

struct Restarting {
    std::uint32_t reconnect_in_ms = 0;
    std::uint32_t try_for_ms = 0;
    bool operator==(const Restarting&) const = default;
};
Result<Restarting> parse_restarting(BytesView payload);
Bytes write_restarting(const Restarting& restarting);

} // namespace tailrace::derp
