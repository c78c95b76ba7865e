#include "policy/policy_side.hpp"

#include "base/text.hpp"
#include "policy/quote.hpp"

#include <iterator>
#include <map>
#include <tuple>

namespace tailrace {
namespace {

PartyList tidy(std::vector<std::uint32_t> parties) {
    std::sort(parties.begin(), parties.end());
    parties.erase(std::unique(parties.begin(), parties.end()), parties.end());
    parties.shrink_to_fit();
    return std::make_shared<const std::vector<std::uint32_t>>(std::move(parties));
}

template <typename Keep>
PartyList only(const PartyList& list, Keep keep) {
    if (std::all_of(list->begin(), list->end(), keep)) return list;
    std::vector<std::uint32_t> kept;
    std::copy_if(list->begin(), list->end(), std::back_inserter(kept), keep);
    return std::make_shared<const std::vector<std::uint32_t>>(std::move(kept));
}

} // namespace

PolicySide::PolicySide(const Document& original, const Judge& judge, const PartyIndex& index)
    : document_(original), judge_(judge), index_(index), parties_(index.parties()) {
    note_conditions();
    for (std::size_t i = 0; i < judge.rules().size(); ++i) rules_.push_back(parties_of(judge.rules()[i]));
    group_by_source();
    keys_.reserve(rules_.size());
    for (const auto& rule : judge.rules()) keys_.push_back(make_key(rule));
}

PolicySide::Parts PolicySide::parts(std::size_t from, std::size_t to, bool v4, WorkBudget& budget) const {
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

std::string PolicySide::make_key(const Rule& rule) const {
    std::string key =
        fmt::format("{}{}{}{}", static_cast<int>(rule.kind), rule.self, rule.self_reply, rule.silent) + condition(rule);
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

bool PolicySide::leads_to(const Rule& rule, const RuleDestination& destination, std::size_t to, bool v4) const {
    const auto& party = parties_[to];
    const auto* ip = party.address(v4);
    if (ip == nullptr) return false;
    if (rule.self) return party.is_device() && rule.receivers.contains(party.members.front());
    if (rule.kind == Rule::Kind::Capabilities && !party.is_device() &&
        (party.asks ||
         destination.kind != RuleDestination::Kind::Ranges)) // a service's hosts grant them where it is named
        return false;
    return judge_.contains(destination, *ip);
}

PolicySide::RuleParties PolicySide::parties_of(const Rule& rule) {
    static const auto kNobody = std::make_shared<const std::vector<std::uint32_t>>();
    if (rule.silent) return {kNobody, kNobody, kNobody, kNobody};
    RuleParties own;
    std::tie(own.sources, own.concerned_sources) = sources_of(rule);
    std::tie(own.destinations, own.concerned_destinations) = destinations_of(rule);
    return own;
}

std::pair<PartyList, PartyList> PolicySide::sources_of(const Rule& rule) {
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

std::pair<PartyList, PartyList> PolicySide::destinations_of(const Rule& rule) {
    const auto fits = [&](std::uint32_t party) {
        return rule.kind != Rule::Kind::Capabilities || parties_[party].is_device() || !parties_[party].asks;
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

PartyList PolicySide::parties_of(const RuleDestination& destination) {
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

void PolicySide::group_by_source() {
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

void PolicySide::add(Access& access, const Rule& rule, const RuleDestination& destination) const {
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

void PolicySide::note_conditions() {
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

const std::string& PolicySide::condition(const Rule& rule) const {
    static const std::string kNone;
    const auto found = conditions_.find(rule.offset);
    return found == conditions_.end() ? kNone : found->second;
}

} // namespace tailrace
