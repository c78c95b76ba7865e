// policy/illustrative.hpp - grants as articles explain them (who, can, to, because) become grants as they are written.
#pragma once
#include "policy/hujson_draft.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

/// "who", "can", "to" or "because": no member of a grant has this name.
bool is_illustrative(std::string_view member);

/// Rewrites every grant of the document that is written so: who becomes src, can ip or app, to dst, because a comment.
/// A grant whose words have no certain meaning stays as it is, and `unclear` receives a sentence about it. Returns how
/// many were rewritten.
std::size_t rewrite_illustrative_grants(hujson::Draft& document, std::vector<std::string>& unclear);

} // namespace tailrace
