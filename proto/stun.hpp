// proto/stun.hpp - "which address do you see me at?" (derp-disco-paths.md 2). Source: RFC 5389; tailscale
// net/stun/stun.go. Only binding requests and their answers, over UDP.
#pragma once
#include "base/bytes.hpp"
#include "base/net.hpp"

#include <array>

namespace tailrace::stun {

using TxId = std::array<std::byte, 12>;
constexpr std::size_t kRequestSize = 40;
constexpr std::size_t kMaxResponseSize = 44;

/// Whether a datagram is STUN at all.
bool looks_like_stun(BytesView datagram);

std::array<std::byte, kRequestSize> write_request(const TxId& id);
/// Accepts only what our kind of client sends: SOFTWARE "tailnode", and a right FINGERPRINT at the very end. Anything
/// else shall be met with silence, so that the server is of no use as a reflector.
Result<TxId> parse_request(BytesView datagram);

/// XOR-MAPPED-ADDRESS alone. Returns the size used: 32 bytes for IPv4, 44 for IPv6.
std::size_t write_response(std::span<std::byte, kMaxResponseSize> into, const TxId& id, const Endpoint& seen_from);

struct Response {
    TxId id{};
    Endpoint seen_from; ///< IPv4 mapped into IPv6 is unmapped
};
Result<Response> parse_response(BytesView datagram);

} // namespace tailrace::stun
