// policy/lint.cpp - runs the checks and words their findings.
#include "policy/lint.hpp"

#include "base/json/json.hpp"
#include "base/text.hpp"
#include "policy/hujson_format.hpp"
#include "policy/illustrative.hpp"
#include "policy/lint_names.hpp"
#include "policy/words.hpp"

#include <algorithm>

namespace tailrace {
namespace {

using Severity = LintFinding::Severity;
using hujson::Draft;

const char* name_of(Severity severity) {
    return severity == Severity::Error ? "error" : severity == Severity::Warning ? "warning" : "note";
}

/// Whether the document has a grant as articles write them: it is refused, but can be rewritten.
const hujson::Value* find_illustrative(const hujson::Tree& tree) {
    for (const auto& section : tree.root().members) {
        if (!equals_ignoring_case(section.name.text, "grants")) continue;
        for (const auto& grant : section.value.elements) {
            for (const auto& member : grant.members) {
                if (is_illustrative(member.name.text)) return &member.name;
            }
        }
    }
    return nullptr;
}

/// Calls `visit(parent, position)` for each child of the arrays of that section.
template <typename Visit>
void for_each_rule(Draft& document, std::string_view section, Visit visit) {
    const auto at = document.find(section);
    if (!at || document.values[*at].kind != hujson::Kind::Array) return;
    for (auto& rule : document.values[*at].values) visit(rule);
}

class Fixer {
public:
    explicit Fixer(Draft document) : document_(std::move(document)) {}

    LintFix run(std::string_view text) {
        const auto grants = rewrite_illustrative_grants(document_, fix_.unclear);
        if (grants != 0)
            fix_.changes.push_back(
                fmt::format("rewrote {} grant{} from who, can, to, because", grants, grants == 1 ? "" : "s"));
        for_each_rule(document_, "acls", [&](Draft& rule) {
            rename(rule, "users", "src", "acls");
            rename(rule, "ports", "dst", "acls");
        });
        for_each_rule(document_, "tests", [&](Draft& test) {
            rename(test, "user", "src", "tests");
            rename(test, "allow", "accept", "tests");
        });
        const auto members = rename_members(document_);
        if (members != 0)
            fix_.changes.push_back(fmt::format("wrote autogroup:member {} times for autogroup:members", members));
        fix_.text = std::string{text};
        if (fix_.changes.empty()) return std::move(fix_);
        hujson::format(document_);
        fix_.text = document_.pack();
        return std::move(fix_);
    }

private:
    void rename(Draft& object, const char* from, const char* to, const char* section) {
        const auto at = object.find(from);
        if (object.kind != hujson::Kind::Object || !at || object.find(to)) return;
        object.names[*at].replace(Draft::string(to));
        const auto change = fmt::format("{}: wrote {} for {}", section, to, from);
        if (std::find(fix_.changes.begin(), fix_.changes.end(), change) == fix_.changes.end())
            fix_.changes.push_back(change);
    }

    static std::size_t rename_members(Draft& draft) {
        constexpr std::string_view kOld = "autogroup:members";
        std::size_t renamed = 0;
        if (draft.kind == hujson::Kind::String) {
            const auto value = draft.string_value();
            const auto word = trim(value);
            const bool whole = word == kOld;
            if (whole || (word.starts_with(kOld) && word[kOld.size()] == ':')) {
                draft.replace(Draft::string("autogroup:member" + std::string{word.substr(kOld.size())}));
                ++renamed;
            }
        }
        for (auto& child : draft.values) renamed += rename_members(child);
        return renamed;
    }

    Draft document_;
    LintFix fix_;
};

} // namespace

std::vector<LintFinding> LintReport::take() {
    std::stable_sort(findings_.begin(), findings_.end(),
                     [](const Placed& a, const Placed& b) { return a.offset < b.offset; });
    std::vector<LintFinding> out;
    for (auto& placed : findings_) {
        placed.finding.position = document_.position_of(placed.offset);
        out.push_back(std::move(placed.finding));
    }
    return out;
}

std::vector<LintFinding> lint(std::string_view text, const Tailnet* tailnet) {
    PolicyProblem problem;
    auto document = Document::parse(text, &problem);
    if (!document) {
        LintFinding refused{Severity::Error, problem.is_syntax ? "syntax" : "refused", problem.message,
                            problem.position, false};
        auto tree = hujson::Tree::parse(std::string{text});
        const auto* word = tree ? find_illustrative(*tree) : nullptr;
        if (word != nullptr && tree->position_of(*word).line == problem.position.line &&
            tree->position_of(*word).column == problem.position.column) {
            refused.code = "illustrative-grant";
            auto fixed = fix_policy(text);
            refused.fixable = fixed && fixed->unclear.empty();
            if (fixed && !fixed->unclear.empty()) refused.message += "; here it can't: " + fixed->unclear.front();
        }
        return {refused};
    }
    if (trim(text).empty())
        return {{Severity::Warning, "allows-everything", "an empty policy allows everything", {}, false}};
    auto tree = hujson::Tree::parse(std::string{text});
    LintReport report{*document};
    lint_names(*tree, *document, tailnet, report);
    lint_rules(*document, tailnet, report);
    lint_ssh_and_tests(*document, tailnet, report);
    return report.take();
}

std::string lint_text(const std::vector<LintFinding>& findings) {
    std::string out;
    for (const auto& finding : findings)
        out += fmt::format("{}: {}: {} [{}]\n", finding.position.text(), name_of(finding.severity), finding.message,
                           finding.code);
    return out;
}

std::string lint_json(const std::vector<LintFinding>& findings) {
    std::string out = "[";
    for (const auto& finding : findings) {
        if (&finding != &findings.front()) out += ',';
        out += fmt::format(
            "{{\"severity\":\"{}\",\"code\":\"{}\",\"line\":{},\"column\":{},\"fixable\":{},\"message\":",
            name_of(finding.severity), finding.code, finding.position.line, finding.position.column, finding.fixable);
        json::append(out, finding.message);
        out += '}';
    }
    return out + "]";
}

Result<LintFix> fix_policy(std::string_view text) {
    auto tree = hujson::Tree::parse(std::string{text});
    if (!tree) return tree.error();
    return Fixer{Draft::of(*tree)}.run(text);
}

} // namespace tailrace
