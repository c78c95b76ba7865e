// What the policy's reader says to a text.
#pragma once
#include "policy/document.hpp"

#include <string>

namespace tailrace {

/// "line 1, column 2: why", or "accepted".
inline std::string refusal(const std::string& text) {
    auto document = Document::parse(text);
    return document ? "accepted" : document.error().message();
}

} // namespace tailrace
