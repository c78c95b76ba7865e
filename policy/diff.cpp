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
#include <set>

namespace tailrace {
namespace {

/// One of the two policies, its rules by the parties that they concern.
class Side {
public:
    Side(const Document& original, const Judge& judge, const std::vector<Party>& parties)
        : document_(original), judge_(judge), parties_(parties), rules_(judge.rules().size()),
          by_source_(parties.size()) {
        for (std::size_t i = 0; i < judge.rules().size(); ++i) index(i);
    }

    const std::vector<Rule>& rules() const { return judge_.rules(); }
    hujson::Position position_of(std::uint32_t offset) const { return document_.position_of(offset); }

    /// Whom a rule concerns. Networks that nobody routes are concerned only by rules that name them.
    const BitSet& sources_of(std::size_t rule) const { return rules_[rule].concerned_sources; }
    const BitSet& destinations_of(std::size_t rule) const { return rules_[rule].concerned_destinations; }

    /// What `from` may do with `to` over one family; `lines` receives the rules that say so.
    Access access(std::size_t from, std::size_t to, bool v4, std::set<std::uint32_t>* lines = nullptr) const {
        Access access;
        const auto* source = parties_[from].address(v4);
        const auto* target = parties_[to].address(v4);
        if (source == nullptr || target == nullptr) return access;
        for (const auto i : by_source_[from]) {
            if (!rules_[i].destinations.contains(to)) continue;
            const auto& rule = judge_.rules()[i];
            if (!judge_.has_source(rule, *source, *target)) continue;
            for (const auto& destination : rule.destinations) {
                if (!leads_to(rule, destination, to, v4)) continue;
                add(access, rule, destination);
                if (lines != nullptr) lines->insert(rule.offset);
            }
        }
        return access;
    }

    /// What decides whether a rule is the same as one of the other policy.
    std::string key_of(std::size_t i) const {
        const auto& rule = judge_.rules()[i];
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

private:
    struct RuleParties {
        BitSet sources, destinations;
        BitSet concerned_sources, concerned_destinations;
    };

    bool leads_to(const Rule& rule, const RuleDestination& destination, std::size_t to, bool v4) const {
        const auto& party = parties_[to];
        const auto* ip = party.address(v4);
        if (ip == nullptr) return false;
        if (rule.self) return party.is_device() && rule.receivers.contains(party.members.front());
        if (rule.kind == Rule::Kind::Capabilities && !party.is_device()) return false;
        return judge_.contains(destination, *ip);
    }

    void index(std::size_t i) {
        const auto& rule = judge_.rules()[i];
        auto& own = rules_[i];
        own.sources = own.destinations = BitSet{parties_.size()};
        own.concerned_sources = own.concerned_destinations = own.sources;
        if (rule.silent) return;
        for (std::size_t party = 0; party < parties_.size(); ++party) {
            const bool exists = parties_[party].exists;
            for (const auto& ip : parties_[party].representatives) {
                const bool source = rule.self ? parties_[party].is_device() &&
                                                    rule.self_sources.contains(parties_[party].members.front())
                                              : rule.sources->contains(judge_.directory(), ip);
                const bool asks = source && parties_[party].asks;
                if (asks) own.sources.insert(party);
                if (asks && (exists || !rule.sources->everything)) own.concerned_sources.insert(party);
                for (const auto& destination : rule.destinations) {
                    if (!leads_to(rule, destination, party, ip.is_v4())) continue;
                    own.destinations.insert(party);
                    if (exists || destination.kind == RuleDestination::Kind::Ranges)
                        own.concerned_destinations.insert(party);
                }
            }
        }
        own.sources.for_each([&](std::size_t party) { by_source_[party].push_back(static_cast<std::uint32_t>(i)); });
    }

    void add(Access& access, const Rule& rule, const RuleDestination& destination) const {
        const auto when = condition(rule);
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

    /// Postures and routers that a rule asks for.
    std::string condition(const Rule& rule) const {
        const auto known = conditions_.find(rule.offset);
        if (known != conditions_.end()) return known->second;
        std::vector<std::string> parts;
        const auto add = [&](const auto& element) {
            if (element.offset != rule.offset) return;
            const auto& postures = element.postures.empty() ? document_.default_source_postures : element.postures;
            if (!postures.empty()) parts.push_back("if " + join(postures, " or "));
            if constexpr (requires { element.via; }) {
                if (!element.via.empty()) parts.push_back("through " + join(element.via, " or "));
            }
        };
        if (document_.acls) {
            for (const auto& acl : *document_.acls) add(acl);
        }
        if (document_.grants) {
            for (const auto& grant : *document_.grants) add(grant);
        }
        return conditions_[rule.offset] = join(parts, ", ");
    }

    const Document& document_;
    const Judge& judge_;
    const std::vector<Party>& parties_;
    std::vector<RuleParties> rules_;
    std::vector<std::vector<std::uint32_t>> by_source_;
    mutable std::map<std::uint32_t, std::string> conditions_;
};

/// Gathers single differences into sentences.
class Gatherer {
public:
    Gatherer(const std::vector<Party>& parties, const PartyNames& names) : parties_(parties), names_(names) {}

    void add(bool gain, std::size_t from, std::size_t to, const std::string& access,
             const std::set<std::size_t>& lines) {
        auto& places = by_access_[{gain, access}];
        auto& entry = places.try_emplace(to, Entry{BitSet{parties_.size()}, {}}).first->second;
        entry.who.insert(from);
        entry.lines.insert(lines.begin(), lines.end());
    }

    void write(std::vector<PolicyChange>& out) const {
        for (const auto& [key, all_places] : by_access_) {
            auto places = all_places;
            add_themselves(places);
            // The same people lose or gain it on several destinations: one sentence.
            std::vector<std::pair<BitSet, PolicyChange>> sentences;
            std::vector<BitSet> targets;
            for (const auto& [to, entry] : places) {
                std::size_t i = 0;
                while (i < sentences.size() && !(sentences[i].first == entry.who)) ++i;
                if (i == sentences.size()) {
                    sentences.push_back({entry.who, {}});
                    targets.emplace_back(parties_.size());
                }
                targets[i].insert(to);
                auto& lines = sentences[i].second.lines;
                lines.insert(lines.end(), entry.lines.begin(), entry.lines.end());
            }
            for (std::size_t i = 0; i < sentences.size(); ++i) {
                auto& change = sentences[i].second;
                change.gain = key.first;
                change.access = key.second;
                change.who = names_.names_of(sentences[i].first);
                change.what = names_.names_of(targets[i]);
                std::sort(change.lines.begin(), change.lines.end());
                change.lines.erase(std::unique(change.lines.begin(), change.lines.end()), change.lines.end());
                out.push_back(std::move(change));
            }
        }
    }

private:
    struct Entry {
        BitSet who;
        std::set<std::size_t> lines;
    };

    /// Nobody sends to himself; but where everybody gains something on everybody, leaving each out of his own line
    /// would make a sentence of each.
    void add_themselves(std::map<std::size_t, Entry>& places) const {
        BitSet everybody{parties_.size()};
        for (const auto& [to, entry] : places) everybody |= entry.who;
        for (auto& [to, entry] : places) {
            if (parties_[to].members.size() < 2 && everybody.contains(to)) entry.who.insert(to);
        }
    }

    const std::vector<Party>& parties_;
    const PartyNames& names_;
    std::map<std::pair<bool, std::string>, std::map<std::size_t, Entry>> by_access_;
};

/// Walks over the pairs that a rule of only one policy concerns.
class ReachDiff {
public:
    ReachDiff(const Side& before, const Side& after, const std::vector<Party>& parties, Gatherer& gatherer)
        : before_(before), after_(after), parties_(parties), gatherer_(gatherer),
          seen_(parties.size() * parties.size()) {}

    void run() {
        std::multiset<std::string> old_rules;
        for (std::size_t i = 0; i < before_.rules().size(); ++i) old_rules.insert(before_.key_of(i));
        std::vector<std::size_t> added;
        for (std::size_t i = 0; i < after_.rules().size(); ++i) {
            const auto same = old_rules.find(after_.key_of(i));
            if (same == old_rules.end())
                added.push_back(i);
            else
                old_rules.erase(same);
        }
        for (const auto i : added) compare_all(after_, i);
        for (std::size_t i = 0; i < before_.rules().size(); ++i) {
            if (old_rules.count(before_.key_of(i)) != 0) compare_all(before_, i);
        }
    }

private:
    void compare_all(const Side& side, std::size_t rule) {
        side.sources_of(rule).for_each([&](std::size_t from) {
            side.destinations_of(rule).for_each([&](std::size_t to) {
                const bool alone = from == to && parties_[from].members.size() < 2;
                const auto pair = from * parties_.size() + to;
                if (alone || seen_.contains(pair)) return;
                seen_.insert(pair);
                compare(from, to);
            });
        });
    }

    void compare(std::size_t from, std::size_t to) {
        std::array<Access, 2> gained, lost; // IPv4, IPv6
        std::array<bool, 2> possible{};
        std::set<std::uint32_t> now, then;
        for (const bool v4 : {true, false}) {
            const std::size_t family = v4 ? 0 : 1;
            possible[family] = parties_[from].address(v4) != nullptr && parties_[to].address(v4) != nullptr;
            const auto old_access = before_.access(from, to, v4, &then);
            const auto new_access = after_.access(from, to, v4, &now);
            gained[family] = new_access.minus(old_access, "before only");
            lost[family] = old_access.minus(new_access, "still");
        }
        report(true, from, to, gained, possible, after_, now);
        report(false, from, to, lost, possible, before_, then);
    }

    void report(bool gain, std::size_t from, std::size_t to, const std::array<Access, 2>& access,
                const std::array<bool, 2>& possible, const Side& side, const std::set<std::uint32_t>& offsets) {
        std::set<std::size_t> lines;
        for (const auto offset : offsets) lines.insert(side.position_of(offset).line);
        const bool alike = !possible[0] || !possible[1] || access[0] == access[1];
        for (const std::size_t family : {std::size_t{0}, std::size_t{1}}) {
            if (access[family].empty() || (alike && family == 1 && possible[0])) continue;
            const char* suffix = alike ? "" : family == 0 ? " over IPv4" : " over IPv6";
            gatherer_.add(gain, from, to, access[family].text() + suffix, lines);
        }
    }

    const Side& before_;
    const Side& after_;
    const std::vector<Party>& parties_;
    Gatherer& gatherer_;
    BitSet seen_;
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

PolicyDiff diff_policies(const Document& before, const Document& after, const Tailnet* tailnet) {
    const auto stage = tailnet != nullptr ? *tailnet : imagined_tailnet({&before, &after});
    const Judge old_judge{CompiledPolicy::compile(plain(before), stage)};
    const Judge new_judge{CompiledPolicy::compile(plain(after), stage)};
    const auto parties = find_parties(old_judge, new_judge);
    const PartyNames names{parties, new_judge};
    const Side old_side{before, old_judge, parties};
    const Side new_side{after, new_judge, parties};
    PolicyDiff diff;
    Gatherer reach{parties, names};
    ReachDiff{old_side, new_side, parties, reach}.run();
    reach.write(diff.changes);
    diff_names(before, after, stage, parties, names, diff);
    return diff;
}

std::string PolicyChange::text() const {
    constexpr std::size_t kMost = 8;
    const bool one = who.size() == 1;
    auto out = fmt::format("{} {} {}", some_of(who, kMost), gain ? (one ? "gains" : "gain") : (one ? "loses" : "lose"),
                           access);
    if (!what.empty()) out += " on " + some_of(what, kMost);
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
