// What a stranger sends behind the upgrade: an initiation, a response, records and an early payload.
#include "proto/noise.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>

using namespace tailrace;

namespace {

MachinePrivateKey fixed_key(unsigned char fill) {
    std::array<std::byte, 32> raw;
    raw.fill(std::byte{fill});
    return MachinePrivateKey{raw};
}

struct Sessions {
    std::unique_ptr<NoiseSession> client, server;
};

Sessions fresh_sessions() {
    static const MachinePrivateKey server = fixed_key(0x40), machine = fixed_key(0x48), ephemeral = fixed_key(0x50);
    static const NoiseServer noise{server};
    auto client = NoiseClient::begin(131, machine, noise.public_key(), ephemeral);
    auto accepted = noise.accept(client->initiation(), ephemeral);
    return {std::move(*client->finish(accepted->response)), std::move(accepted->session)};
}

// Feeds `data` in pieces whose lengths come from the data itself.
template <typename Feed>
void in_pieces(BytesView data, Feed feed) {
    while (!data.empty()) {
        std::size_t length = std::min(data.size(), std::to_integer<std::size_t>(data[0]) % 97 + 1);
        if (!feed(data.first(length))) return;
        data = data.subspan(length);
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    BytesView data{reinterpret_cast<const std::byte*>(bytes), size};
    static const NoiseServer server{fixed_key(0x40)};
    static const MachinePrivateKey ephemeral = fixed_key(0x50);
    (void)server.accept(data, ephemeral);
    auto client = NoiseClient::begin(131, fixed_key(0x48), server.public_key(), ephemeral);
    (void)client->finish(data);

    // Foreign bytes never open; nothing comes out and nothing is kept beyond one record.
    auto sessions = fresh_sessions();
    Bytes out;
    in_pieces(data, [&](BytesView piece) { return static_cast<bool>(sessions.server->open(piece, out)); });
    if (!out.empty()) std::abort();

    // Our own records come back whole, however they are cut.
    sessions = fresh_sessions();
    Bytes records, back;
    (void)sessions.client->seal(data, records);
    in_pieces(records, [&](BytesView piece) { return static_cast<bool>(sessions.server->open(piece, back)); });
    if (!std::equal(back.begin(), back.end(), data.begin(), data.end())) std::abort();

    EarlyPayloadReader early;
    in_pieces(data, [&](BytesView piece) {
        auto decided = early.feed(piece);
        return decided && !*decided;
    });
    return 0;
}
