// policy/parties.cpp - classes of addresses by the rules that speak of them.
#include "policy/parties.hpp"

#include "base/text.hpp"
#include "policy/address_set.hpp"
#include "policy/names.hpp"
#include "policy/quote.hpp"

#include <algorithm>
#include <map>
#include <set>

namespace tailrace {
namespace {

/// A number for "is in exactly these sets": the sum of one random number a set.
using Signature = std::uint64_t;

Signature number_of_set(std::uint64_t i) { // splitmix64
    i += 0x9e3779b97f4a7c15ULL;
    i = (i ^ (i >> 30)) * 0xbf58476d1ce4e5b9ULL;
    i = (i ^ (i >> 27)) * 0x94d049bb133111ebULL;
    return i ^ (i >> 31);
}

bool is_in(const std::vector<IpRange>& ranges, const IpAddress& ip) {
    return std::any_of(ranges.begin(), ranges.end(), [&](const IpRange& range) { return range.contains(ip); });
}

class PartyFinder {
public:
    PartyFinder(const Judge& before, const Judge& after)
        : directory_(after.directory()), document_(after.compiled().document()) {
        by_address_.resize(directory_.addresses().size());
        collect_bounds(before);
        collect_bounds(after);
        make_intervals();
        sign(before);
        sign(after);
    }

    std::vector<Party> find() {
        add_devices();
        add_ranges();
        add_services();
        return std::move(parties_);
    }

private:
    struct Interval {
        IpRange range;
        Signature signature = 0;
    };

    void add_bounds(const IpRange& range) {
        bounds_.insert(range.first);
        if (const auto next = range.last.next(); next.valid()) bounds_.insert(next);
    }

    void collect_bounds(const Judge& judge) {
        for (const auto& range : internet_ranges()) add_bounds(range);
        for (const auto& range : tailnet_ranges()) add_bounds(range);
        for (const auto& route : directory_.subnet_routes()) add_bounds(route.range);
        for (const auto& rule : judge.rules()) {
            if (rule.sources != nullptr) {
                for (const auto& range : rule.sources->ranges.ranges()) add_bounds(range);
            }
            for (const auto& destination : rule.destinations) {
                for (const auto& [range, text] : destination.ranges) add_bounds(range);
            }
        }
    }

    void make_intervals() {
        for (auto at = bounds_.begin(); at != bounds_.end(); ++at) {
            const auto next = std::next(at);
            const bool same_family = next != bounds_.end() && next->bits() == at->bits();
            IpAddress last = IpPrefix{*at, 0}.last();
            if (same_family) last = before(*next);
            intervals_.push_back({{*at, last}, 0});
        }
    }

    static IpAddress before(const IpAddress& address) {
        if (address.is_v4()) return IpAddress::v4(address.v4_value() - 1);
        std::array<std::byte, 16> bytes{};
        std::copy(address.bytes().begin(), address.bytes().end(), bytes.begin());
        for (std::size_t i = bytes.size(); i-- > 0;) {
            bytes[i] = static_cast<std::byte>(std::to_integer<unsigned>(bytes[i]) - 1U);
            if (bytes[i] != std::byte{0xff}) break;
        }
        return IpAddress::v6(bytes);
    }

    void sign_range(const IpRange& range, Signature number) {
        auto at =
            std::lower_bound(intervals_.begin(), intervals_.end(), range.first,
                             [](const Interval& interval, const IpAddress& ip) { return interval.range.first < ip; });
        for (; at != intervals_.end() && range.contains(at->range.first); ++at) at->signature += number;
        directory_.for_each_address_in(range, [&](std::uint32_t address) { by_address_[address] += number; });
    }

    void sign_nodes(const BitSet& nodes, Signature number) {
        nodes.for_each([&](std::size_t node) {
            for (const auto address : directory_.addresses_of(static_cast<NodeIndex>(node)))
                by_address_[address] += number;
        });
    }

    void sign(const Judge& judge) {
        std::set<const SourceSet*> seen;
        std::map<const BitSet*, Signature> by_nodes; // many rules lead to the same nodes
        for (const auto& rule : judge.rules()) {
            if (rule.self) {
                sign_nodes(rule.self_sources, number_of_set(++sets_));
                sign_nodes(rule.receivers, number_of_set(++sets_));
            } else if (seen.insert(rule.sources).second) {
                const auto number = number_of_set(++sets_);
                rule.sources->addresses.for_each([&](std::size_t address) { by_address_[address] += number; });
                for (const auto& range : rule.sources->ranges.ranges()) by_range_[range] += number;
            }
            for (const auto& destination : rule.destinations) {
                const auto number = number_of_set(++sets_);
                if (destination.kind == RuleDestination::Kind::Nodes && !rule.self)
                    by_nodes[&destination.nodes.get()] += number;
                for (const auto& [range, text] : destination.ranges) by_range_[range] += number;
                if (destination.kind != RuleDestination::Kind::Internet) continue;
                for (const auto& range : internet_ranges()) by_range_[range] += number;
            }
        }
        for (const auto& [nodes, number] : by_nodes) sign_nodes(*nodes, number);
        for (const auto& [range, number] : by_range_) sign_range(range, number);
        by_range_.clear();
        // What SSH rules, tags and attributes tell apart is told apart by the owner.
    }

    void add_devices() {
        std::map<std::pair<std::string, std::vector<Signature>>, std::size_t> known;
        std::map<std::string, int> parts; // how many parties an owner's devices are
        for (NodeIndex i = 0; i < directory_.size(); ++i) {
            const auto& node = directory_.node(i);
            const auto* user = directory_.user_of(i);
            const auto owner = node.is_tagged() ? join(node.tags, "+") : user == nullptr ? "nobody" : user->login;
            std::vector<Signature> signatures;
            for (const auto address : directory_.addresses_of(i)) signatures.push_back(by_address_[address]);
            const auto [found, is_new] = known.try_emplace({owner, signatures}, parties_.size());
            if (is_new) {
                auto& party = parties_.emplace_back();
                party.name = owner;
                for (const auto address : directory_.addresses_of(i)) {
                    const auto& ip = directory_.addresses()[address].ip;
                    if (party.address(ip.is_v4()) == nullptr) party.representatives.push_back(ip);
                }
                ++parts[owner];
            }
            parties_[found->second].members.push_back(i);
        }
        for (auto& party : parties_) {
            party.names = {party.name};
            if (parts[party.name] < 2) continue;
            party.names.clear();
            std::vector<std::string> devices;
            for (const auto node : party.members) {
                const auto& name = directory_.node(node).name;
                devices.push_back(name.empty() ? directory_.node(node).addresses.front().text() : name);
                party.names.push_back(fmt::format("{} ({})", party.name, devices.back()));
            }
            party.name = fmt::format("{} ({})", party.name, some_of(devices, 3));
        }
    }

    bool is_routed(const IpRange& range) const {
        if (is_in(internet_ranges(), range.first)) {
            if (!directory_.exit_nodes().empty()) return true;
        }
        bool routed = false;
        directory_.for_each_route_in({range.first, range.first}, [&](std::uint32_t) { routed = true; });
        return routed;
    }

    void add_ranges() {
        struct Class {
            std::vector<IpRange> ranges;
            bool exists = false;
        };
        std::map<std::pair<Signature, bool>, Class> classes;
        for (const auto& interval : intervals_) {
            if (is_in(tailnet_ranges(), interval.range.first)) continue; // devices stand for these
            const bool routed = is_routed(interval.range);
            if (interval.signature == 0 && !routed) continue;
            auto& found = classes[{interval.signature, routed}];
            found.ranges.push_back(interval.range);
            found.exists = routed;
        }
        for (auto& [key, found] : classes) {
            auto& party = parties_.emplace_back();
            party.exists = found.exists;
            for (const auto& range : found.ranges) {
                if (party.address(range.first.is_v4()) == nullptr) party.representatives.push_back(range.first);
            }
            name(party, std::move(found.ranges));
        }
    }

    void add_services() {
        std::set<std::uint32_t> routed;
        for (const auto& route : directory_.subnet_routes()) {
            if (route.service) routed.insert(*route.service);
        }
        const auto& services = directory_.tailnet().services;
        for (std::uint32_t i = 0; i < services.size(); ++i) {
            auto& party = parties_.emplace_back();
            party.name = services[i].name;
            party.names = {party.name};
            party.representatives = services[i].addresses;
            party.exists = routed.count(i) != 0;
            party.asks = false;
        }
    }

    void name(Party& party, std::vector<IpRange> ranges) {
        const AddressSet set{std::move(ranges)};
        bool all_public = true;
        for (const auto& range : set.ranges()) {
            all_public = all_public && is_in(internet_ranges(), range.first) && is_in(internet_ranges(), range.last);
            for (const auto& prefix : range.prefixes())
                party.names.push_back(prefix.is_single() ? prefix.address().text() : prefix.text());
        }
        constexpr std::size_t kInternetIsMany = 8;
        party.name = all_public && party.names.size() > kInternetIsMany ? "the internet" : some_of(party.names, 3);
        const auto& internet = internet_ranges();
        if (std::all_of(internet.begin(), internet.end(), [&](const IpRange& range) { return set.contains(range); }))
            party.names = {party.name}; // which says all
        if (party.names.size() != 1) return;
        if (hosts_.empty()) {
            for (const auto& [host, prefix] : document_.hosts) hosts_.try_emplace(IpRange::of(prefix), host);
        }
        const auto host = hosts_.find(set.ranges().front());
        if (host == hosts_.end()) return;
        party.name = fmt::format("{} ({})", host->second, party.names.front());
        party.names = {party.name};
    }

    const Directory& directory_;
    const Document& document_;
    std::set<IpAddress> bounds_;
    std::map<IpRange, Signature> by_range_;
    std::map<IpRange, std::string> hosts_;
    std::vector<Interval> intervals_;
    std::vector<Signature> by_address_;
    std::uint64_t sets_ = 0;
    std::vector<Party> parties_;
};

} // namespace

std::vector<Party> find_parties(const Judge& before, const Judge& after) {
    return PartyFinder{before, after}.find();
}

PartyNames::PartyNames(const std::vector<Party>& parties, const Judge& judge)
    : parties_(parties), beginning_(parties.size()) {
    const auto& directory = judge.directory();
    constexpr std::uint32_t kNone = UINT32_MAX;
    std::vector<std::uint32_t> party_of(directory.size(), kNone); // by its first member
    for (std::uint32_t i = 0; i < parties.size(); ++i) {
        if (parties[i].is_device()) party_of[parties[i].members.front()] = i;
    }
    const auto add = [&](std::string name, const BitSet& nodes, std::size_t least) {
        Collective collective{std::move(name), {}};
        nodes.for_each([&](std::size_t node) {
            if (party_of[node] != kNone) collective.parties.push_back(party_of[node]);
        });
        std::sort(collective.parties.begin(), collective.parties.end());
        if (collective.parties.size() >= least) collectives_.push_back(std::move(collective));
    };
    BitSet tagged = BitSet::full(directory.size());
    directory.untagged().for_each([&](std::size_t node) { tagged.erase(node); });
    add("every device", BitSet::full(directory.size()), 2);
    add("autogroup:member", directory.untagged(), 2);
    add("autogroup:tagged", tagged, 2);
    const auto add_selector = [&](Selector::Kind kind, const std::string& name, std::size_t least) {
        Selector selector;
        selector.kind = kind;
        selector.name = selector.text = name;
        add(name, directory.nodes_matching(selector), least);
    };
    for (const auto& [group, members] : judge.compiled().document().groups) {
        if (members.size() > 1) add_selector(Selector::Kind::Group, group, 2);
    }
    for (const auto& [tag, owners] : judge.compiled().document().tag_owners) add_selector(Selector::Kind::Tag, tag, 1);
    std::stable_sort(collectives_.begin(), collectives_.end(),
                     [](const Collective& a, const Collective& b) { return a.parties.size() > b.parties.size(); });
    for (std::uint32_t i = 0; i < collectives_.size(); ++i) beginning_[collectives_[i].parties.front()].push_back(i);
}

NamedParties PartyNames::names_of(BitSet parties) const {
    // What begins with a party that is not there can't be all there.
    std::vector<std::uint32_t> candidates;
    parties.for_each([&](std::size_t party) {
        candidates.insert(candidates.end(), beginning_[party].begin(), beginning_[party].end());
    });
    std::sort(candidates.begin(), candidates.end());
    NamedParties names;
    for (const auto candidate : candidates) {
        const auto& collective = collectives_[candidate];
        const bool whole = std::all_of(collective.parties.begin(), collective.parties.end(),
                                       [&](std::uint32_t party) { return parties.contains(party); });
        if (!whole) continue;
        names.all.push_back(collective.name);
        for (const auto party : collective.parties) parties.erase(party);
    }
    names.said = names.all;
    parties.for_each([&](std::size_t party) {
        names.said.push_back(parties_[party].name);
        names.all.insert(names.all.end(), parties_[party].names.begin(), parties_[party].names.end());
    });
    return names;
}

} // namespace tailrace
