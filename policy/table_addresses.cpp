#include "policy/table_compiler.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <set>
#include <unordered_map>

namespace tailrace {
namespace {

bool same_value(const tr_address& a, const tr_address& b) {
    return std::memcmp(&a, &b, sizeof a) == 0;
}

using Elements = std::vector<std::uint64_t>;

/// Union of two sorted lists.
Elements joined(const Elements& a, const Elements& b) {
    Elements both;
    both.reserve(a.size() + b.size());
    std::set_union(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
    return both;
}

/// Where the walk over sorted prefixes stands: a prefix and all that it inherits or adds.
struct Level {
    IpPrefix prefix;
    Elements elements;
    tr_address value{};
    bool jailed = false;
    bool local = false;
};

/// Drops the levels that do not contain `prefix`.
void climb_to(std::vector<Level>& levels, const IpPrefix& prefix) {
    while (!levels.empty() && !levels.back().prefix.contains(prefix)) levels.pop_back();
}

/// The next prefix of the sorted marks, from `i` on, with what it inherits. Leaves of the levels those that contain it.
template <typename Mark>
Level next_level(std::vector<Level>& levels, const std::vector<Mark>& marks, std::size_t& i) {
    Level here;
    here.prefix = marks[i].prefix;
    climb_to(levels, here.prefix);
    Elements added;
    for (; i < marks.size() && marks[i].prefix == here.prefix; ++i)
        if (marks[i].element && (added.empty() || added.back() != marks[i].element)) added.push_back(marks[i].element);
    here.elements = levels.empty() ? std::move(added) : joined(levels.back().elements, added);
    return here;
}

/// What names a destination class: the first of its prefixes. Not what stands in its rules, as for sources: one rule
/// more for an address that thousands of peers may talk to must not give it another number, which stands in their
/// pairs.
std::vector<std::uint64_t> name_of(const IpPrefix& prefix) {
    std::vector<std::uint64_t> name{static_cast<std::uint64_t>(prefix.bits()), prefix.address().is_v4() ? 4U : 6U, 0,
                                    0};
    auto bytes = prefix.address().bytes();
    std::memcpy(&name[2], bytes.data(), bytes.size());
    return name;
}

} // namespace

std::uint32_t TableCompiler::first_cap_rule(const Signature& signature, const IpPrefix& prefix) const {
    const PlacedRule* first = nullptr;
    for (std::uint64_t element : signature) {
        if (!(element & 1)) continue;
        const PlacedRule* rule = by_number_.at(static_cast<std::uint32_t>(element >> 1));
        bool has_effect = prefix.address().is_v4() ? rule->has_v4_destination : rule->has_v6_destination;
        if (has_effect && (!first || rule->index < first->index)) first = rule;
    }
    return first ? first->number : 0;
}

void TableCompiler::build_sources(PolicyTables& out) {
    std::vector<Mark> marks;
    std::map<IpPrefix, bool> owners; // prefix -> its peer is jailed
    bool any_jailed = false;
    std::map<std::string, std::vector<const PeerFacts*>> by_cap;
    for (const PeerFacts& peer : input_.peers) {
        any_jailed = any_jailed || peer.jailed;
        for (const IpAddress& address : peer.addresses)
            marks.push_back({IpPrefix::single(address), 0}); // found by hash, whatever prefix it stands under
        for (const std::string& cap : peer.caps) by_cap[cap].push_back(&peer);
    }
    if (any_jailed)
        for (const PeerFacts& peer : input_.peers)
            for (const IpPrefix& allowed : peer.allowed_ips) {
                owners.emplace(allowed.masked(), peer.jailed); // the first has it, as in the device
                marks.push_back({allowed.masked(), 0});
            }
    for (std::size_t i = 0; i < rules_.size(); ++i) {
        if (!kept_[i]) continue;
        const PlacedRule& rule = rules_[i];
        for (const IpPrefix& source : rule.sources)
            if (source.address().is_v4() ? rule.has_v4_destination : rule.has_v6_destination)
                marks.push_back({source, source_element(rule.number, false)});
        for (const std::string& cap : rule.caps)
            if (auto holders = by_cap.find(cap); holders != by_cap.end())
                for (const PeerFacts* peer : holders->second)
                    for (const IpAddress& address : peer->addresses)
                        marks.push_back({IpPrefix::single(address), source_element(rule.number, true)});
    }
    const std::set<IpAddress> never(input_.never_sources.begin(), input_.never_sources.end());
    for (const IpAddress& address : never) marks.push_back({IpPrefix::single(address), 0});
    std::sort(marks.begin(), marks.end());
    if (any_jailed) out.settings.flags |= TR_SETTING_HAS_JAILED;

    std::vector<Level> levels;
    for (std::size_t i = 0; i < marks.size();) {
        Level here = next_level(levels, marks, i);
        const Level* parent = levels.empty() ? nullptr : &levels.back();
        if (here.prefix.is_single() && never.count(here.prefix.address())) here.elements.clear();
        here.value.icmp_rule = first_cap_rule(here.elements, here.prefix);
        // For the rest, a rule that names the address itself needs no capability.
        here.elements.erase(std::remove_if(here.elements.begin(), here.elements.end(),
                                           [&](std::uint64_t element) {
                                               return (element & 1) &&
                                                      std::binary_search(here.elements.begin(), here.elements.end(),
                                                                         element - 1);
                                           }),
                            here.elements.end());
        here.jailed = parent && parent->jailed;
        if (auto owner = owners.find(here.prefix); owner != owners.end()) here.jailed = owner->second;
        if (here.jailed) here.value.flags |= TR_ADDRESS_JAILED;
        if (!here.elements.empty()) {
            here.value.address_class = numbers_.source_classes_.number(here.elements);
            sources_.emplace(here.value.address_class, here.elements);
        }
        tr_address inherited = parent ? parent->value : tr_address{};
        bool says_nothing = same_value(here.value, tr_address{}) && same_value(inherited, tr_address{});
        if (here.prefix.is_single()) {
            if (!says_nothing) out.hosts.push_back({TR_SIDE_SOURCE, here.prefix, here.value});
        } else if (!same_value(here.value, inherited)) {
            out.nets.push_back({TR_SIDE_SOURCE, here.prefix, here.value});
        }
        levels.push_back(std::move(here));
    }
}

void TableCompiler::build_destinations(PolicyTables& out) {
    std::vector<Mark> marks;
    std::set<IpPrefix> local, own;
    for (const IpPrefix& net : input_.local_nets) local.insert(net.masked());
    for (const IpAddress& address : input_.own_addresses) {
        local.insert(IpPrefix::single(address));
        own.insert(IpPrefix::single(address));
    }
    for (const IpPrefix& net : local) marks.push_back({net, 0});
    for (std::size_t i = 0; i < rules_.size(); ++i) {
        if (!kept_[i]) continue;
        for (const auto& [prefix, ports] : rules_[i].destinations)
            marks.push_back({prefix, destination_element(rules_[i].number, ports)});
    }
    std::sort(marks.begin(), marks.end());

    std::unordered_map<Signature, std::uint32_t, TableNumbers::SignatureHash> class_of;
    std::vector<Level> levels;
    for (std::size_t i = 0; i < marks.size();) {
        Level here = next_level(levels, marks, i);
        const Level* parent = levels.empty() ? nullptr : &levels.back();
        here.local = (parent && parent->local) || local.count(here.prefix);
        if (here.local) {
            if (own.count(here.prefix)) here.value.flags |= TR_ADDRESS_OWN;
            if (!here.elements.empty()) {
                auto [known, is_new] = class_of.try_emplace(here.elements, 0);
                if (is_new) {
                    known->second = numbers_.destination_classes_.number(name_of(here.prefix));
                    destinations_.emplace(known->second, here.elements);
                }
                here.value.address_class = known->second;
            }
            bool as_parent = parent && parent->local && same_value(parent->value, here.value);
            if (here.prefix.is_single())
                out.hosts.push_back({TR_SIDE_DESTINATION, here.prefix, here.value});
            else if (!as_parent)
                out.nets.push_back({TR_SIDE_DESTINATION, here.prefix, here.value});
        }
        levels.push_back(std::move(here));
    }
    // The settings hold one own address of each family, the first; its value must be that one's.
    for (auto address = input_.own_addresses.rbegin(); address != input_.own_addresses.rend(); ++address)
        for (const PolicyTables::Address& host : out.hosts)
            if (host.side == TR_SIDE_DESTINATION && host.prefix == IpPrefix::single(*address))
                (address->is_v4() ? own4_ : own6_) = host.value;
}

} // namespace tailrace
