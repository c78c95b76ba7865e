// base/form.hpp - name=value&name=value, as OAuth requests and the query of a URL have it.
#pragma once
#include "base/result.hpp"

#include <functional>
#include <map>
#include <string>
#include <string_view>

namespace tailrace {

using FormFields = std::map<std::string, std::string, std::less<>>;

/// application/x-www-form-urlencoded: "+" is a space, "%2B" a plus. A name may come once, and there are at most 64:
/// more is an error, as is a "%" without two hex digits. A name without "=" has the value "". Source: RFC 6749 appendix
/// B.
Result<FormFields> parse_form(std::string_view text);

/// The value, or "" when there is none.
std::string_view form_field(const FormFields& fields, std::string_view name);

} // namespace tailrace
