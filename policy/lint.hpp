// policy/lint.hpp - what is allowed in a policy, and yet surely not meant.
#pragma once
#include "policy/hujson.hpp"
#include "policy/tailnet.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

struct LintFinding {
    enum class Severity : std::uint8_t {
        Note,    ///< good to know
        Warning, ///< does something else than it seems to
        Error    ///< the policy is refused
    };

    Severity severity = Severity::Warning;
    std::string code; ///< "never-matches": stays the same, for scripts
    std::string message;
    hujson::Position position;
    bool fixable = false; ///< `fix` takes it away
};

/// All findings in the order of the file. What follows from the text alone is found without a tailnet; with one also
/// what matches no device now. A text that is refused has one Error.
std::vector<LintFinding> lint(std::string_view text, const Tailnet* tailnet = nullptr);

/// "line 3, column 9: warning: group:ops has no members [empty-group]"
std::string lint_text(const std::vector<LintFinding>& findings);
std::string lint_json(const std::vector<LintFinding>& findings);

struct LintFix {
    std::string text;                 ///< the whole document, formatted; as given when nothing was changed
    std::vector<std::string> changes; ///< a sentence each
    std::vector<std::string> unclear; ///< what should be rewritten and could not be
};

/// Rewrites what can be said better without a change of meaning: grants as articles write them, old names of members
/// and autogroups. Comments stay. Fails when the text does not parse.
Result<LintFix> fix_policy(std::string_view text);

} // namespace tailrace
