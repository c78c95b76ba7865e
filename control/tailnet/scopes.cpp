#include "control/tailnet/scopes.hpp"

#include <algorithm>

namespace tailrace {

namespace {
constexpr std::string_view kAll = "all", kRead = ":read";

bool covers(std::string_view granted, std::string_view wanted) {
    if (granted == wanted || granted == kAll) return true;
    if (!wanted.ends_with(kRead)) return false;
    wanted.remove_suffix(kRead.size());
    return granted == wanted || granted == "all:read";
}
} // namespace

bool is_scope(std::string_view text) {
    if (text.ends_with(kRead)) text.remove_suffix(kRead.size());
    return text == kAll || text == kScopeAuthKeys;
}

bool scopes_cover(const std::vector<std::string>& granted, std::string_view wanted) {
    return std::any_of(granted.begin(), granted.end(), [&](const std::string& one) { return covers(one, wanted); });
}

bool scopes_need_tags(const std::vector<std::string>& scopes) {
    return scopes_cover(scopes, kScopeAuthKeys);
}

} // namespace tailrace
