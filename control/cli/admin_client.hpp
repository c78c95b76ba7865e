// control/cli/admin_client.hpp - asks the running server over its Unix socket.
#pragma once
#include "base/result.hpp"

#include <string>

namespace tailrace {

/// One request and its answer's body. A refusal is an Error with the server's own sentence.
Result<std::string> ask_server(const std::string& socket_path, std::string method, std::string target,
                               std::string body);

} // namespace tailrace
