// agent/command_line.hpp - the flags of tailraced.
#pragma once
#include "agent/config/config.hpp"

#include <optional>
#include <string>

namespace tailrace {

struct CommandLine {
    std::string config_file; ///< empty: none
    AgentConfig config;      ///< of the file, with the flags above it
    bool version = false;
    bool cleanup = false;
    bool close = false;
    bool restore_dns = false;
    std::optional<unsigned> schema; ///< of the packet programs; only in tests
    bool clsact = false;            ///< attach them as for kernels before 6.6; only in tests
};

/// Reads flags, and the file that they name. Prints the help, or what is wrong, and gives the exit status to end with
/// where there is nothing to do.
struct ParsedCommandLine {
    std::optional<CommandLine> line;
    int exit_status = 0;
};
ParsedCommandLine parse_command_line(int argc, char** argv);

/// The same again, for a reload: the file as it is now.
Result<AgentConfig> reread_config(int argc, char** argv);

} // namespace tailrace
