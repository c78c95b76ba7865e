// base/io/html.hpp - the little that our pages need of HTML.
#pragma once
#include <string>
#include <string_view>

namespace tailrace {

/// Text of others inside a page, also inside a quoted attribute.
std::string html_escaped(std::string_view text);

} // namespace tailrace
