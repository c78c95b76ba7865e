#include "proto/derp.hpp"

#include "base/json/json.hpp"
#include "base/text.hpp"

#include <sodium.h>

#include <algorithm>

namespace tailrace::derp {
namespace {

// "DERP" and a key, U+1F511.
constexpr std::array<unsigned char, 8> kMagic = {0x44, 0x45, 0x52, 0x50, 0xf0, 0x9f, 0x94, 0x91};
constexpr std::array<unsigned char, 6> kDiscoMagic = {0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac};
constexpr std::size_t kDiscoHeaderSize = 62; // magic, key, nonce
constexpr std::size_t kBoxOverhead = crypto_box_NONCEBYTES + crypto_box_MACBYTES;

struct ClientInfoJson {
    std::string mesh_key;
    int version = 0;
    bool can_ack_pings = false;
    bool is_prober = false;
    std::string app_name;
};

Bytes seal(BytesView plaintext, const NodePrivateKey& from, const NodeKey& to, const Nonce& nonce) {
    Bytes box(kBoxOverhead + plaintext.size());
    std::copy(nonce.begin(), nonce.end(), box.begin());
    int done = crypto_box_easy(reinterpret_cast<unsigned char*>(box.data() + nonce.size()), as_uchars(plaintext),
                               plaintext.size(), as_uchars(nonce), to.data(), from.data());
    if (done != 0) return {}; // a key of low order; nobody can open an empty box either
    return box;
}

Result<std::string> open(BytesView box, const NodeKey& from, const NodePrivateKey& to, std::string_view what) {
    if (box.size() < kBoxOverhead) return Error::make("{}: a box of {} bytes", what, box.size());
    std::string plaintext(box.size() - kBoxOverhead, '\0');
    BytesView sealed = box.subspan(crypto_box_NONCEBYTES);
    if (crypto_box_open_easy(reinterpret_cast<unsigned char*>(plaintext.data()), as_uchars(sealed), sealed.size(),
                             as_uchars(box), from.data(), to.data()) != 0)
        return Error::make("{}: the box does not open", what);
    return plaintext;
}

template <typename T>
Result<T> parse_object(std::string_view text, std::string_view what) {
    auto value = json::parse_value(text);
    if (!value) return value.error().with("{}", what);
    if (!value->is_object()) return Error::make("{}: not a JSON object", what);
    T out;
    if (auto done = json::read(*value, out); !done) return done.error().with("{}", what);
    return out;
}

void put(std::span<std::byte> out, std::size_t& at, BytesView data) {
    if (!data.empty()) std::memcpy(out.data() + at, data.data(), data.size());
    at += data.size();
}

} // namespace
} // namespace tailrace::derp

template <>
struct tailrace::JsonFields<tailrace::derp::ClientInfoJson> {
    using S = tailrace::derp::ClientInfoJson;
    static constexpr auto fields =
        field_table(field("meshKey", &S::mesh_key, Omit::Empty), field("version", &S::version, Omit::Empty),
                    field("CanAckPings", &S::can_ack_pings), field("IsProber", &S::is_prober, Omit::Empty),
                    field("AppName", &S::app_name, Omit::Empty));
};
template <>
struct tailrace::JsonFields<tailrace::derp::ServerInfo> {
    using S = tailrace::derp::ServerInfo;
    static constexpr auto fields = field_table(field("version", &S::version, Omit::Empty),
                                               field("TokenBucketBytesPerSecond", &S::bytes_per_second, Omit::Empty),
                                               field("TokenBucketBytesBurst", &S::bytes_burst, Omit::Empty));
};

namespace tailrace::derp {

FrameHeader read_header(std::span<const std::byte, kHeaderSize> from) {
    Reader in{from};
    auto type = static_cast<FrameType>(in.u8());
    return {type, in.be32()};
}

void write_header(std::span<std::byte, kHeaderSize> into, FrameType type, std::size_t length) {
    into[0] = static_cast<std::byte>(type);
    for (std::size_t i = 1; i < kHeaderSize; ++i) into[i] = static_cast<std::byte>(length >> (8 * (4 - i)));
}

Bytes write_frame(FrameType type, BytesView payload) {
    Bytes out(kHeaderSize);
    write_header(std::span{out}.first<kHeaderSize>(), type, payload.size());
    out.insert(out.end(), payload.begin(), payload.end());
    return out;
}

// -- login

std::string name_of_key(const NodeKey& key) {
    return std::string{kKeyNamePrefix} + hex_encode(key.view());
}

Bytes write_server_key(const NodeKey& key) {
    Writer out;
    out.bytes(std::as_bytes(std::span{kMagic}));
    out.bytes(key.view());
    return out.take();
}

Result<NodeKey> parse_server_key(BytesView payload) {
    Reader in{payload};
    auto magic = in.array<kMagic.size()>();
    NodeKey key{in.array<NodeKey::kSize>()};
    if (!in.ok()) return in.error("DERP server key");
    if (std::memcmp(magic.data(), kMagic.data(), kMagic.size()) != 0)
        return Error::make("DERP server key: it does not begin with the magic of the protocol");
    return key;
}

Result<MeshKey> parse_mesh_key(std::string_view text) {
    auto raw = hex_decode(text);
    if (!raw || raw->size() != MeshKey::kSize) return Error::make("a mesh key is 64 hex digits");
    MeshKey key;
    std::copy(raw->begin(), raw->end(), key.mutable_view().begin());
    sodium_memzero(raw->data(), raw->size());
    return key;
}

Result<NodeKey> parse_client_key(BytesView payload) {
    Reader in{payload};
    NodeKey key{in.array<NodeKey::kSize>()};
    if (!in.ok()) return in.error("DERP client info");
    if (key.is_zero()) return Error::make("DERP client info: the key is zero");
    return key;
}

Result<ClientInfo> open_client_info(BytesView payload, const NodePrivateKey& server) {
    constexpr std::string_view kWhat = "DERP client info";
    auto key = parse_client_key(payload);
    if (!key) return key.error();
    auto text = open(payload.subspan(NodeKey::kSize), *key, server, kWhat);
    if (!text) return text.error();
    auto read = parse_object<ClientInfoJson>(*text, kWhat);
    sodium_memzero(text->data(), text->size());
    if (!read) return read.error();
    ClientInfo info{{}, read->version, read->can_ack_pings, read->is_prober, std::move(read->app_name)};
    if (!read->mesh_key.empty()) {
        auto mesh = parse_mesh_key(read->mesh_key);
        sodium_memzero(read->mesh_key.data(), read->mesh_key.size());
        if (!mesh) return mesh.error().with("{}", kWhat);
        info.mesh_key = *mesh;
    }
    return info;
}

Bytes seal_client_info(const ClientInfo& info, const NodePrivateKey& client, const NodeKey& server,
                       const Nonce& nonce) {
    ClientInfoJson out{{}, info.version, info.can_ack_pings, info.is_prober, info.app_name};
    if (info.mesh_key) out.mesh_key = hex_encode(info.mesh_key->view());
    std::string text = json::write(out);
    Bytes payload = to_bytes(client.public_key().view());
    Bytes box = seal(as_bytes(text), client, server, nonce);
    sodium_memzero(text.data(), text.size());
    payload.insert(payload.end(), box.begin(), box.end());
    return payload;
}

Result<ServerInfo> open_server_info(BytesView payload, const NodePrivateKey& client, const NodeKey& server) {
    auto text = open(payload, server, client, "DERP server info");
    if (!text) return text.error();
    return parse_object<ServerInfo>(*text, "DERP server info");
}

Bytes seal_server_info(const ServerInfo& info, const NodePrivateKey& server, const NodeKey& client,
                       const Nonce& nonce) {
    std::string text = json::write(info);
    return seal(as_bytes(text), server, client, nonce);
}

// -- traffic

Result<PacketView> parse_packet(BytesView payload) {
    Reader in{payload};
    PacketView view;
    view.key = NodeKey{in.array<NodeKey::kSize>()};
    if (!in.ok()) return in.error("DERP packet");
    view.packet = in.rest();
    if (view.packet.size() > kMaxPacket) return Error::make("DERP packet: {} bytes are too many", view.packet.size());
    return view;
}

void write_packet_frame(std::span<std::byte> out, FrameType type, const NodeKey& key, BytesView packet) {
    write_header(out.first<kHeaderSize>(), type, NodeKey::kSize + packet.size());
    std::size_t at = kHeaderSize;
    put(out, at, key.view());
    put(out, at, packet);
}

Result<ForwardView> parse_forward(BytesView payload) {
    Reader in{payload};
    ForwardView view;
    view.from = NodeKey{in.array<NodeKey::kSize>()};
    view.to = NodeKey{in.array<NodeKey::kSize>()};
    if (!in.ok()) return in.error("DERP forward");
    view.packet = in.rest();
    if (view.packet.size() > kMaxPacket) return Error::make("DERP forward: {} bytes are too many", view.packet.size());
    return view;
}

void write_forward_frame(std::span<std::byte> out, const NodeKey& from, const NodeKey& to, BytesView packet) {
    write_header(out.first<kHeaderSize>(), FrameType::ForwardPacket, 2 * NodeKey::kSize + packet.size());
    std::size_t at = kHeaderSize;
    put(out, at, from.view());
    put(out, at, to.view());
    put(out, at, packet);
}

bool looks_like_disco(BytesView packet) {
    return packet.size() >= kDiscoHeaderSize && std::memcmp(packet.data(), kDiscoMagic.data(), kDiscoMagic.size()) == 0;
}

// -- notices

Result<bool> parse_note_preferred(BytesView payload) {
    if (payload.size() != 1) return Error::make("DERP note preferred: {} bytes instead of 1", payload.size());
    return payload[0] != std::byte{0};
}

Bytes write_note_preferred(bool home) {
    return {std::byte{home}};
}

Result<PeerGone> parse_peer_gone(BytesView payload) {
    Reader in{payload};
    PeerGone gone;
    gone.key = NodeKey{in.array<NodeKey::kSize>()};
    if (in.left() > 0) gone.reason = static_cast<GoneReason>(in.u8());
    if (!in.ok()) return in.error("DERP peer gone");
    return gone;
}

Bytes write_peer_gone(const PeerGone& gone) {
    Writer out;
    out.bytes(gone.key.view());
    out.u8(static_cast<std::uint8_t>(gone.reason));
    return out.take();
}

Result<PeerPresent> parse_peer_present(BytesView payload) {
    Reader in{payload};
    PeerPresent present;
    present.key = NodeKey{in.array<NodeKey::kSize>()};
    if (in.left() >= 18) {
        auto address = IpAddress::v6(in.array<16>()).unmapped();
        present.from = {address, in.be16()};
    }
    if (in.left() > 0) present.flags = in.u8();
    if (!in.ok()) return in.error("DERP peer present");
    return present;
}

Bytes write_peer_present(const PeerPresent& present) {
    Writer out;
    out.bytes(present.key.view());
    if (present.from.address.is_v6()) {
        out.bytes(present.from.address.bytes());
    } else {
        out.be64(0); // IPv4 mapped into IPv6
        out.be32(0xffff);
        out.be32(present.from.address.is_v4() ? present.from.address.v4_value() : 0);
    }
    out.be16(present.from.port);
    out.u8(present.flags);
    return out.take();
}

Result<NodeKey> parse_close_peer(BytesView payload) {
    if (payload.size() != NodeKey::kSize) return Error::make("DERP close peer: {} bytes", payload.size());
    return NodeKey{Reader{payload}.array<NodeKey::kSize>()};
}

Result<PingData> parse_ping(BytesView payload) {
    if (payload.size() < kPingSize || payload.size() > kMaxPing)
        return Error::make("DERP ping: {} bytes", payload.size());
    return Reader{payload}.array<kPingSize>();
}

Result<Restarting> parse_restarting(BytesView payload) {
    Reader in{payload};
    Restarting restarting;
    restarting.reconnect_in_ms = in.be32();
    restarting.try_for_ms = in.be32();
    if (!in.ok()) return in.error("DERP restarting");
    return restarting;
}

Bytes write_restarting(const Restarting& restarting) {
    Writer out;
    out.be32(restarting.reconnect_in_ms);
    out.be32(restarting.try_for_ms);
    return out.take();
}

} // namespace tailrace::derp
