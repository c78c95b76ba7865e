// control/cli/table.hpp - rows of text in columns, two spaces apart.
#pragma once
#include <string>
#include <vector>

namespace tailrace {

/// The first row is the heading.
std::string render_table(const std::vector<std::vector<std::string>>& rows);

} // namespace tailrace
