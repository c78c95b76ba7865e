// control/server/public_api.hpp - what anybody may ask over HTTP/1.1, in the clear or by TLS.
#pragma once
#include "base/io/http.hpp"
#include "control/server/coordinator.hpp"
#include "proto/noise.hpp"

namespace tailrace {

/// Both references outlive the handler.
HttpHandler public_handler(Coordinator& coordinator, const NoiseServer& noise);
/// /metrics and /health, for the address that only the operator's network reaches.
HttpHandler metrics_handler(Coordinator& coordinator);

} // namespace tailrace
