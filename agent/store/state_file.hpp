// agent/store/state_file.hpp - what the agent must not forget, in one JSON file. Same names and form as the reference
// client's tailscaled.state, so that an installation can be taken over and given back (cli-localapi.md 11).
#pragma once
#include "base/result.hpp"
#include "base/time.hpp"

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// Keys and their bytes. Every change is on disk (0600, atomic) before set() returns.
class StateFile {
public:
    /// No file, or an empty one, is an empty state. A damaged file is an error: see keep_aside().
    static Result<StateFile> open(std::string path);

    std::optional<std::string> get(std::string_view key) const;
    Result<void> set(const std::string& key, std::string value);
    /// All of them, or on an error none.
    Result<void> erase(const std::vector<std::string>& keys);
    const std::string& path() const { return path_; }

private:
    explicit StateFile(std::string path) : path_(std::move(path)) {}
    Result<void> save(const std::map<std::string, std::string, std::less<>>& values);

    std::string path_;
    std::map<std::string, std::string, std::less<>> values_;
};

/// Renames a damaged file to PATH.damaged-<time> and returns that name. Never overwrites anything.
Result<std::string> keep_aside(const std::string& path, const WallTime& now);

} // namespace tailrace
