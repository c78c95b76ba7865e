// proto/geneve.hpp - the 8 bytes before everything that goes through a relay server of the tailnet
// (derp-disco-paths.md 3.2). Source: tailscale net/packet/geneve.go.
#pragma once
#include "base/bytes.hpp"

#include <cstdint>
#include <optional>

namespace tailrace {

/// Geneve of version 0 without options.
struct GenevePacket {
    static constexpr std::size_t kHeaderSize = 8;
    static constexpr std::uint32_t kLargestVni = (1u << 24) - 1;
    enum class Protocol : std::uint16_t { Disco = 0x7a11, WireGuard = 0x7a12 };

    Protocol protocol = Protocol::Disco;
    bool control = false;  ///< for the relay server itself: the messages of its handshake, and nothing else
    std::uint32_t vni = 0; ///< which pair of clients: 24 bits
    BytesView payload;
};

/// None for what is not of the two protocols that relay servers speak.
std::optional<GenevePacket> parse_geneve(BytesView datagram);
Bytes write_geneve(const GenevePacket& packet);

} // namespace tailrace
