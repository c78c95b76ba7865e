// relay/server/serve.hpp - the daemon.
#pragma once
#include "relay/config/config.hpp"

#include <functional>

namespace tailrace::relay {

/// The configuration as it is now, checked: the file and the flags above it.
using ReadConfig = std::function<Result<RelayConfig>()>;

/// Until SIGTERM or SIGINT. Returns the exit status. At SIGHUP everything is read again that can change meanwhile; the
/// configuration where there is a way to read it.
int serve(const RelayConfig& config, ReadConfig read_again);

} // namespace tailrace::relay
