// policy/judge.cpp - matches packets against rules.
#include "policy/judge.hpp"

#include "policy/words.hpp"

#include <algorithm>

namespace tailrace {
namespace {

const std::vector<int>& protocols_of(const Rule& rule) {
    static const std::vector<int> kDefault = {6, 17, 1, 58};
    return rule.protocols.empty() ? kDefault : rule.protocols;
}

} // namespace

std::optional<NodeIndex> Judge::owner_of(const IpAddress& ip) const {
    const auto address = directory().address_named(ip);
    if (!address) return std::nullopt;
    return directory().addresses()[*address].node;
}

bool Judge::has_source(const Rule& rule, const IpAddress& source, const IpAddress& destination) const {
    if (!rule.self) return rule.sources->contains(directory(), source);
    const auto from = owner_of(source);
    const auto to = owner_of(destination);
    if (!from || !rule.self_sources.contains(*from)) return false;
    return !to || directory().node(*from).user == directory().node(*to).user;
}

bool Judge::contains(const RuleDestination& destination, const IpAddress& ip) const {
    switch (destination.kind) {
    case RuleDestination::Kind::Everything:
        return true;
    case RuleDestination::Kind::Internet: {
        const auto& ranges = internet_ranges();
        return std::any_of(ranges.begin(), ranges.end(), [&](const IpRange& range) { return range.contains(ip); });
    }
    case RuleDestination::Kind::Ranges:
        return std::any_of(destination.ranges.begin(), destination.ranges.end(),
                           [&](const auto& range) { return range.first.contains(ip); });
    case RuleDestination::Kind::Nodes: {
        const auto owner = owner_of(ip);
        return owner && destination.nodes.contains(*owner);
    }
    }
    return false;
}

bool Judge::is_routed(const Rule& rule, const IpAddress& ip) const {
    bool routed = false;
    rule.receivers.for_each([&](std::size_t node) {
        const auto& routes = directory().node(static_cast<NodeIndex>(node)).routes;
        routed = routed ||
                 std::any_of(routes.begin(), routes.end(), [&](const IpPrefix& route) { return route.contains(ip); });
    });
    return routed;
}

RuleMatch Judge::match(const Rule& rule, const Probe& probe) const {
    RuleMatch match;
    match.source = probe.source.bits() == probe.destination.bits() && has_source(rule, probe.source, probe.destination);
    const auto target = owner_of(probe.destination);
    const auto leads_there = [&](const RuleDestination& destination) {
        return rule.self ? target && rule.receivers.contains(*target) : contains(destination, probe.destination);
    };
    match.routed = !rule.via || is_routed(rule, probe.destination);
    const bool is_ping = probe.protocol == 1 || probe.protocol == 58;
    const auto& protocols = protocols_of(rule);
    // A ping passes wherever anything passes: whatever the rule's protocols and ports.
    match.protocol =
        is_ping || !probe.protocol || std::find(protocols.begin(), protocols.end(), *probe.protocol) != protocols.end();
    const bool needs_all = probe.protocol && !has_ports(*probe.protocol);
    const auto admits = [&](PortRange ports) {
        return is_ping || (needs_all ? ports.is_all() : ports.contains(probe.port));
    };
    for (const auto& destination : rule.destinations) {
        const bool there = leads_there(destination);
        const bool ports = std::any_of(destination.ports.begin(), destination.ports.end(), admits);
        if (there && ports) {
            match.destination = match.ports = true;
            return match;
        }
        if (there) { // the right place is nearer than the right port elsewhere
            match.destination = true;
            match.ports = false;
        } else if (!match.destination) {
            match.ports = match.ports || ports;
        }
    }
    return match;
}

std::vector<const Rule*> Judge::rules_from(const IpAddress& source) const {
    std::vector<const Rule*> found;
    const auto address = directory().address_named(source);
    const auto has = [&](const Rule& rule) {
        if (rule.self) return address && rule.self_sources.contains(directory().addresses()[*address].node);
        const auto& sources = *rule.sources;
        return sources.everything || (address && sources.addresses.contains(*address)) ||
               sources.ranges.contains(source);
    };
    for (const auto& rule : rules()) {
        if (is_about_packets(rule) && has(rule)) found.push_back(&rule);
    }
    return found;
}

bool Judge::allows(const Probe& probe) const {
    return probe.source.bits() == probe.destination.bits() &&
           std::any_of(rules().begin(), rules().end(),
                       [&](const Rule& rule) { return is_about_packets(rule) && match(rule, probe).allows(); });
}

} // namespace tailrace
