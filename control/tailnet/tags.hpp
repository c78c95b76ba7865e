// control/tailnet/tags.hpp - lists of tags as people write them.
#pragma once
#include "base/result.hpp"

#include <string>
#include <vector>

namespace tailrace {

/// Sorted, each once; an error names the first that is no "tag:name".
Result<std::vector<std::string>> checked_tags(std::vector<std::string> tags);

} // namespace tailrace
