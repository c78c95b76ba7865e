// control/server/noise_api.hpp - what a client asks through the Noise channel: /machine/... over HTTP/2.
#pragma once
#include "base/io/http2.hpp"
#include "control/server/coordinator.hpp"
#include "proto/noise.hpp"

namespace tailrace {

/// Older clients are told to upgrade. Source: control-protocol.md 7.
constexpr int kMinimumClientVersion = 113;

/// Everything after the 101: handshake, then requests until the client leaves. `initiation` came in the request.
Task<void> serve_noise(Coordinator& coordinator, const NoiseServer& noise, std::unique_ptr<Stream> stream,
                       Bytes initiation);

} // namespace tailrace
