// policy/problem.hpp - why a policy was refused, and where.
#pragma once
#include "base/result.hpp"
#include "policy/hujson.hpp"

#include <string>

namespace tailrace {

/// A refusal in the words of the Tailscale service where those are known, so that people and tools recognise it.
struct PolicyProblem {
    std::string message;       ///< without the place: src=tag not found: "tag:web"
    hujson::Position position; ///< of the offending token

    /// "line 3, column 9: src=tag not found: ..."; syntax errors read "hujson: line 3, column 9: ...".
    std::string text() const;
    Error error() const { return Error::make("{}", text()); }

    bool is_syntax = false;
};

} // namespace tailrace
