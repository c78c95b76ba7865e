// policy/diff.hpp - who gains and who loses what when one policy takes the place of another?
#pragma once
#include "policy/document.hpp"
#include "policy/tailnet.hpp"

#include <cstddef>
#include <string>
#include <vector>

namespace tailrace {

/// Names of people, devices and networks: all, and as they are said to people, where
/// "10.33.0.0/24, 10.33.1.0/24 and 6 more" is one.
struct NamedParties {
    std::vector<std::string> all, said;
};

/// One sentence of the difference: these may now (or no longer) do this with those.
struct PolicyChange {
    bool gain = true;
    std::vector<std::string> who;
    std::string access;             ///< "tcp 22", "the login root", "the attribute funnel"
    std::vector<std::string> what;  ///< destinations; empty where the access says it all
    std::vector<std::size_t> lines; ///< of the rules that give it: in the new policy for a gain, else in the old one
    std::vector<std::string> who_said, what_said; ///< the same for text()

    void name(NamedParties named_who, NamedParties named_what);

    /// "group:ops gains tcp 22 on tag:web (line 12)"
    std::string text() const;
};

struct PolicyDiff {
    std::vector<PolicyChange> changes;
    std::vector<std::string> notes; ///< what is no access of anybody: posture:x asks for something else

    bool empty() const { return changes.empty() && notes.empty(); }
    std::string text() const; ///< a line a sentence; says so when nothing changes
    std::string json() const;
};

/// Compares what the rules mean, not how they are written. With a tailnet: for its devices; without one for a device of
/// everybody that either policy names.
/// What would take longer than `most_work`, some seconds, is left out, and a note says so.
inline constexpr std::size_t kMostDiffWork = 150'000'000;
PolicyDiff diff_policies(const Document& before, const Document& after, const Tailnet* tailnet = nullptr,
                         std::size_t most_work = kMostDiffWork);

} // namespace tailrace
