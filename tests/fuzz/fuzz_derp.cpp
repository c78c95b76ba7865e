// What a stranger sends to a relay, or a relay to a client: a stream of frames, cut in pieces, every payload parsed.
#include "proto/derp_stream.hpp"

#include <cstdint>
#include <cstdlib>

using namespace tailrace;
using namespace tailrace::derp;

namespace {

constexpr std::size_t kLimit = 4096;

std::optional<std::size_t> limit_of(FrameType type) {
    if (static_cast<int>(type) > 0x20) return std::nullopt;
    return kLimit;
}

void parse(FrameType type, BytesView payload) {
    static const NodePrivateKey key = NodePrivateKey::generate();
    (void)type; // every parser sees every payload: they must stand any
    (void)parse_server_key(payload);
    (void)open_client_info(payload, key);
    (void)open_server_info(payload, key, key.public_key());
    if (auto packet = parse_packet(payload); packet && packet->packet.size() + NodeKey::kSize != payload.size())
        std::abort();
    (void)parse_forward(payload);
    (void)looks_like_disco(payload);
    (void)parse_note_preferred(payload);
    if (auto gone = parse_peer_gone(payload); gone && *parse_peer_gone(write_peer_gone(*gone)) != *gone) std::abort();
    if (auto present = parse_peer_present(payload))
        if (parse_peer_present(write_peer_present(*present))->key != present->key) std::abort();
    (void)parse_close_peer(payload);
    (void)parse_ping(payload);
    (void)parse_restarting(payload);
}

struct Seen {
    std::size_t frames = 0, bytes = 0;
    bool operator==(const Seen&) const = default;
};

// Pieces of `piece` bytes; what comes out must not depend on it.
Seen run(BytesView data, std::size_t piece) {
    FrameStream stream;
    Seen seen;
    while (!data.empty()) {
        BytesView part = data.first(std::min(piece, data.size()));
        auto taken = stream.feed(part, limit_of, [&](FrameType type, BytesView payload) {
            ++seen.frames;
            seen.bytes += payload.size();
            if (piece > 64) parse(type, payload);
            return FrameStream::Next::Continue;
        });
        if (!taken) return seen;
        if (*taken != part.size() || stream.kept() > kLimit + kHeaderSize) std::abort();
        data = data.subspan(part.size());
    }
    return seen;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    BytesView data{reinterpret_cast<const std::byte*>(bytes), size};
    if (size == 0) return 0;
    std::size_t piece = std::to_integer<std::size_t>(data[0]) % 61 + 1;
    if (run(data, data.size() + 65) != run(data, piece)) std::abort();
    return 0;
}
