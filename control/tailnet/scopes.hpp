// control/tailnet/scopes.hpp - what an OAuth client or a token of it may ask the API for (admin-api.md 2.4).
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

inline constexpr std::string_view kScopeAuthKeys = "auth_keys";

/// Those that there is something to ask for with: auth_keys, all, and the :read of both.
bool is_scope(std::string_view text);
/// A scope includes its ":read", "all" every other, "all:read" every other's ":read".
bool scopes_cover(const std::vector<std::string>& granted, std::string_view wanted);
/// Who can make auth keys carries the tags that it may hand on.
bool scopes_need_tags(const std::vector<std::string>& scopes);

} // namespace tailrace
