// control/cli/oauth_commands.hpp - `tailrace-control oauth ...`
#pragma once
#include "base/result.hpp"

#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace tailrace {

struct OAuthWords {
    const std::string* socket = nullptr; ///< shared with all commands
    bool json = false;
    std::vector<std::string> tags, scopes;
    std::string description, id;
};
using OAuthCommand = std::function<Result<std::string>()>;

/// Adds the commands. The one that is called puts itself into `chosen`.
void declare_oauth_commands(CLI::App& app, OAuthWords& words, OAuthCommand& chosen);

} // namespace tailrace
