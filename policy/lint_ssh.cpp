// policy/lint_ssh.cpp - what is said about ssh rules and about tests.
#include "policy/judge.hpp"
#include "policy/lint_names.hpp"
#include "policy/quote.hpp"
#include "policy/stage.hpp"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

namespace tailrace {
namespace {

using Severity = LintFinding::Severity;

class SshLinter {
public:
    SshLinter(const Document& document, const Tailnet* tailnet, LintReport& report)
        : document_(document), report_(report), free_(std::make_shared<const Document>(without_postures(document))),
          judge_(CompiledPolicy::compile(free_, tailnet != nullptr ? *tailnet : imagined_tailnet({free_.get()}))) {}

    void run() {
        for (const auto& rule : free_->ssh) {
            sources_.push_back(sources_of(rule));
            outlines_.push_back(outline_of(rule, sources_.back()));
        }
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
            look_at_reach(i);
            look_behind_others(i);
        }
        if (first_unreached_ != nullptr)
            report_.add(Severity::Note, "not-compared", first_unreached_->offset,
                        "from this rule on it was not looked at whether port 22 can be reached: that would take too "
                        "long");
        if (first_uncompared_ != nullptr)
            report_.add(Severity::Note, "not-compared", first_uncompared_->offset,
                        "from this rule on it was not looked at which rules others contain: that would take too long");
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

    /// In a few bits who may go where by a rule: where another lacks one, it does not contain this rule.
    struct Outline {
        std::uint64_t sources = 0, destinations = 0;

        bool may_be_in(const Outline& outer) const {
            return (sources & ~outer.sources) == 0 && (destinations & ~outer.destinations) == 0;
        }
    };
    static Outline outline_of(const SshPolicyRule& rule, const BitSet& sources) {
        Outline outline;
        sources.for_each([&](std::size_t node) { outline.sources |= std::uint64_t{1} << (node % 64); });
        for (const auto& destination : rule.destinations)
            outline.destinations |= std::uint64_t{1} << (std::hash<std::string>{}(destination.text) % 64);
        return outline;
    }

    /// Calls `visit(from, to)` for devices that the rule connects until it returns false.
    template <typename Visit>
    void for_each_pair(std::size_t number, Visit visit) const {
        const auto& rule = free_->ssh[number];
        constexpr int kMostPairs = 20'000; // enough to find one; the rest would say the same
        int pairs = 0;
        bool going = true;
        const auto& directory = judge_.directory();
        sources_[number].for_each([&](std::size_t from) {
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
    void look_at_reach(std::size_t number) {
        constexpr std::uint16_t kSshPort = 22;
        constexpr std::size_t kMostWork = 400'000'000; // rules looked at
        const auto& rule = free_->ssh[number];
        bool any = false;
        bool reached = false;
        std::optional<NodeIndex> last;
        std::vector<std::pair<IpAddress, std::vector<const Rule*>>> from_there;
        for_each_pair(number, [&](NodeIndex from, NodeIndex to) {
            any = true;
            if (reach_work_ > kMostWork) return false;
            if (last != from) {
                from_there.clear();
                for (const auto& source : judge_.directory().node(from).addresses)
                    from_there.emplace_back(source, judge_.rules_from(source));
                reach_work_ += judge_.rules().size() * from_there.size();
                last = from;
            }
            for (const auto& [source, rules] : from_there) {
                for (const auto& target : judge_.directory().node(to).addresses) {
                    const Probe probe{source, target, kSshPort, 6};
                    for (const auto* each : rules) reached = reached || judge_.match(*each, probe).allows();
                    reach_work_ += rules.size();
                }
            }
            return !reached;
        });
        if (reach_work_ > kMostWork && !reached) {
            if (first_unreached_ == nullptr) first_unreached_ = &rule;
            return;
        }
        if (any && !reached)
            report_.add(Severity::Warning, "ssh-without-port", rule.offset,
                        "nobody whom this rule lets log in can reach port 22 there: acls or grants must allow it too");
    }

    /// All checks come before all accepts, so an accept for the same people and names is never reached; nor is a rule
    /// that another one of its kind contains. Of two equal ones the later is named.
    void look_behind_others(std::size_t i) {
        constexpr std::size_t kMostWork = 1'000'000'000; // pairs of rules
        if (compare_work_ > kMostWork) {
            if (first_uncompared_ == nullptr) first_uncompared_ = &free_->ssh[i];
            return;
        }
        compare_work_ += free_->ssh.size();
        for (std::size_t j = 0; j < free_->ssh.size(); ++j) {
            if (i == j || !outlines_[i].may_be_in(outlines_[j]) || !is_contained(i, j)) continue;
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

    bool is_contained(std::size_t inner, std::size_t outer) {
        const auto& rule = free_->ssh[inner];
        const auto& other = free_->ssh[outer];
        const auto& asked = document_.ssh[outer].postures;
        if (!asked.empty() && asked != document_.ssh[inner].postures) return false;
        if (rule.check && !other.check) return false;
        if (rule.check == other.check &&
            (rule.check_period != other.check_period || rule.accept_env != other.accept_env ||
             rule.recorders != other.recorders || rule.enforce_recorder != other.enforce_recorder))
            return false;
        const auto& sources = sources_[inner];
        if (sources.empty() || !sources.is_subset_of(sources_[outer])) return false;
        const auto names = [&](const std::string& user) {
            return std::find(other.users.begin(), other.users.end(), user) != other.users.end();
        };
        compare_work_ += 10 + sources.size() / 64 + rule.users.size() * other.users.size() +
                         rule.destinations.size() * other.destinations.size();
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
    std::vector<BitSet> sources_; ///< of each rule
    std::vector<Outline> outlines_;
    std::size_t reach_work_ = 0, compare_work_ = 0;
    const SshPolicyRule* first_unreached_ = nullptr;
    const SshPolicyRule* first_uncompared_ = nullptr;
};

} // namespace

void lint_ssh_and_tests(const Document& document, const Tailnet* tailnet, LintReport& report) {
    if (!document.ssh.empty()) {
        const auto devices = tailnet != nullptr ? tailnet->nodes.size() : imagined_tailnet({&document}).nodes.size();
        if (is_comparable(devices, std::max(rules_in(document), document.ssh.size())))
            SshLinter{document, tailnet, report}.run();
        else
            report.add(Severity::Note, "not-compared", document.ssh.front().offset,
                       fmt::format("the ssh rules were not looked at: they are too many for {} devices", devices));
    }
    const bool has_rules = (document.acls && !document.acls->empty()) || (document.grants && !document.grants->empty());
    if (has_rules && document.tests.empty())
        report.add(Severity::Note, "no-tests", 0,
                   "the policy has no tests: an edit that takes away access, or gives too much, goes unnoticed");
}

} // namespace tailrace
