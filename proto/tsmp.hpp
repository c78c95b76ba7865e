// proto/tsmp.hpp - TSMP, the small messages that nodes exchange inside the tunnel as IP protocol 99 (policy.md 6.1,
// derp-disco-paths.md 3.5). Source: tailscale net/packet/tsmp.go. Payloads only: the IP header is the caller's.
#pragma once
#include "base/bytes.hpp"
#include "base/result.hpp"
#include "proto/keys.hpp"

#include <array>
#include <cstdint>
#include <variant>

namespace tailrace {

constexpr std::uint8_t kIpProtoTsmp = 99;
using TsmpData = std::array<std::byte, 8>;

struct TsmpPing {
    TsmpData data{};
    bool operator==(const TsmpPing&) const = default;
};

struct TsmpPong {
    TsmpData data{};
    std::uint16_t peer_api_port = 0; ///< 0: none, or an old client
    bool operator==(const TsmpPong&) const = default;
};

enum class TsmpRejectReason : char {
    Acl = 'A',
    ShieldsUp = 'S',
    ForwardingOff = 'F',
    HostFirewall = 'W',
    UnknownTransitIp = 'T',
};

/// "Your connection was refused": for a TCP SYN from source_port to destination_port.
struct TsmpReject {
    std::uint8_t ip_proto = 0;
    TsmpRejectReason reason = TsmpRejectReason::Acl; ///< may hold other letters on reading
    std::uint16_t source_port = 0, destination_port = 0;
    bool maybe_broken = false;
    bool operator==(const TsmpReject&) const = default;
};

/// "This is my disco key now."
struct TsmpDiscoKey {
    DiscoKey key;
    bool operator==(const TsmpDiscoKey&) const = default;
};

struct TsmpUnknown {
    std::uint8_t type = 0;
    bool operator==(const TsmpUnknown&) const = default;
};

using TsmpMessage = std::variant<TsmpPing, TsmpPong, TsmpReject, TsmpDiscoKey, TsmpUnknown>;

Bytes write_tsmp(const TsmpMessage& message);
/// Trailing bytes are tolerated.
Result<TsmpMessage> parse_tsmp(BytesView payload);

} // namespace tailrace
