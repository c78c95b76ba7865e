// control/cli/policy_commands.hpp - `tailrace-control policy ...`: carries files, the server's state and words to
// policy/, and its answers back.
#pragma once
#include "base/result.hpp"

#include <functional>
#include <string>

namespace CLI {
class App;
}

namespace tailrace {

/// What a command prints, and how it ends: 1 says that something was found (a lint warning, a failed test).
struct PolicyAnswer {
    std::string text;
    int status = 0;
};

/// Everything that the options of these commands can say.
struct PolicyWords {
    const std::string* socket = nullptr; ///< shared with all commands
    const bool* socket_is_given = nullptr;
    bool json = false;
    bool offline = false;     ///< do not ask a server who is in the tailnet
    bool fix = false;         ///< of lint
    bool only_check = false;  ///< of fmt
    std::string file;         ///< "-" is standard input; "" the policy in force
    std::string second_file;  ///< of diff
    std::string tailnet_file; ///< who is in the tailnet, as JSON; "" asks the server
    std::string source, destination;
};

using PolicyCommand = std::function<Result<PolicyAnswer>()>;

/// A policy from a file, or from standard input for "-".
Result<std::string> read_policy_words(const std::string& file);
/// Adds the commands to their group. The one that is called puts itself into `chosen`.
void declare_policy_commands(CLI::App& group, PolicyWords& words, PolicyCommand& chosen);

} // namespace tailrace
