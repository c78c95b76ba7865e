// policy/hujson_format.hpp - the layout that everybody's policy has after `policy fmt`.
#pragma once
#include "policy/hujson_draft.hpp"

namespace tailrace::hujson {

/// Lays the document out as the reference library does, byte for byte: the service's ETag of a policy is a hash over
/// this text. Comments, the order of members and the spelling of numbers stay; doing it twice changes nothing more.
void format(Draft& document);
/// The same for a text; fails when it does not parse.
Result<std::string> format(std::string_view text);

} // namespace tailrace::hujson
