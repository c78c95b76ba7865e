// agent/local/pretty_json.hpp - JSON for people: members on lines of their own, order kept.
#pragma once
#include <string>
#include <string_view>

namespace tailrace {

/// As Go's json.Indent does it: empty objects and lists stay "{}" and "[]". `json` must be valid.
std::string pretty_json(std::string_view json, std::string_view indent);

} // namespace tailrace
