// control/cli/service_commands.hpp - `tailrace-control services ...`
#pragma once
#include "base/result.hpp"

#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace tailrace {

struct ServiceWords {
    const std::string* socket = nullptr; ///< shared with all commands
    bool json = false;
    std::string name, node;
    std::vector<std::string> tags, ports;
};
using ServiceCommand = std::function<Result<std::string>()>;

/// Adds the commands. The one that is called puts itself into `chosen`.
void declare_service_commands(CLI::App& app, ServiceWords& words, ServiceCommand& chosen);

} // namespace tailrace
