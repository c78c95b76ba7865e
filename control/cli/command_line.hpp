// control/cli/command_line.hpp - everything that one can say to tailrace-control.
#pragma once
#include <functional>
#include <string>

namespace tailrace {

/// Runs the server with this configuration file ("": none) until it is told to stop; gives the exit status.
using ServeFunction = std::function<int(const std::string& config_file)>;

/// Exit status: 0 success, 1 a failure (a sentence on stderr), 2 a command line that makes no sense.
int run_command_line(int argc, char** argv, const ServeFunction& serve);

} // namespace tailrace
