// policy/lint_ssh.cpp - what is said about ssh rules and about tests.
#include "policy/judge.hpp"
#include "policy/lint_names.hpp"
#include "policy/quote.hpp"
#include "policy/stage.hpp"

#include <algorithm>

namespace tailrace {
namespace {

using Severity = LintFinding::Severity;

class SshLinter {
public:
    SshLinter(const Document& document, const Tailnet* tailnet, LintReport& report)
        : document_(document), report_(report), free_(std::make_shared<const Document>(without_postures(document))),
          judge_(CompiledPolicy::compile(free_, tailnet != nullptr ? *tailnet : imagined_tailnet({free_.get()}))) {}

    void run() {
        for (std::size_t i = 0; i < free_->ssh.size(); ++i) {
            const auto& rule = free_->ssh[i];
            if (rule.sources.empty() || rule.destinations.empty()) {
                report_.add(Severity::Warning, "never-matches", rule.offset,
                            fmt::format("this rule can never match anything: {} is empty",
                                        rule.sources.empty() ? "src" : "dst"));
                continue;
            }
            if (is_for_nobody(rule)) {
                report_.add(Severity::Warning, "never-matches", rule.offset,
                            "this rule can never match anything: the groups in src have no members");
                continue;
            }
            const bool root = std::find(rule.users.begin(), rule.users.end(), "root") != rule.users.end();
            if (root && !rule.check && !is_tagged_only(rule))
                report_.add(Severity::Note, "root-without-check", rule.offset,
                            "people become root by this rule without being asked to log in again; \"check\" asks");
            if (rule.enforce_recorder && rule.recorders.empty())
                report_.add(Severity::Warning, "recorder-missing", rule.offset,
                            "enforceRecorder without a recorder does nothing");
            look_at_reach(rule);
            look_behind_others(i);
        }
    }

private:
    static bool is_tagged_only(const SshPolicyRule& rule) {
        return std::all_of(rule.sources.begin(), rule.sources.end(), [](const Selector& source) {
            return source.kind == Selector::Kind::Tag || source.is(Autogroup::Tagged);
        });
    }

    BitSet sources_of(const SshPolicyRule& rule) const {
        BitSet nodes{judge_.directory().size()};
        for (const auto& source : rule.sources) nodes |= judge_.directory().nodes_matching(source);
        return nodes;
    }

    /// Calls `visit(from, to)` for devices that the rule connects until it returns false.
    template <typename Visit>
    void for_each_pair(const SshPolicyRule& rule, Visit visit) const {
        constexpr int kMostPairs = 20'000; // enough to find one; the rest would say the same
        int pairs = 0;
        bool going = true;
        const auto& directory = judge_.directory();
        sources_of(rule).for_each([&](std::size_t from) {
            if (!going) return;
            const auto source = static_cast<NodeIndex>(from);
            BitSet targets{directory.size()};
            for (const auto& destination : rule.destinations) {
                if (!destination.is(Autogroup::Self))
                    targets |= directory.nodes_matching(destination);
                else if (directory.untagged().contains(from))
                    targets |= directory.nodes_of_user(directory.node(source).user);
            }
            targets.for_each([&](std::size_t to) {
                if (going && ++pairs < kMostPairs) going = visit(source, static_cast<NodeIndex>(to));
            });
        });
    }

    /// The ssh section opens no port by itself.
    void look_at_reach(const SshPolicyRule& rule) {
        constexpr std::uint16_t kSshPort = 22;
        bool any = false;
        bool reached = false;
        for_each_pair(rule, [&](NodeIndex from, NodeIndex to) {
            any = true;
            for (const auto& source : judge_.directory().node(from).addresses) {
                for (const auto& target : judge_.directory().node(to).addresses) {
                    if (judge_.allows({source, target, kSshPort, 6})) reached = true;
                }
            }
            return !reached;
        });
        if (any && !reached)
            report_.add(Severity::Warning, "ssh-without-port", rule.offset,
                        "nobody whom this rule lets log in can reach port 22 there: acls or grants must allow it too");
    }

    /// All checks come before all accepts, so an accept for the same people and names is never reached; nor is a rule
    /// that another one of its kind contains. Of two equal ones the later is named.
    void look_behind_others(std::size_t i) {
        for (std::size_t j = 0; j < free_->ssh.size(); ++j) {
            if (i == j || !is_contained(i, j)) continue;
            if (i < j && is_contained(j, i)) continue;
            const auto& other = free_->ssh[j];
            report_.add(Severity::Warning, "shadowed", free_->ssh[i].offset,
                        fmt::format("this rule adds nothing: {} {}", document_.position_of(other.offset).text(),
                                    other.check && !free_->ssh[i].check
                                        ? "checks the same logins, and checks come first"
                                        : "allows the same logins"));
            return;
        }
    }

    bool is_contained(std::size_t inner, std::size_t outer) const {
        const auto& rule = free_->ssh[inner];
        const auto& other = free_->ssh[outer];
        const auto& asked = document_.ssh[outer].postures;
        if (!asked.empty() && asked != document_.ssh[inner].postures) return false;
        if (rule.check && !other.check) return false;
        if (rule.check == other.check &&
            (rule.check_period != other.check_period || rule.accept_env != other.accept_env ||
             rule.recorders != other.recorders || rule.enforce_recorder != other.enforce_recorder))
            return false;
        const auto sources = sources_of(rule);
        if (sources.empty() || !sources.is_subset_of(sources_of(other))) return false;
        const auto names = [&](const std::string& user) {
            return std::find(other.users.begin(), other.users.end(), user) != other.users.end();
        };
        const bool all_users = std::all_of(rule.users.begin(), rule.users.end(), [&](const std::string& user) {
            return names(user) || (user != "root" && names("autogroup:nonroot"));
        });
        return all_users &&
               std::all_of(rule.destinations.begin(), rule.destinations.end(), [&](const Selector& destination) {
                   return std::any_of(other.destinations.begin(), other.destinations.end(),
                                      [&](const Selector& place) { return place.text == destination.text; });
               });
    }

    bool is_for_nobody(const SshPolicyRule& rule) const {
        return std::all_of(rule.sources.begin(), rule.sources.end(), [&](const Selector& source) {
            if (source.kind != Selector::Kind::Group) return false;
            const auto group = document_.groups.find(source.name);
            return group != document_.groups.end() && group->second.empty();
        });
    }

    const Document& document_;
    LintReport& report_;
    std::shared_ptr<const Document> free_;
    Judge judge_;
};

} // namespace

void lint_ssh_and_tests(const Document& document, const Tailnet* tailnet, LintReport& report) {
    if (!document.ssh.empty()) SshLinter{document, tailnet, report}.run();
    const bool has_rules = (document.acls && !document.acls->empty()) || (document.grants && !document.grants->empty());
    if (has_rules && document.tests.empty())
        report.add(Severity::Note, "no-tests", 0,
                   "the policy has no tests: an edit that takes away access, or gives too much, goes unnoticed");
}

} // namespace tailrace
