// control/server/serve.hpp - the server as a process: state directory, keys, listeners, signals.
#pragma once
#include <string>

namespace tailrace {

/// Runs until SIGTERM or SIGINT; SIGHUP reads the policy file again. Gives the exit status.
int serve(const std::string& config_file);

} // namespace tailrace
