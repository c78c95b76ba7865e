// agent/config/check.hpp - `tailrace config check`: is the file good, and what does it say?
#pragma once
#include "base/result.hpp"

#include <string>
#include <utility>
#include <vector>

namespace tailrace {

struct CheckedConfig {
    bool declares_prefs = false, enabled = false, locked = false;
    std::vector<std::pair<std::string, std::string>> settings; ///< name and value as given
    std::vector<std::string> notes;                            ///< sentences without the full stop
    std::string login;                                         ///< by what it logs in, in words; empty: not told

    std::string text(const std::string& path) const;
};

/// What it declares. An error names file and line.
Result<CheckedConfig> check_agent_config(const std::string& path);
std::string checked_config_json(const std::string& path, const Result<CheckedConfig>& checked);

} // namespace tailrace
