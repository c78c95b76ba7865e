// The plaintext of a disco packet, which a peer has sealed, and the header before what relay servers forward: what is
// understood is written and read again the same. A relay of ours gets both, too.
#include "agent/peer_relay/relay_sessions.hpp"
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

    static const DiscoPrivateKey relay_key = DiscoPrivateKey::generate(), client_key = DiscoPrivateKey::generate();
    static const DiscoKey client = client_key.public_key(), other = DiscoPrivateKey::generate().public_key();
    static const auto box = DiscoBox::between(client_key, relay_key.public_key());
    RelaySessions sessions{relay_key};
    auto session = sessions.allocate(TimePoint{}, {{client, other}, 1}, client);
    const RelayedPlace place{*Endpoint::parse("192.0.2.1:1"), *IpAddress::parse("192.0.2.2")};
    (void)sessions.on_control(TimePoint{}, session->vni, box->seal(*message), place);
    if (const auto* request = std::get_if<DiscoAllocateRequest>(&*message))
        (void)sessions.allocate(TimePoint{}, *request, client);
    if (sessions.on_data(TimePoint{}, session->vni, place, 1, 1)) std::abort(); // nobody has shaken hands
    return 0;
}
