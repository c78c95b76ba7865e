// policy/diff.cpp - compares the packets and capabilities that two policies allow. Everything else: diff_names.cpp.
#include "policy/diff.hpp"

#include "base/json/json.hpp"
#include "base/text.hpp"
#include "policy/access.hpp"
#include "policy/diff_names.hpp"
#include "policy/parties.hpp"
#include "policy/party_index.hpp"
#include "policy/policy_side.hpp"
#include "policy/quote.hpp"
#include "policy/stage.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>
#include <unordered_set>

namespace tailrace {
namespace {

/// Gathers single differences into sentences.
class Gatherer {
public:
    Gatherer(const std::vector<Party>& parties, const PartyNames& names) : parties_(parties), names_(names) {}

    void add(bool gain, std::size_t from, std::size_t to, const std::string& access,
             const std::set<std::size_t>& lines) {
        auto& entry = by_access_[{gain, access}][to];
        entry.who.push_back(static_cast<std::uint32_t>(from));
        entry.lines.insert(lines.begin(), lines.end());
    }

    void write(std::vector<PolicyChange>& out) {
        for (auto& [key, places] : by_access_) {
            add_themselves(places);
            // The same people lose or gain it on several destinations: one sentence.
            struct Sentence {
                const std::vector<std::uint32_t>* who;
                BitSet targets;
                std::set<std::size_t> lines;
            };
            std::vector<Sentence> sentences;
            std::map<std::vector<std::uint32_t>, std::size_t> known;
            for (auto& [to, entry] : places) {
                const auto [at, is_new] = known.try_emplace(std::move(entry.who), sentences.size());
                if (is_new) sentences.push_back({&at->first, BitSet{parties_.size()}, {}});
                auto& sentence = sentences[at->second];
                sentence.targets.insert(to);
                sentence.lines.insert(entry.lines.begin(), entry.lines.end());
            }
            for (const auto& sentence : sentences) {
                PolicyChange change;
                change.gain = key.first;
                change.access = key.second;
                BitSet who{parties_.size()};
                for (const auto party : *sentence.who) who.insert(party);
                change.name(names_.names_of(std::move(who)), names_.names_of(sentence.targets));
                change.lines.assign(sentence.lines.begin(), sentence.lines.end());
                out.push_back(std::move(change));
            }
        }
    }

private:
    struct Entry {
        std::vector<std::uint32_t> who;
        std::set<std::size_t> lines;
    };

    /// Nobody sends to himself; but where everybody gains something on everybody, leaving each out of his own line
    /// would make a sentence of each.
    void add_themselves(std::map<std::size_t, Entry>& places) const {
        BitSet everybody{parties_.size()};
        for (const auto& [to, entry] : places) {
            for (const auto party : entry.who) everybody.insert(party);
        }
        for (auto& [to, entry] : places) {
            if (parties_[to].members.size() < 2 && everybody.contains(to))
                entry.who.push_back(static_cast<std::uint32_t>(to));
            std::sort(entry.who.begin(), entry.who.end());
            entry.who.erase(std::unique(entry.who.begin(), entry.who.end()), entry.who.end());
        }
    }

    const std::vector<Party>& parties_;
    const PartyNames& names_;
    std::map<std::pair<bool, std::string>, std::map<std::size_t, Entry>> by_access_;
};

/// Walks over the pairs that a rule of only one policy concerns.
class ReachDiff {
public:
    ReachDiff(const PolicySide& before, const PolicySide& after, const std::vector<Party>& parties,
              std::size_t most_work, Gatherer& gatherer)
        : before_(before), after_(after), parties_(parties), gatherer_(gatherer), budget_(most_work) {}

    /// Says what was not compared.
    void run(std::vector<std::string>& notes) {
        std::unordered_map<std::string, std::size_t> old_rules; // so many with that key
        for (std::size_t i = 0; i < before_.rules().size(); ++i) ++old_rules[before_.key_of(i)];
        std::vector<std::size_t> added, gone;
        for (std::size_t i = 0; i < after_.rules().size(); ++i) {
            const auto same = old_rules.find(after_.key_of(i));
            if (same == old_rules.end() || same->second == 0)
                added.push_back(i);
            else
                --same->second;
        }
        for (std::size_t i = 0; i < before_.rules().size(); ++i) {
            if (old_rules[before_.key_of(i)] != 0) gone.push_back(i);
        }
        compare_all(after_, added, "", notes);
        compare_all(before_, gone, "old ", notes);
    }

private:
    void compare_all(const PolicySide& side, const std::vector<std::size_t>& rules, const char* which,
                     std::vector<std::string>& notes) {
        for (auto rule = rules.begin(); rule != rules.end(); ++rule) {
            if (compare_all(side, *rule)) continue;
            notes.push_back(fmt::format(
                "not compared to the end, for that would take too long: what {} of the {} rules "
                "that differ say, from {}line {} on; fewer rules at a time can be compared",
                rules.end() - rule, rules.size(), which, side.position_of(side.rules()[*rule].offset).line));
            return;
        }
    }

    /// False: the work would be too much.
    bool compare_all(const PolicySide& side, std::size_t rule) {
        for (const auto from : side.sources_of(rule)) {
            for (const auto to : side.destinations_of(rule)) {
                if (from == to && parties_[from].members.size() < 2) continue;
                constexpr std::size_t kPairCosts = 50; // rules that could be looked at meanwhile
                if (!budget_.take(1)) return false;
                if (!seen_.insert(std::uint64_t{from} << 32 | to).second) continue;
                if (!budget_.take(kPairCosts)) return false;
                compare(from, to);
            }
        }
        return true;
    }

    static Access together(const PolicySide::Parts& parts) {
        Access all;
        for (const auto& [offset, part] : parts) all.add(part);
        return all;
    }

    void compare(std::size_t from, std::size_t to) {
        std::array<Access, 2> gained, lost; // IPv4, IPv6
        std::array<bool, 2> possible{};
        std::set<std::uint32_t> now, then;
        for (const bool v4 : {true, false}) {
            const std::size_t family = v4 ? 0 : 1;
            possible[family] = parties_[from].address(v4) != nullptr && parties_[to].address(v4) != nullptr;
            const auto old_parts = before_.parts(from, to, v4, budget_);
            const auto new_parts = after_.parts(from, to, v4, budget_);
            const auto old_access = together(old_parts);
            const auto new_access = together(new_parts);
            gained[family] = new_access.minus(old_access, kBeforeOnly);
            lost[family] = old_access.minus(new_access, kStill);
            add_carriers(new_parts, old_access, kBeforeOnly, now);
            add_carriers(old_parts, new_access, kStill, then);
        }
        report(true, from, to, gained, possible, after_, now);
        report(false, from, to, lost, possible, before_, then);
    }

    /// The rules that say something which the other policy does not.
    static void add_carriers(const PolicySide::Parts& parts, const Access& other, const char* still,
                             std::set<std::uint32_t>& offsets) {
        for (const auto& [offset, part] : parts) {
            if (!part.minus(other, still).empty()) offsets.insert(offset);
        }
    }

    void report(bool gain, std::size_t from, std::size_t to, const std::array<Access, 2>& access,
                const std::array<bool, 2>& possible, const PolicySide& side, const std::set<std::uint32_t>& offsets) {
        if (access[0].empty() && access[1].empty()) return;
        std::set<std::size_t> lines;
        for (const auto offset : offsets) lines.insert(side.position_of(offset).line);
        const bool alike = !possible[0] || !possible[1] || access[0] == access[1];
        for (const std::size_t family : {std::size_t{0}, std::size_t{1}}) {
            if (access[family].empty() || (alike && family == 1 && possible[0])) continue;
            const char* suffix = alike ? "" : family == 0 ? " over IPv4" : " over IPv6";
            gatherer_.add(gain, from, to, access[family].text() + suffix, lines);
        }
    }

    static constexpr const char* kBeforeOnly = "before only";
    static constexpr const char* kStill = "still";

    const PolicySide& before_;
    const PolicySide& after_;
    const std::vector<Party>& parties_;
    Gatherer& gatherer_;
    WorkBudget budget_;
    std::unordered_set<std::uint64_t> seen_; ///< pairs
};

/// Postures are named as conditions, and families of addresses compared for all: neither is applied beforehand.
std::shared_ptr<const Document> plain(const Document& document) {
    auto copy = without_postures(document);
    copy.disable_ipv4 = false;
    for (auto& entry : copy.node_attributes)
        entry.attributes.erase(std::remove(entry.attributes.begin(), entry.attributes.end(), "disable-ipv4"),
                               entry.attributes.end());
    return std::make_shared<const Document>(std::move(copy));
}

void append_list(std::string& out, const char* name, const std::vector<std::string>& list) {
    out += fmt::format(",\"{}\":", name);
    json::append(out, list);
}

} // namespace

PolicyDiff diff_policies(const Document& before, const Document& after, const Tailnet* tailnet, std::size_t most_work) {
    const auto stage = tailnet != nullptr ? *tailnet : imagined_tailnet({&before, &after});
    PolicyDiff diff;
    const auto rules = std::max(rules_in(before), rules_in(after));
    if (!is_comparable(stage.nodes.size(), rules)) {
        diff.notes.push_back(fmt::format(
            "not compared: up to {} rules for {} devices, users and tags are too many{}", rules, stage.nodes.size(),
            tailnet == nullptr ? "; with the tailnet given only what is there counts" : ""));
        return diff;
    }
    const Judge old_judge{CompiledPolicy::compile(plain(before), stage)};
    const Judge new_judge{CompiledPolicy::compile(plain(after), stage)};
    const auto parties = find_parties(old_judge, new_judge);
    const PartyNames names{parties, new_judge};
    const PartyIndex index{parties, new_judge.directory()};
    const PolicySide old_side{before, old_judge, index};
    const PolicySide new_side{after, new_judge, index};
    Gatherer reach{parties, names};
    ReachDiff{old_side, new_side, parties, most_work, reach}.run(diff.notes);
    reach.write(diff.changes);
    diff_names(before, after, stage, parties, names, diff);
    return diff;
}

void PolicyChange::name(NamedParties named_who, NamedParties named_what) {
    who = std::move(named_who.all);
    who_said = std::move(named_who.said);
    what = std::move(named_what.all);
    what_said = std::move(named_what.said);
}

std::string PolicyChange::text() const {
    constexpr std::size_t kMost = 8;
    const bool one = who_said.size() == 1;
    auto out = fmt::format("{} {} {}", some_of(who_said, kMost),
                           gain ? (one ? "gains" : "gain") : (one ? "loses" : "lose"), access);
    if (!what_said.empty()) out += " on " + some_of(what_said, kMost);
    if (!lines.empty()) {
        std::vector<std::string> texts;
        for (const auto line : lines) texts.push_back(std::to_string(line));
        out += fmt::format(" ({}line{} {})", gain ? "" : "old ", lines.size() == 1 ? "" : "s", some_of(texts, kMost));
    }
    return out;
}

std::string PolicyDiff::text() const {
    if (empty()) return "nobody gains or loses anything\n";
    std::string out;
    for (const auto& change : changes) out += change.text() + "\n";
    for (const auto& note : notes) out += note + "\n";
    return out;
}

std::string PolicyDiff::json() const {
    std::string out = "{\"changes\":[";
    for (const auto& change : changes) {
        if (&change != &changes.front()) out += ',';
        out += fmt::format("{{\"kind\":\"{}\"", change.gain ? "gain" : "loss");
        append_list(out, "who", change.who);
        out += ",\"access\":";
        json::append(out, change.access);
        append_list(out, "what", change.what);
        out += ",\"lines\":";
        json::append(out, change.lines);
        out += ",\"text\":";
        json::append(out, change.text());
        out += '}';
    }
    out += "]";
    append_list(out, "notes", notes);
    return out + "}";
}

} // namespace tailrace
