// base/cli/docs.hpp - what a program's command line can say, as data: man pages and completions are made of it.
#pragma once
#include <string>

namespace CLI {
class App;
}

namespace tailrace {

/// True when the only argument is --json-docs, which no help names.
bool wants_command_docs(int argc, char** argv);

/// All commands and options as JSON: {"Name", "Desc", "Flags": [{"Names", "Value", "Desc"}], "Arguments": [{"Name",
/// "Desc", "Required"}], "Subcommands": [...]}. "Value" is empty for an option that takes none. What has no group is
/// hidden from the help, and from this.
std::string command_docs(const CLI::App& app);

} // namespace tailrace
