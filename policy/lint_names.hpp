// policy/lint_names.hpp - the parts of lint. Internal to policy/.
#pragma once
#include "policy/document.hpp"
#include "policy/hujson.hpp"
#include "policy/lint.hpp"
#include "policy/tailnet.hpp"

#include <string>
#include <vector>

namespace tailrace {

/// Collects findings by offset.
class LintReport {
public:
    explicit LintReport(const Document& document) : document_(document) {}

    void add(LintFinding::Severity severity, std::string code, std::uint32_t offset, std::string message,
             bool fixable = false) {
        findings_.push_back({{severity, std::move(code), std::move(message), {}, fixable}, offset});
    }
    std::vector<LintFinding> take();

private:
    struct Placed {
        LintFinding finding;
        std::uint32_t offset;
    };

    const Document& document_;
    std::vector<Placed> findings_;
};

/// Names: groups without members, tags without owners, hosts in the tailnet's ranges, whatever is defined in vain.
void lint_names(const hujson::Tree& tree, const Document& document, const Tailnet* tailnet, LintReport& report);
/// Rules: what never matches, what another rule contains, what is wider than it looks.
void lint_rules(const Document& document, const Tailnet* tailnet, LintReport& report);
/// ssh, tests and what surrounds the rules.
void lint_ssh_and_tests(const Document& document, const Tailnet* tailnet, LintReport& report);

} // namespace tailrace
