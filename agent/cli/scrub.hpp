// agent/cli/scrub.hpp - takes secrets out of text that goes to strangers.
#pragma once
#include <string>
#include <string_view>

namespace tailrace::cli {

/// Auth keys, private keys in any of the forms that our programs, WireGuard's tools and stock ones write, addresses at
/// which somebody logs a node in, and passwords in URLs, replaced by X. Public keys stay.
std::string scrub_secrets(std::string_view text);

} // namespace tailrace::cli
