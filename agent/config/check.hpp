// agent/config/check.hpp - `tailrace config check`: is the file good, and what does it say?
#pragma once
#include "base/result.hpp"

#include <string>

namespace tailrace {

/// What it declares, in words. An error names file and line.
Result<std::string> check_agent_config(const std::string& path);

} // namespace tailrace
