#include "control/tailnet/tags.hpp"

#include <algorithm>
#include <cctype>
#include <string_view>

namespace tailrace {

namespace {
bool is_tag(std::string_view text) {
    if (!text.starts_with("tag:") || text.size() < 5) return false;
    std::string_view name = text.substr(4);
    if (!std::isalpha(static_cast<unsigned char>(name.front()))) return false;
    return std::all_of(name.begin(), name.end(),
                       [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '-'; });
}
} // namespace

Result<std::vector<std::string>> checked_tags(std::vector<std::string> tags) {
    std::sort(tags.begin(), tags.end());
    tags.erase(std::unique(tags.begin(), tags.end()), tags.end());
    for (const std::string& tag : tags)
        if (!is_tag(tag))
            return Error::make("\"{}\" is not a tag: write tag:name, with letters, digits and dashes", tag);
    return tags;
}

} // namespace tailrace
