// relay/server/serve.hpp - the daemon.
#pragma once
#include "relay/config/config.hpp"

namespace tailrace::relay {

/// Until SIGTERM or SIGINT. Returns the exit status.
int serve(const RelayConfig& config);

} // namespace tailrace::relay
