// control/cli/route_commands.hpp - `tailrace-control nodes routes ...`
#pragma once
#include "base/result.hpp"

#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace tailrace {

struct RouteWords {
    const std::string* socket = nullptr; ///< shared with all commands
    bool json = false, all = false;
    std::string node;
    std::vector<std::string> routes;
};
using RouteCommand = std::function<Result<std::string>()>;

/// Adds the commands to their group. The one that is called puts itself into `chosen`.
void declare_route_commands(CLI::App& nodes, RouteWords& words, RouteCommand& chosen);

} // namespace tailrace
