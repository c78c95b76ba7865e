// The plaintext of a disco packet, which a peer has sealed, and the header before what relay servers forward: what is
// understood is written and read again the same.
#include "proto/disco.hpp"
#include "proto/geneve.hpp"

#include <algorithm>

#include <cstdint>
#include <cstdlib>

using namespace tailrace;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    BytesView data{reinterpret_cast<const std::byte*>(bytes), size};
    if (auto packet = parse_geneve(data)) {
        Bytes written = write_geneve(*packet);
        auto again = parse_geneve(written);
        if (!again || again->vni != packet->vni || again->control != packet->control ||
            again->protocol != packet->protocol || !std::ranges::equal(again->payload, packet->payload))
            std::abort();
    }
    auto message = parse_disco_message(data);
    if (!message || std::holds_alternative<DiscoUnknown>(*message)) return 0; // of another version, say
    auto again = parse_disco_message(write_disco_message(*message));
    if (!again || *again != *message) std::abort();
    return 0;
}
