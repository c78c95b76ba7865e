// policy/policy_side.hpp - one of the two policies that are compared (diff.hpp): who may do what with whom. Pure.
#pragma once
#include "policy/access.hpp"
#include "policy/document.hpp"
#include "policy/judge.hpp"
#include "policy/party_index.hpp"

#include <algorithm>
#include <cstddef>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace tailrace {

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
class PolicySide {
public:
    PolicySide(const Document& original, const Judge& judge, const PartyIndex& index);

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
    Parts parts(std::size_t from, std::size_t to, bool v4, WorkBudget& budget) const;

    /// What decides whether a rule is the same as one of the other policy.
    const std::string& key_of(std::size_t i) const { return keys_[i]; }

private:
    struct RuleParties {
        PartyList sources, destinations;
        PartyList concerned_sources, concerned_destinations;
    };

    std::string make_key(const Rule& rule) const;
    bool leads_to(const Rule& rule, const RuleDestination& destination, std::size_t to, bool v4) const;
    RuleParties parties_of(const Rule& rule);
    std::pair<PartyList, PartyList> sources_of(const Rule& rule);
    std::pair<PartyList, PartyList> destinations_of(const Rule& rule);
    PartyList parties_of(const RuleDestination& destination);
    /// Rules with the same sources are one group, and a party knows its groups.
    void group_by_source();
    void add(Access& access, const Rule& rule, const RuleDestination& destination) const;
    /// Postures and routers that rules ask for.
    void note_conditions();
    const std::string& condition(const Rule& rule) const;

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

} // namespace tailrace
