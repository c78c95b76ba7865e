// policy/diff.cpp - compares the packets and capabilities that two policies allow. Everything else: diff_names.cpp.
#include "policy/diff.hpp"

#include "base/json/json.hpp"
#include "base/text.hpp"
#include "policy/access.hpp"
#include "policy/diff_names.hpp"
#include "policy/parties.hpp"
#include "policy/quote.hpp"
#include "policy/stage.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <set>
#include <tuple>
#include <unordered_map>
#include <unordered_set>

namespace tailrace {
namespace {

/// Numbers of parties in order; many rules have the same.
using PartyList = std::shared_ptr<const std::vector<std::uint32_t>>;

/// The parties by the addresses that stand for them.
class PartyIndex {
public:
    PartyIndex(const std::vector<Party>& parties, const Directory& directory)
        : parties_(parties), directory_(directory), first_of_(directory.size(), kNone) {
        for (std::uint32_t i = 0; i < parties.size(); ++i) {
            for (const auto& ip : parties[i].representatives) addresses_.emplace_back(ip, i);
            if (parties[i].is_device()) first_of_[parties[i].members.front()] = i;
        }
        std::sort(addresses_.begin(), addresses_.end());
    }

    const std::vector<Party>& parties() const { return parties_; }

    void add_range(const IpRange& range, std::vector<std::uint32_t>& out) const {
        auto at = std::lower_bound(addresses_.begin(), addresses_.end(), std::pair{range.first, std::uint32_t{0}});
        for (; at != addresses_.end() && range.contains(at->first); ++at) out.push_back(at->second);
    }
    /// Those with an address of one of the nodes.
    void add_nodes(const BitSet& nodes, std::vector<std::uint32_t>& out) const {
        nodes.for_each([&](std::size_t node) {
            for (const auto address : directory_.addresses_of(static_cast<NodeIndex>(node))) {
                const auto& ip = directory_.addresses()[address].ip;
                add_range({ip, ip}, out);
            }
        });
    }
    /// Those whose first member is one of the nodes.
    void add_first_members(const BitSet& nodes, std::vector<std::uint32_t>& out) const {
        nodes.for_each([&](std::size_t node) {
            const auto party = first_of_[node];
            if (party != kNone && !parties_[party].representatives.empty()) out.push_back(party);
        });
    }
    void add_all(std::vector<std::uint32_t>& out) const {
        for (std::uint32_t i = 0; i < parties_.size(); ++i) {
            if (!parties_[i].representatives.empty()) out.push_back(i);
        }
    }

private:
    static constexpr std::uint32_t kNone = UINT32_MAX;

    const std::vector<Party>& parties_;
    const Directory& directory_;
    std::vector<std::pair<IpAddress, std::uint32_t>> addresses_;
    std::vector<std::uint32_t> first_of_;
};

/// Where the time of a comparison goes is bounded: so many pairs of parties, so many rules looked at for them.
class WorkBudget {
public:
    explicit WorkBudget(std::size_t most) : left_(most) {}

    bool take(std::size_t work) {
        left_ -= std::min(left_, work);
        return left_ != 0;
    }

private:
    std::size_t left_;
};

/// One of the two policies, its rules by the parties that they concern.
class Side {
public:
    Side(const Document& original, const Judge& judge, const PartyIndex& index)
        : document_(original), judge_(judge), index_(index), parties_(index.parties()) {
        note_conditions();
        for (std::size_t i = 0; i < judge.rules().size(); ++i) rules_.push_back(parties_of(judge.rules()[i]));
        group_by_source();
        keys_.reserve(rules_.size());
        for (const auto& rule : judge.rules()) keys_.push_back(make_key(rule));
    }

    const std::vector<Rule>& rules() const { return judge_.rules(); }
    hujson::Position position_of(std::uint32_t offset) const { return document_.position_of(offset); }

    /// Whom a rule concerns. Networks that nobody routes are concerned only by rules that name them.
    const std::vector<std::uint32_t>& sources_of(std::size_t rule) const { return *rules_[rule].concerned_sources; }
    const std::vector<std::uint32_t>& destinations_of(std::size_t rule) const {
        return *rules_[rule].concerned_destinations;
    }

    /// What single rules say, by their offsets.
    using Parts = std::vector<std::pair<std::uint32_t, Access>>;

    /// What `from` may do with `to` over one family.
    Parts parts(std::size_t from, std::size_t to, bool v4, WorkBudget& budget) const {
        Parts parts;
        const auto* source = parties_[from].address(v4);
        const auto* target = parties_[to].address(v4);
        if (source == nullptr || target == nullptr) return parts;
        for (const auto group : groups_of_[from]) {
            (void)budget.take(groups_[group].size());
            for (const auto i : groups_[group]) {
                const auto& destinations = *rules_[i].destinations;
                if (!std::binary_search(destinations.begin(), destinations.end(), to)) continue;
                const auto& rule = judge_.rules()[i];
                if (!judge_.has_source(rule, *source, *target)) continue;
                for (const auto& destination : rule.destinations) {
                    if (!leads_to(rule, destination, to, v4)) continue;
                    if (parts.empty() || parts.back().first != rule.offset) parts.emplace_back(rule.offset, Access{});
                    add(parts.back().second, rule, destination);
                }
            }
        }
        return parts;
    }

    /// What decides whether a rule is the same as one of the other policy.
    const std::string& key_of(std::size_t i) const { return keys_[i]; }

private:
    struct RuleParties {
        PartyList sources, destinations;
        PartyList concerned_sources, concerned_destinations;
    };

    std::string make_key(const Rule& rule) const {
        std::string key =
            fmt::format("{}{}{}{}", static_cast<int>(rule.kind), rule.self, rule.self_reply, rule.silent) +
            condition(rule);
        const auto add_set = [&](const BitSet& set) { key += fmt::format("|{:x}:{}", set.hash(), set.count()); };
        if (rule.self) {
            add_set(rule.self_sources);
        } else {
            add_set(rule.sources->addresses);
            key += join(rule.sources->words, " ");
        }
        for (const int protocol : rule.protocols) key += fmt::format("[{}]", protocol);
        for (const auto& destination : rule.destinations) {
            key += fmt::format("|{}", static_cast<int>(destination.kind));
            if (destination.kind == RuleDestination::Kind::Nodes && !rule.self) add_set(destination.nodes);
            for (const auto& [range, text] : destination.ranges) key += " " + text;
            key += ports_text(destination.ports);
        }
        add_set(rule.receivers);
        if (rule.capabilities) {
            for (const auto& [name, values] : *rule.capabilities)
                key += "|" + name + "=" + join(values.value_or(std::vector<std::string>{}), ",");
        }
        return key;
    }

    bool leads_to(const Rule& rule, const RuleDestination& destination, std::size_t to, bool v4) const {
        const auto& party = parties_[to];
        const auto* ip = party.address(v4);
        if (ip == nullptr) return false;
        if (rule.self) return party.is_device() && rule.receivers.contains(party.members.front());
        if (rule.kind == Rule::Kind::Capabilities && !party.is_device()) return false;
        return judge_.contains(destination, *ip);
    }

    static PartyList tidy(std::vector<std::uint32_t> parties) {
        std::sort(parties.begin(), parties.end());
        parties.erase(std::unique(parties.begin(), parties.end()), parties.end());
        parties.shrink_to_fit();
        return std::make_shared<const std::vector<std::uint32_t>>(std::move(parties));
    }
    template <typename Keep>
    static PartyList only(const PartyList& list, Keep keep) {
        if (std::all_of(list->begin(), list->end(), keep)) return list;
        std::vector<std::uint32_t> kept;
        std::copy_if(list->begin(), list->end(), std::back_inserter(kept), keep);
        return std::make_shared<const std::vector<std::uint32_t>>(std::move(kept));
    }

    RuleParties parties_of(const Rule& rule) {
        static const auto kNobody = std::make_shared<const std::vector<std::uint32_t>>();
        if (rule.silent) return {kNobody, kNobody, kNobody, kNobody};
        RuleParties own;
        std::tie(own.sources, own.concerned_sources) = sources_of(rule);
        std::tie(own.destinations, own.concerned_destinations) = destinations_of(rule);
        return own;
    }

    std::pair<PartyList, PartyList> sources_of(const Rule& rule) {
        const auto asks = [&](std::uint32_t party) { return parties_[party].asks; };
        const auto exists = [&](std::uint32_t party) { return parties_[party].exists; };
        std::vector<std::uint32_t> found;
        if (rule.self) {
            index_.add_first_members(rule.self_sources, found);
            auto list = only(tidy(std::move(found)), asks);
            return {list, list};
        }
        auto& [list, concerned] = lists_of_sources_[rule.sources];
        if (list) return {list, concerned};
        if (rule.sources->everything) index_.add_all(found);
        const auto& addresses = judge_.directory().addresses();
        rule.sources->addresses.for_each([&](std::size_t address) {
            index_.add_range({addresses[address].ip, addresses[address].ip}, found);
        });
        for (const auto& range : rule.sources->ranges.ranges()) index_.add_range(range, found);
        list = only(tidy(std::move(found)), asks);
        concerned = rule.sources->everything ? only(list, exists) : list;
        return {list, concerned};
    }

    std::pair<PartyList, PartyList> destinations_of(const Rule& rule) {
        const auto fits = [&](std::uint32_t party) {
            return rule.kind != Rule::Kind::Capabilities || parties_[party].is_device();
        };
        const auto exists = [&](std::uint32_t party) { return parties_[party].exists; };
        if (rule.self) {
            std::vector<std::uint32_t> found;
            index_.add_first_members(rule.receivers, found);
            auto list = tidy(std::move(found));
            return {list, only(list, exists)};
        }
        if (rule.destinations.size() == 1 && rule.destinations.front().ranges.empty()) {
            const auto list = only(parties_of(rule.destinations.front()), fits);
            return {list, only(list, exists)};
        }
        std::vector<std::uint32_t> all, concerned;
        for (const auto& destination : rule.destinations) {
            const auto list = only(parties_of(destination), fits);
            const auto existing = destination.kind == RuleDestination::Kind::Ranges ? list : only(list, exists);
            all.insert(all.end(), list->begin(), list->end());
            concerned.insert(concerned.end(), existing->begin(), existing->end());
        }
        return {tidy(std::move(all)), tidy(std::move(concerned))};
    }

    PartyList parties_of(const RuleDestination& destination) {
        std::vector<std::uint32_t> found;
        switch (destination.kind) {
        case RuleDestination::Kind::Everything:
            if (!everybody_) {
                index_.add_all(found);
                everybody_ = tidy(std::move(found));
            }
            return everybody_;
        case RuleDestination::Kind::Internet:
            if (!internet_) {
                for (const auto& range : internet_ranges()) index_.add_range(range, found);
                internet_ = tidy(std::move(found));
            }
            return internet_;
        case RuleDestination::Kind::Nodes: {
            auto& list = lists_of_nodes_[&destination.nodes.get()];
            if (!list) {
                index_.add_nodes(destination.nodes, found);
                list = tidy(std::move(found));
            }
            return list;
        }
        case RuleDestination::Kind::Ranges:
            break;
        }
        for (const auto& [range, text] : destination.ranges) index_.add_range(range, found);
        return tidy(std::move(found));
    }

    /// Rules with the same sources are one group, and a party knows its groups.
    void group_by_source() {
        groups_of_.resize(parties_.size());
        std::map<const std::vector<std::uint32_t>*, std::size_t> known;
        for (std::uint32_t i = 0; i < rules_.size(); ++i) {
            const auto [group, is_new] = known.try_emplace(rules_[i].sources.get(), groups_.size());
            if (is_new) {
                groups_.emplace_back();
                for (const auto party : *rules_[i].sources)
                    groups_of_[party].push_back(static_cast<std::uint32_t>(group->second));
            }
            groups_[group->second].push_back(i);
        }
    }

    void add(Access& access, const Rule& rule, const RuleDestination& destination) const {
        const auto& when = condition(rule);
        if (rule.kind == Rule::Kind::Capabilities) {
            for (const auto& [name, values] : *rule.capabilities) {
                const auto all = values.value_or(std::vector<std::string>{});
                access.add_word(when, "capability " + name + (all.empty() ? "" : " " + join(all, ",")));
            }
            return;
        }
        if (rule.protocols.empty()) {
            access.add_ports(when, 6, destination.ports);
            access.add_ports(when, 17, destination.ports);
        }
        for (const int protocol : rule.protocols) access.add_ports(when, protocol, destination.ports);
    }

    /// Postures and routers that rules ask for.
    void note_conditions() {
        const auto note = [&](const auto& element) {
            std::vector<std::string> parts;
            const auto& postures = element.postures.empty() ? document_.default_source_postures : element.postures;
            if (!postures.empty()) parts.push_back("if " + join(postures, " or "));
            if constexpr (requires { element.via; }) {
                if (!element.via.empty()) parts.push_back("through " + join(element.via, " or "));
            }
            if (!parts.empty()) conditions_[element.offset] = join(parts, ", ");
        };
        if (document_.acls) {
            for (const auto& acl : *document_.acls) note(acl);
        }
        if (document_.grants) {
            for (const auto& grant : *document_.grants) note(grant);
        }
    }
    const std::string& condition(const Rule& rule) const {
        static const std::string kNone;
        const auto found = conditions_.find(rule.offset);
        return found == conditions_.end() ? kNone : found->second;
    }

    const Document& document_;
    const Judge& judge_;
    const PartyIndex& index_;
    const std::vector<Party>& parties_;
    std::vector<RuleParties> rules_;
    std::vector<std::string> keys_;
    std::vector<std::vector<std::uint32_t>> groups_, groups_of_; ///< rules of a group, groups of a party
    std::unordered_map<std::uint32_t, std::string> conditions_;
    std::unordered_map<const SourceSet*, std::pair<PartyList, PartyList>> lists_of_sources_;
    std::unordered_map<const BitSet*, PartyList> lists_of_nodes_;
    PartyList everybody_, internet_;
};

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
    ReachDiff(const Side& before, const Side& after, const std::vector<Party>& parties, std::size_t most_work,
              Gatherer& gatherer)
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
    void compare_all(const Side& side, const std::vector<std::size_t>& rules, const char* which,
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
    bool compare_all(const Side& side, std::size_t rule) {
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

    static Access together(const Side::Parts& parts) {
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
    static void add_carriers(const Side::Parts& parts, const Access& other, const char* still,
                             std::set<std::uint32_t>& offsets) {
        for (const auto& [offset, part] : parts) {
            if (!part.minus(other, still).empty()) offsets.insert(offset);
        }
    }

    void report(bool gain, std::size_t from, std::size_t to, const std::array<Access, 2>& access,
                const std::array<bool, 2>& possible, const Side& side, const std::set<std::uint32_t>& offsets) {
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

    const Side& before_;
    const Side& after_;
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
    const Side old_side{before, old_judge, index};
    const Side new_side{after, new_judge, index};
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
