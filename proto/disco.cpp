#include "proto/disco.hpp"

#include <sodium.h>

#include <algorithm>

namespace tailrace {
namespace {

constexpr std::byte kMagic[6] = {std::byte{0x54}, std::byte{0x53}, std::byte{0xf0},
                                 std::byte{0x9f}, std::byte{0x92}, std::byte{0xac}};
constexpr std::size_t kEndpointSize = 18;
constexpr std::uint8_t kPing = 1, kPong = 2, kCallMeMaybe = 3;
constexpr std::uint8_t kCallMeMaybeVia = 7, kAllocateRequest = 8, kAllocateResponse = 9;
constexpr std::uint8_t kPunch = 0xd4; // ours; the reference client counts up from 1
constexpr std::uint8_t kPunchVersion = 1;

// 16 bytes of IPv6 (IPv4 mapped) and a port.
void write_endpoint(Writer& out, const Endpoint& endpoint) {
    if (endpoint.address.is_v6()) {
        out.bytes(endpoint.address.bytes());
    } else {
        out.be64(0);
        out.be32(0xffff);
        out.be32(endpoint.address.is_v4() ? endpoint.address.v4_value() : 0);
    }
    out.be16(endpoint.port);
}

Endpoint read_endpoint(Reader& in) {
    auto address = IpAddress::v6(in.array<16>()).unmapped();
    return {address, in.be16()};
}

void write_relay_endpoint(Writer& out, const DiscoRelayEndpoint& endpoint) {
    out.bytes(endpoint.server.view());
    for (const DiscoKey& client : endpoint.clients) out.bytes(client.view());
    out.be64(endpoint.lamport_id);
    out.be32(endpoint.vni);
    out.be64(static_cast<std::uint64_t>(endpoint.bind_lifetime.count()));
    out.be64(static_cast<std::uint64_t>(endpoint.steady_lifetime.count()));
    for (const Endpoint& address : endpoint.addresses) write_endpoint(out, address);
}

std::array<DiscoKey, 2> read_clients(Reader& in) {
    DiscoKey first{in.array<DiscoKey::kSize>()};
    return {first, DiscoKey{in.array<DiscoKey::kSize>()}};
}

Result<DiscoRelayEndpoint> read_relay_endpoint(Reader& in) {
    DiscoRelayEndpoint endpoint;
    endpoint.server = DiscoKey{in.array<DiscoKey::kSize>()};
    endpoint.clients = read_clients(in);
    endpoint.lamport_id = in.be64();
    endpoint.vni = in.be32();
    endpoint.bind_lifetime = Duration{static_cast<std::int64_t>(in.be64())};
    endpoint.steady_lifetime = Duration{static_cast<std::int64_t>(in.be64())};
    if (!in.ok()) return in.error("disco relay endpoint");
    if (in.left() == 0 || in.left() % kEndpointSize != 0)
        return Error::make("disco relay endpoint: {} bytes are no list of addresses", in.left());
    while (in.left() > 0) endpoint.addresses.push_back(read_endpoint(in));
    return endpoint;
}

Result<DiscoMessage> parse_relay_message(std::uint8_t type, Reader& in) {
    if (type == kAllocateRequest) {
        DiscoAllocateRequest request;
        request.clients = read_clients(in);
        request.generation = in.be32();
        if (!in.ok()) return in.error("disco allocate request");
        return DiscoMessage{request};
    }
    DiscoAllocateResponse response;
    if (type == kAllocateResponse) response.generation = in.be32();
    auto endpoint = read_relay_endpoint(in);
    if (!endpoint) return endpoint.error();
    if (type == kCallMeMaybeVia) return DiscoMessage{DiscoCallMeMaybeVia{std::move(*endpoint)}};
    response.endpoint = std::move(*endpoint);
    return DiscoMessage{std::move(response)};
}

bool is_handshake(std::uint8_t type) {
    return type >= static_cast<std::uint8_t>(DiscoRelayHandshake::Step::Bind) &&
           type <= static_cast<std::uint8_t>(DiscoRelayHandshake::Step::Answer);
}

} // namespace

Bytes write_disco_message(const DiscoMessage& message) {
    Writer out;
    auto head = [&out](std::uint8_t type, std::uint8_t version = 0) {
        out.u8(type);
        out.u8(version);
    };
    if (const auto* ping = std::get_if<DiscoPing>(&message)) {
        head(kPing);
        out.bytes(ping->tx_id);
        if (!ping->node_key.is_zero() || ping->padding > 0) out.bytes(ping->node_key.view());
        out.bytes(Bytes(ping->padding));
    } else if (const auto* pong = std::get_if<DiscoPong>(&message)) {
        head(kPong);
        out.bytes(pong->tx_id);
        write_endpoint(out, pong->seen_from);
    } else if (const auto* call = std::get_if<DiscoCallMeMaybe>(&message)) {
        head(kCallMeMaybe);
        for (const Endpoint& endpoint : call->endpoints) write_endpoint(out, endpoint);
    } else if (const auto* punch = std::get_if<DiscoPunch>(&message)) {
        head(kPunch, kPunchVersion);
        out.u8(static_cast<std::uint8_t>(punch->step));
        out.be32(punch->run);
        write_endpoint(out, punch->outside);
    } else if (const auto* handshake = std::get_if<DiscoRelayHandshake>(&message)) {
        head(static_cast<std::uint8_t>(handshake->step));
        out.be32(handshake->vni);
        out.be32(handshake->generation);
        out.bytes(handshake->remote.view());
        out.bytes(handshake->challenge);
    } else if (const auto* via = std::get_if<DiscoCallMeMaybeVia>(&message)) {
        head(kCallMeMaybeVia);
        write_relay_endpoint(out, via->endpoint);
    } else if (const auto* request = std::get_if<DiscoAllocateRequest>(&message)) {
        head(kAllocateRequest);
        for (const DiscoKey& client : request->clients) out.bytes(client.view());
        out.be32(request->generation);
    } else if (const auto* response = std::get_if<DiscoAllocateResponse>(&message)) {
        head(kAllocateResponse);
        out.be32(response->generation);
        write_relay_endpoint(out, response->endpoint);
    } else {
        head(std::get<DiscoUnknown>(message).type);
    }
    return out.take();
}

Result<DiscoMessage> parse_disco_message(BytesView plaintext) {
    Reader in{plaintext};
    std::uint8_t type = in.u8();
    std::uint8_t version = in.u8();
    if (!in.ok()) return in.error("disco message");
    if (type == kPing) {
        DiscoPing ping;
        ping.tx_id = in.array<12>();
        if (in.left() >= NodeKey::kSize) ping.node_key = NodeKey{in.array<NodeKey::kSize>()};
        ping.padding = in.left();
        if (!in.ok()) return in.error("disco ping");
        return DiscoMessage{ping};
    }
    if (type == kPong) {
        DiscoPong pong;
        pong.tx_id = in.array<12>();
        pong.seen_from = read_endpoint(in);
        if (!in.ok()) return in.error("disco pong");
        return DiscoMessage{pong};
    }
    if (type == kCallMeMaybe) {
        // A foreign version or a crooked length says nothing, without being an error.
        DiscoCallMeMaybe call;
        if (version == 0 && in.left() % kEndpointSize == 0)
            while (in.left() > 0) call.endpoints.push_back(read_endpoint(in));
        return DiscoMessage{std::move(call)};
    }
    if (type == kPunch && version == kPunchVersion) {
        DiscoPunch punch;
        std::uint8_t step = in.u8();
        punch.run = in.be32();
        punch.outside = read_endpoint(in);
        if (!in.ok()) return in.error("disco punch");
        if (punch.outside.address.is_v4() && punch.outside.address.is_unspecified()) punch.outside = {};
        if (step < static_cast<std::uint8_t>(DiscoPunch::Step::Ask) ||
            step > static_cast<std::uint8_t>(DiscoPunch::Step::Stop))
            return DiscoMessage{DiscoUnknown{type}};
        punch.step = static_cast<DiscoPunch::Step>(step);
        return DiscoMessage{punch};
    }
    if (is_handshake(type)) { // of any version
        DiscoRelayHandshake handshake;
        handshake.step = static_cast<DiscoRelayHandshake::Step>(type);
        handshake.vni = in.be32();
        handshake.generation = in.be32();
        handshake.remote = DiscoKey{in.array<DiscoKey::kSize>()};
        handshake.challenge = in.array<32>();
        if (!in.ok()) return in.error("disco relay handshake");
        return DiscoMessage{handshake};
    }
    if (version == 0 && type >= kCallMeMaybeVia && type <= kAllocateResponse) return parse_relay_message(type, in);
    return DiscoMessage{DiscoUnknown{type}};
}

std::size_t disco_ping_padding(std::size_t packet_bytes, bool v6) {
    constexpr std::size_t kSealed = kDiscoHeaderSize + 16 + 2 + std::tuple_size_v<DiscoTxId> + NodeKey::kSize;
    const auto headers = static_cast<std::size_t>(disco_packet_bytes(0, v6));
    return packet_bytes > headers + kSealed ? packet_bytes - headers - kSealed : 0;
}

int disco_packet_bytes(int message_bytes, bool v6) {
    return message_bytes + (v6 ? 40 : 20) + 8;
}

bool looks_like_disco(BytesView packet) {
    return packet.size() >= sizeof kMagic + DiscoKey::kSize &&
           std::equal(std::begin(kMagic), std::end(kMagic), packet.begin());
}

DiscoKey disco_sender(BytesView packet) {
    return DiscoKey{Reader{packet.subspan(sizeof kMagic)}.array<DiscoKey::kSize>()};
}

Result<DiscoBox> DiscoBox::between(const DiscoPrivateKey& ours, const DiscoKey& theirs) {
    Secret<32> shared;
    if (crypto_box_beforenm(shared.mutable_data(), theirs.data(), ours.data()) != 0)
        return Error::make("disco key {} is not usable", short_disco_text(theirs));
    return DiscoBox{ours.public_key(), shared};
}

Bytes DiscoBox::seal(const DiscoMessage& message, const DiscoNonce& nonce) const {
    Bytes plaintext = write_disco_message(message);
    Bytes packet;
    packet.reserve(kDiscoHeaderSize + crypto_box_MACBYTES + plaintext.size());
    packet.insert(packet.end(), std::begin(kMagic), std::end(kMagic));
    packet.insert(packet.end(), sender_.raw().begin(), sender_.raw().end());
    packet.insert(packet.end(), nonce.begin(), nonce.end());
    packet.resize(kDiscoHeaderSize + crypto_box_MACBYTES + plaintext.size());
    (void)crypto_box_easy_afternm(reinterpret_cast<unsigned char*>(packet.data() + kDiscoHeaderSize),
                                  as_uchars(plaintext), plaintext.size(), as_uchars(nonce),
                                  shared_.data()); // fails only for sizes beyond any datagram
    return packet;
}

Result<DiscoMessage> DiscoBox::open(BytesView packet) const {
    if (!looks_like_disco(packet) || packet.size() < kDiscoHeaderSize + crypto_box_MACBYTES)
        return Error::make("disco packet: {} bytes are too short", packet.size());
    BytesView nonce = packet.subspan(kDiscoHeaderSize - sizeof(DiscoNonce), sizeof(DiscoNonce));
    BytesView sealed = packet.subspan(kDiscoHeaderSize);
    Bytes plaintext(sealed.size() - crypto_box_MACBYTES);
    if (crypto_box_open_easy_afternm(reinterpret_cast<unsigned char*>(plaintext.data()), as_uchars(sealed),
                                     sealed.size(), as_uchars(nonce), shared_.data()) != 0)
        return Error::make("disco packet does not open");
    return parse_disco_message(plaintext);
}

} // namespace tailrace
