#include "agent/store/state_file.hpp"
#include "base/file.hpp"
#include "base/json/json.hpp"
#include "base/text.hpp"

#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace tailrace {

Result<StateFile> StateFile::open(std::string path) {
    StateFile state{path};
    auto text = read_file(path);
    if (!text) {
        if (text.error().code() == ENOENT) return state;
        return text.error();
    }
    if (trim(*text).empty()) return state;
    auto values = json::parse<std::map<std::string, std::string>>(*text);
    if (!values) return values.error().with("{}", path);
    for (const auto& [key, encoded] : *values) {
        auto value = base64_decode(encoded);
        if (!value) return value.error().with("{}: {}", path, key);
        state.values_[key] = std::string{as_chars(*value)};
    }
    return state;
}

std::optional<std::string> StateFile::get(std::string_view key) const {
    auto found = values_.find(key);
    if (found == values_.end()) return std::nullopt;
    return found->second;
}

Result<void> StateFile::set(const std::string& key, std::string value) {
    auto found = values_.find(key);
    if (found != values_.end() && found->second == value) return {};
    auto changed = values_;
    changed[key] = std::move(value);
    if (auto saved = save(changed); !saved) return saved;
    values_ = std::move(changed);
    return {};
}

Result<void> StateFile::erase(const std::vector<std::string>& keys) {
    auto changed = values_;
    for (const std::string& key : keys) changed.erase(key);
    if (changed.size() == values_.size()) return {};
    if (auto saved = save(changed); !saved) return saved;
    values_ = std::move(changed);
    return {};
}

Result<void> StateFile::save(const std::map<std::string, std::string, std::less<>>& values) {
    std::string text = "{";
    for (const auto& [key, value] : values) {
        text += text.size() == 1 ? "\n  " : ",\n  ";
        json::append_string(text, key);
        text += ": ";
        json::append_string(text, base64_encode(as_bytes(value)));
    }
    text += values.empty() ? "}" : "\n}";
    if (auto saved = write_file_atomically(path_, text, 0600); !saved) return saved.error().with("save the state");
    return {};
}

Result<std::string> keep_aside(const std::string& path, const WallTime& now) {
    std::string stamp;
    for (char c : now.text())
        if (c != '-' && c != ':') stamp += c;
    for (int attempt = 0; attempt < 100; ++attempt) {
        std::string name = path + ".damaged-" + stamp.substr(0, 15) + "Z";
        if (attempt > 0) name += "-" + std::to_string(attempt);
        if (::renameat2(AT_FDCWD, path.c_str(), AT_FDCWD, name.c_str(), RENAME_NOREPLACE) == 0) return name;
        if (errno == EINVAL && ::access(name.c_str(), F_OK) != 0 && ::rename(path.c_str(), name.c_str()) == 0)
            return name; // a file system that does not know RENAME_NOREPLACE
        if (errno != EEXIST && errno != EINVAL) break;
    }
    return Error::from_errno(errno, "rename {}", path);
}

} // namespace tailrace
