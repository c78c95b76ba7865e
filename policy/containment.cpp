// policy/containment.cpp - subset tests.
#include "policy/containment.hpp"

#include "policy/address_set.hpp"

#include <algorithm>

namespace tailrace {
namespace {

AddressSet set_of(const RuleDestination& destination) {
    std::vector<IpRange> ranges;
    for (const auto& [range, text] : destination.ranges) ranges.push_back(range);
    return AddressSet{std::move(ranges)};
}

/// Whether every port of `inner` is among those of `outer`.
bool contains_ports(std::vector<PortRange> outer, const std::vector<PortRange>& inner) {
    std::sort(outer.begin(), outer.end(), [](PortRange a, PortRange b) { return a.first < b.first; });
    return std::all_of(inner.begin(), inner.end(), [&](PortRange range) {
        unsigned next = range.first; // all below are covered
        for (const auto& part : outer) {
            if (part.first <= next && part.last >= next) next = part.last + 1U;
        }
        return next > range.last;
    });
}

bool contains_protocols(const std::vector<int>& outer, const std::vector<int>& inner) {
    static const std::vector<int> kDefault = {6, 17, 1, 58};
    const auto& listed = outer.empty() ? kDefault : outer;
    const auto& wanted = inner.empty() ? kDefault : inner;
    return std::all_of(wanted.begin(), wanted.end(),
                       [&](int protocol) { return std::find(listed.begin(), listed.end(), protocol) != listed.end(); });
}

bool contains_capabilities(const CapabilityMap& outer, const CapabilityMap& inner) {
    return std::all_of(inner.begin(), inner.end(), [&](const auto& entry) {
        const auto found = outer.find(entry.first);
        return found != outer.end() && found->second == entry.second;
    });
}

} // namespace

Families families_of(const SourceSet& sources, const Directory& directory) {
    Families families{sources.everything, sources.everything};
    const auto add = [&](const IpAddress& ip) { (ip.is_v4() ? families.v4 : families.v6) = true; };
    sources.addresses.for_each([&](std::size_t address) { add(directory.addresses()[address].ip); });
    for (const auto& range : sources.ranges.ranges()) add(range.first);
    return families;
}

Families families_of(const RuleDestination& destination, const Directory& directory) {
    if (destination.kind == RuleDestination::Kind::Everything || destination.kind == RuleDestination::Kind::Internet)
        return {true, true};
    Families families;
    const auto add = [&](const IpAddress& ip) { (ip.is_v4() ? families.v4 : families.v6) = true; };
    for (const auto& [range, text] : destination.ranges) add(range.first);
    destination.nodes.for_each([&](std::size_t node) {
        for (const auto address : directory.addresses_of(static_cast<NodeIndex>(node)))
            add(directory.addresses()[address].ip);
    });
    return families;
}

Containment::Containment(const CompiledPolicy& policy) : directory_(policy.data().directory) {
    for (const auto& rule : policy.data().list.rules) {
        parts_[rule.offset].push_back(&rule);
        if (rule.sources == nullptr || covered_.count(rule.sources) != 0) continue;
        auto covered = rule.sources->everything ? BitSet::full(directory_.addresses().size()) : rule.sources->addresses;
        for (const auto& range : rule.sources->ranges.ranges())
            directory_.for_each_address_in(range, [&](std::uint32_t address) { covered.insert(address); });
        covered_.emplace(rule.sources, std::move(covered));
    }
}

Containment::Parts Containment::parts_at(std::uint32_t offset) const {
    const auto found = parts_.find(offset);
    return found == parts_.end() ? Parts{} : found->second;
}

Containment::Outline Containment::outline_of(const Parts& parts) const {
    Outline outline;
    const auto set = [&](std::size_t word, std::size_t number) {
        outline.bits[word + number % 256 / 64] |= std::uint64_t{1} << (number % 64);
    };
    const auto set_all = [&](std::size_t word) {
        std::fill_n(outline.bits.begin() + static_cast<std::ptrdiff_t>(word), 4, ~std::uint64_t{0});
    };
    constexpr std::size_t kSources = 0, kDestinations = 4, kPortBlocks = 8, kPortRests = 12; // words
    const auto add_nodes = [&](std::size_t word, const BitSet& nodes) {
        nodes.for_each([&](std::size_t node) {
            for (const auto address : directory_.addresses_of(static_cast<NodeIndex>(node))) set(word, address);
        });
    };
    for (const auto* rule : parts) {
        if (rule->self) {
            add_nodes(kSources, rule->self_sources);
            add_nodes(kDestinations, rule->receivers);
        } else if (rule->sources->everything) {
            set_all(kSources);
        } else {
            covered_.at(rule->sources).for_each([&](std::size_t address) { set(kSources, address); });
        }
        for (const auto& destination : rule->destinations) {
            if (destination.kind == RuleDestination::Kind::Everything) set_all(kDestinations);
            if (destination.kind == RuleDestination::Kind::Nodes && !rule->self)
                add_nodes(kDestinations, destination.nodes);
            for (const auto& [range, text] : destination.ranges)
                directory_.for_each_address_in(range, [&](std::uint32_t address) { set(kDestinations, address); });
            for (const auto& ports : destination.ports) {
                for (std::size_t port = ports.first; port <= ports.last; port += 256) set(kPortBlocks, port / 256);
                set(kPortBlocks, ports.last / 256U);
                const std::size_t last = std::min<std::size_t>(ports.last, ports.first + 255U);
                for (std::size_t port = ports.first; port <= last; ++port) set(kPortRests, port);
            }
        }
    }
    return outline;
}

std::size_t Containment::work_of(const Parts& parts) const {
    std::size_t work = 0;
    for (const auto* rule : parts) {
        work += 8 + directory_.addresses().size() / 64;
        for (const auto& destination : rule->destinations)
            work += 4 + destination.ranges.size() * 8 + destination.ports.size() + destination.nodes.size() / 64;
    }
    return work;
}

bool Containment::contains(const Parts& outer, const Parts& inner) const {
    return std::all_of(inner.begin(), inner.end(), [&](const Rule* part) {
        return std::any_of(outer.begin(), outer.end(), [&](const Rule* whole) { return contains(*whole, *part); });
    });
}

bool Containment::contains(const Rule& outer, const Rule& inner) const {
    if (outer.kind != inner.kind || outer.via != inner.via || outer.silent != inner.silent) return false;
    if (outer.silent && !outer.via) return false;
    if (outer.self_reply != inner.self_reply) return false;
    if (outer.kind == Rule::Kind::Capabilities && !contains_capabilities(*outer.capabilities, *inner.capabilities))
        return false;
    if (outer.kind == Rule::Kind::Ports && !contains_protocols(outer.protocols, inner.protocols)) return false;
    if (!contains_sources(outer, inner)) return false;
    return std::all_of(inner.destinations.begin(), inner.destinations.end(), [&](const RuleDestination& part) {
        return std::any_of(outer.destinations.begin(), outer.destinations.end(), [&](const RuleDestination& whole) {
            if (outer.kind == Rule::Kind::Ports && !contains_ports(whole.ports, part.ports)) return false;
            if (inner.self) return outer.self || contains_own_devices(outer, inner);
            return contains(whole, part);
        });
    });
}

bool Containment::contains_sources(const Rule& outer, const Rule& inner) const {
    if (outer.self) return inner.self && inner.self_sources.is_subset_of(outer.self_sources);
    const auto& covered = covered_.at(outer.sources);
    if (inner.self) {
        bool all = true;
        inner.self_sources.for_each([&](std::size_t node) {
            for (const auto address : directory_.addresses_of(static_cast<NodeIndex>(node)))
                all = all && covered.contains(address);
        });
        return all;
    }
    if (outer.sources->everything) return true;
    if (inner.sources->everything || !covered_.at(inner.sources).is_subset_of(covered)) return false;
    const auto& ranges = inner.sources->ranges.ranges();
    return std::all_of(ranges.begin(), ranges.end(),
                       [&](const IpRange& range) { return outer.sources->ranges.contains(range); });
}

bool Containment::contains_own_devices(const Rule& outer, const Rule& inner) const {
    return std::any_of(outer.destinations.begin(), outer.destinations.end(), [&](const RuleDestination& destination) {
        return destination.kind == RuleDestination::Kind::Everything ||
               (destination.kind == RuleDestination::Kind::Nodes && inner.receivers.is_subset_of(destination.nodes));
    });
}

bool Containment::contains(const RuleDestination& outer, const RuleDestination& inner) const {
    using Kind = RuleDestination::Kind;
    if (outer.kind == Kind::Everything) return true;
    if (inner.kind == Kind::Everything) return false;
    if (inner.kind == Kind::Internet) {
        if (outer.kind == Kind::Internet) return true;
        const auto set = set_of(outer);
        const auto& internet = internet_ranges();
        return std::all_of(internet.begin(), internet.end(), [&](const IpRange& range) { return set.contains(range); });
    }
    if (outer.kind == Kind::Internet) return false;
    if (inner.kind == Kind::Nodes) {
        if (outer.kind == Kind::Nodes) return inner.nodes.is_subset_of(outer.nodes);
        const auto set = set_of(outer);
        bool all = true;
        inner.nodes.for_each([&](std::size_t node) {
            for (const auto address : directory_.addresses_of(static_cast<NodeIndex>(node)))
                all = all && set.contains(directory_.addresses()[address].ip);
        });
        return all;
    }
    if (outer.kind == Kind::Ranges) {
        const auto set = set_of(outer);
        return std::all_of(inner.ranges.begin(), inner.ranges.end(),
                           [&](const auto& entry) { return set.contains(entry.first); });
    }
    return std::all_of(inner.ranges.begin(), inner.ranges.end(), [&](const auto& entry) {
        const auto address = directory_.address_named(entry.first.first);
        return entry.first.first == entry.first.last && address &&
               outer.nodes.contains(directory_.addresses()[*address].node);
    });
}

} // namespace tailrace
