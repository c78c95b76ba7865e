// control/server/public_api.hpp - what anybody may ask over HTTP/1.1, in the clear or by TLS.
#pragma once
#include "base/io/http.hpp"
#include "control/api/api.hpp"
#include "control/server/coordinator.hpp"
#include "control/server/embedded_relay.hpp"
#include "proto/noise.hpp"

namespace tailrace {

/// What it is given outlives the handler. `relay` may be null.
HttpHandler public_handler(Coordinator& coordinator, const NoiseServer& noise, Api& api, EmbeddedRelay* relay);
/// What the embedded relay may ask: /verify alone.
HttpHandler verify_handler(Coordinator& coordinator);
/// /metrics and /health, for the address that only the operator's network reaches.
HttpHandler metrics_handler(Coordinator& coordinator);

} // namespace tailrace
