// policy/rule.cpp - turns grants and acls into rules (spec: the order of the service's own filters).
#include "policy/rule.hpp"

#include "policy/posture.hpp"

#include <algorithm>
#include <functional>
#include <unordered_map>

namespace tailrace {
namespace {

bool is_internet_range(const IpRange& range) {
    const auto& internet = internet_ranges();
    return std::any_of(internet.begin(), internet.end(),
                       [&](const IpRange& part) { return part.contains(range.first) && part.contains(range.last); });
}

class RuleBuilder {
public:
    RuleBuilder(const Document& document, const Directory& directory, SourceSets& sources)
        : document_(document), directory_(directory), sources_(sources) {}

    RuleList build() {
        if (!document_.acls && !document_.grants) {
            add_default();
        } else {
            if (document_.grants) {
                for (const auto& grant : *document_.grants) {
                    next_element();
                    add_grant(grant);
                }
            }
            if (document_.acls) {
                for (const auto& acl : *document_.acls) {
                    next_element();
                    add_acl(acl);
                }
            }
        }
        for (const auto& rule : document_.ssh) {
            if (rule.recorders.empty()) continue;
            next_element();
            add_recorders(rule);
        }
        return std::move(list_);
    }

private:
    /// A destination and who receives rules about it, without ports.
    struct Resolved {
        RuleDestination destination;
        SharedBitSet receivers;
    };

    void next_element() { place_ = {place_.first + 1, 0}; }
    /// Parts are counted whether or not they become rules.
    std::pair<std::uint32_t, std::uint32_t> next_place() {
        ++place_.second;
        return place_;
    }

    void add_default() {
        AclRule everything;
        everything.sources.emplace_back();
        everything.destinations.push_back({Selector{}, {PortRange::all()}});
        add_acl(everything);
    }

    /// Whoever is logged in to sends what is typed to the recorders: the ssh section opens that port by itself.
    void add_recorders(const SshPolicyRule& ssh) {
        constexpr PortRange kRecorderPort{80, 80};
        BitSet hosts{directory_.size()};
        for (const auto& destination : ssh.destinations)
            hosts |= destination.is(Autogroup::Self) ? self_receivers(self_sources(ssh.sources, nullptr))
                                                     : directory_.nodes_matching(destination);
        std::vector<Selector> recorders;
        for (const auto& tag : ssh.recorders) {
            auto& selector = recorders.emplace_back();
            selector.kind = Selector::Kind::Tag;
            selector.text = selector.name = tag;
        }
        std::vector<std::pair<const Selector*, std::vector<PortRange>>> destinations;
        for (const auto& recorder : recorders)
            destinations.emplace_back(&recorder, std::vector<PortRange>{kRecorderPort});
        add_ports(sources_.of_nodes(hosts), {6}, destinations, ssh.offset);
    }

    /// The nodes whose postures let them be sources; null when none are asked for.
    const BitSet* passing(const std::vector<std::string>& postures) {
        if (postures.empty() && document_.default_source_postures.empty()) return nullptr;
        passing_ = BitSet{directory_.size()};
        for (NodeIndex i = 0; i < directory_.size(); ++i) {
            if (fulfils(document_, postures, directory_.node(i).attributes)) passing_.insert(i);
        }
        return &passing_;
    }

    /// The nodes that can be sources of a rule to autogroup:self. In an acl, `*` means all members.
    BitSet self_sources(const std::vector<Selector>& selectors, const BitSet* passing) const {
        BitSet nodes{directory_.size()};
        for (const auto& selector : selectors)
            nodes |= selector.kind == Selector::Kind::Everything ? directory_.untagged()
                                                                 : directory_.nodes_matching(selector);
        nodes &= directory_.untagged();
        if (passing != nullptr) nodes &= *passing;
        return nodes;
    }

    RuleDestination resolve(const Selector& selector, std::vector<PortRange> ports) {
        auto destination = resolved(selector).destination;
        destination.ports = existing(selector, std::move(ports));
        return destination;
    }

    /// Of a service's addresses a rule opens no ports but those that the service has.
    std::vector<PortRange> existing(const Selector& selector, std::vector<PortRange> ports) const {
        if (selector.kind != Selector::Kind::Service) return ports;
        const auto service = directory_.service_named(selector.name);
        if (!service || directory_.tailnet().services[*service].ports.empty()) return ports;
        std::vector<PortRange> both;
        for (const auto& wanted : ports) {
            for (const auto& there : directory_.tailnet().services[*service].ports) {
                const PortRange part{std::max(wanted.first, there.first), std::min(wanted.last, there.last)};
                if (part.first <= part.last) both.push_back(part);
            }
        }
        return both;
    }

    /// The same word means the same wherever it stands.
    const Resolved& resolved(const Selector& selector) {
        const auto [found, is_new] = resolved_.try_emplace(selector.text);
        if (is_new) {
            found->second.destination = look_up(selector);
            found->second.receivers = receivers_of(found->second.destination);
        }
        return found->second;
    }

    RuleDestination look_up(const Selector& selector) const {
        using Kind = Selector::Kind;
        RuleDestination destination;
        const auto add_range = [&](const IpRange& range) { destination.ranges.emplace_back(range, range_text(range)); };
        if (selector.kind == Kind::Everything) {
            destination.kind = RuleDestination::Kind::Everything;
        } else if (selector.is(Autogroup::Internet)) {
            destination.kind = RuleDestination::Kind::Internet;
        } else if (selector.kind == Kind::Prefix) {
            destination.kind = RuleDestination::Kind::Ranges;
            add_range(IpRange::of(selector.prefix));
        } else if (selector.kind == Kind::IpSet) {
            destination.kind = RuleDestination::Kind::Ranges;
            for (const auto& range : document_.ipsets.at(selector.name)) add_range(range);
        } else if (selector.kind == Kind::Service) {
            destination.kind = RuleDestination::Kind::Ranges;
            if (const auto service = directory_.service_named(selector.name)) {
                for (const auto& address : directory_.tailnet().services[*service].addresses)
                    add_range({address, address});
            }
        } else {
            destination.kind = RuleDestination::Kind::Nodes;
            destination.nodes = directory_.nodes_matching(selector);
        }
        return destination;
    }

    /// The nodes with a subnet route that has something of a destination of nodes or ranges.
    template <typename Visit>
    void for_each_router_of(const RuleDestination& destination, Visit visit) const {
        const auto& routes = directory_.subnet_routes();
        for (const auto& [range, text] : destination.ranges)
            directory_.for_each_route_in(range, [&](std::uint32_t number) { visit(routes[number].node); });
        if (destination.kind != RuleDestination::Kind::Nodes) return;
        for (const auto number : directory_.routes_with_addresses()) {
            if (overlaps(destination, directory_, routes[number])) visit(routes[number].node);
        }
    }

    /// The nodes whose filters hold something of this destination.
    BitSet receivers_of(const RuleDestination& destination) const {
        const auto count = directory_.size();
        switch (destination.kind) {
        case RuleDestination::Kind::Everything:
            return BitSet::full(count);
        case RuleDestination::Kind::Internet: {
            BitSet receivers = directory_.exit_nodes();
            receivers |= directory_.connectors();
            return receivers;
        }
        case RuleDestination::Kind::Nodes:
        case RuleDestination::Kind::Ranges:
            break;
        }
        BitSet receivers{count};
        if (destination.kind == RuleDestination::Kind::Nodes) receivers = destination.nodes;
        for (const auto& [range, text] : destination.ranges) {
            directory_.for_each_address_in(
                range, [&](std::uint32_t address) { receivers.insert(directory_.addresses()[address].node); });
            if (is_internet_range(range)) receivers |= directory_.exit_nodes();
        }
        for_each_router_of(destination, [&](NodeIndex router) { receivers.insert(router); });
        return receivers;
    }

    /// Who has capabilities granted to them: addresses behind routers mean nobody, those of a service all its hosts.
    BitSet grantees_of(const std::vector<RuleDestination>& destinations) const {
        BitSet receivers{directory_.size()};
        for (const auto& destination : destinations) {
            if (destination.kind == RuleDestination::Kind::Everything) return BitSet::full(directory_.size());
            if (destination.kind == RuleDestination::Kind::Nodes) receivers |= destination.nodes;
            for (const auto& [range, text] : destination.ranges) {
                directory_.for_each_address_in(
                    range, [&](std::uint32_t address) { receivers.insert(directory_.addresses()[address].node); });
                directory_.for_each_route_in(range, [&](std::uint32_t number) {
                    const auto& route = directory_.subnet_routes()[number];
                    if (route.service) receivers.insert(route.node);
                });
            }
        }
        return receivers;
    }

    void add_ports(const SourceSet* sources, std::vector<int> protocols,
                   const std::vector<std::pair<const Selector*, std::vector<PortRange>>>& destinations,
                   std::uint32_t offset) {
        const auto place = next_place();
        if (sources->empty() || destinations.empty()) return;
        Rule rule;
        rule.place = place;
        rule.sources = sources;
        rule.protocols = std::move(protocols);
        rule.destinations.reserve(destinations.size());
        for (const auto& [selector, wanted] : destinations) {
            auto ports = existing(*selector, wanted);
            if (ports.empty() && !wanted.empty()) continue; // the service has none of them
            const auto& found = resolved(*selector);
            rule.destinations.push_back(found.destination);
            rule.destinations.back().ports = std::move(ports);
            if (rule.receivers.size() == 0)
                rule.receivers = found.receivers;
            else
                rule.receivers |= found.receivers;
        }
        if (rule.destinations.empty()) return;
        rule.offset = offset;
        list_.rules.push_back(std::move(rule));
    }

    /// The receivers of a rule between a user's own devices: all devices of users who have a source.
    BitSet self_receivers(const BitSet& sources) const {
        BitSet receivers{directory_.size()};
        sources.for_each([&](std::size_t node) {
            if (!receivers.contains(node)) // else another device of the user has brought them all
                receivers |= directory_.nodes_of_user(directory_.node(static_cast<NodeIndex>(node)).user);
        });
        return receivers;
    }

    void add_self(Rule rule, const BitSet& sources) {
        rule.place = next_place();
        rule.self = true;
        rule.self_sources = sources;
        rule.receivers = rule.self_reply ? rule.self_sources : SharedBitSet{self_receivers(sources)};
        if (!sources.empty()) list_.rules.push_back(std::move(rule));
    }

    /// One destination that stands for the receiver's own addresses.
    static std::vector<RuleDestination> own(std::vector<PortRange> ports) {
        return {RuleDestination{RuleDestination::Kind::Nodes, {}, {}, std::move(ports)}};
    }

    void add_acl(const AclRule& acl) {
        if (acl.sources.empty() || acl.destinations.empty()) return;
        // Destinations of the same text are one, then: *, the others in the order of the file, groups last.
        std::vector<std::pair<const Selector*, std::vector<PortRange>>> ordered;
        for (const auto& destination : acl.destinations) {
            const auto same = std::find_if(ordered.begin(), ordered.end(), [&](const auto& other) {
                return other.first->text == destination.selector.text;
            });
            if (same == ordered.end()) {
                ordered.emplace_back(&destination.selector, destination.ports);
            } else {
                same->second.insert(same->second.end(), destination.ports.begin(), destination.ports.end());
            }
        }
        const auto rank = [](const Selector& selector) {
            return selector.kind == Selector::Kind::Everything ? 0 : selector.kind == Selector::Kind::Group ? 2 : 1;
        };
        std::stable_sort(ordered.begin(), ordered.end(),
                         [&](const auto& a, const auto& b) { return rank(*a.first) < rank(*b.first); });

        const auto* passed = passing(acl.postures);
        const auto* sources = sources_.of(acl.sources, document_, passed);
        std::vector<int> protocols;
        if (acl.protocol) protocols.push_back(*acl.protocol);
        std::vector<std::pair<const Selector*, std::vector<PortRange>>> others;
        std::vector<PortRange> self_ports;
        bool self_first = false;
        bool only_autogroups = true;
        for (auto& destination : ordered) {
            if (destination.first->is(Autogroup::Self)) {
                if (others.empty()) self_first = true;
                self_ports = destination.second;
            } else {
                only_autogroups = only_autogroups && destination.first->kind == Selector::Kind::AutogroupKind;
                others.push_back(std::move(destination));
            }
        }
        const auto add_own = [&] {
            Rule rule;
            rule.protocols = protocols;
            rule.destinations = own(self_ports);
            rule.offset = acl.offset;
            add_self(std::move(rule), self_sources(acl.sources, passed));
        };
        if (!self_ports.empty() && self_first && only_autogroups) {
            add_own();
            self_ports.clear();
        }
        add_ports(sources, protocols, others, acl.offset);
        if (!self_ports.empty()) add_own();
    }

    /// The items of `ip` by protocol, in the order in which the protocols appear.
    static std::vector<std::pair<std::vector<int>, std::vector<PortRange>>>
    by_protocol(const std::vector<GrantPorts>& items) {
        std::vector<std::pair<std::vector<int>, std::vector<PortRange>>> groups;
        for (const auto& item : items) {
            std::vector<int> protocols;
            if (item.protocol) protocols.push_back(*item.protocol);
            auto found =
                std::find_if(groups.begin(), groups.end(), [&](const auto& group) { return group.first == protocols; });
            if (found == groups.end()) found = groups.insert(groups.end(), {protocols, {}});
            found->second.push_back(item.ports);
        }
        return groups;
    }

    void add_grant(const Grant& grant) {
        if (grant.sources.empty() || grant.destinations.empty()) return;
        const auto* passed = passing(grant.postures);
        const auto* sources = sources_.of(grant.sources, document_, passed);
        std::vector<Selector> others;
        bool has_self = false;
        bool self_first = false;
        bool only_autogroups = true;
        for (const auto& destination : grant.destinations) {
            if (destination.is(Autogroup::Self)) {
                self_first = self_first || others.empty();
                has_self = true;
            } else {
                only_autogroups = only_autogroups && destination.kind == Selector::Kind::AutogroupKind;
                others.push_back(destination);
            }
        }
        if (!grant.via.empty()) return add_via(grant, sources, others);
        self_first = self_first && only_autogroups;
        if (has_self && self_first) add_grant_to_self(grant, passed);
        if (!others.empty()) add_grant_to(grant, sources, others, passed);
        if (has_self && !self_first) add_grant_to_self(grant, passed);
    }

    void add_grant_to(const Grant& grant, const SourceSet* sources, const std::vector<Selector>& selectors,
                      const BitSet* passed) {
        for (const auto& [protocols, ports] : by_protocol(grant.ip)) {
            std::vector<std::pair<const Selector*, std::vector<PortRange>>> destinations;
            for (const auto& selector : selectors) destinations.emplace_back(&selector, ports);
            add_ports(sources, protocols, destinations, grant.offset);
        }
        if (grant.app.empty()) return;
        std::vector<RuleDestination> destinations;
        for (const auto& selector : selectors) destinations.push_back(resolve(selector, {}));
        add_capabilities(sources, destinations, to_map(grant.app), grant.offset);
        for (const auto& companion : companions(grant.app)) {
            // Reversed: what the destinations may do with the sources.
            std::vector<RuleDestination> back;
            if (passed == nullptr) {
                for (const auto& selector : grant.sources)
                    back.push_back(selector.is(Autogroup::DangerAll) ? RuleDestination{} : resolve(selector, {}));
            } else {
                back.push_back({RuleDestination::Kind::Nodes, sources->touched, {}, {}});
            }
            add_capabilities(sources_.of(selectors, document_), back, {{companion, std::nullopt}}, grant.offset);
        }
    }

    void add_grant_to_self(const Grant& grant, const BitSet* passed) {
        const auto sources = self_sources(grant.sources, passed);
        for (const auto& [protocols, ports] : by_protocol(grant.ip)) {
            Rule rule;
            rule.protocols = protocols;
            rule.destinations = own(ports);
            rule.offset = grant.offset;
            add_self(std::move(rule), sources);
        }
        if (grant.app.empty()) return;
        const auto add = [&](CapabilityMap capabilities, bool reply) {
            Rule rule;
            rule.kind = Rule::Kind::Capabilities;
            rule.self_reply = reply;
            rule.destinations = own({});
            rule.capabilities = std::make_shared<const CapabilityMap>(std::move(capabilities));
            rule.offset = grant.offset;
            add_self(std::move(rule), sources);
        };
        add(to_map(grant.app), false);
        for (const auto& companion : companions(grant.app)) add({{companion, std::nullopt}}, true);
    }

    static CapabilityMap to_map(const CapabilityValues& app) { return {app.begin(), app.end()}; }

    /// The capabilities that come along in the other direction, in the order of the names that they follow from.
    static std::vector<std::string> companions(const CapabilityValues& app) {
        std::vector<std::string> found;
        const auto has = [&](std::string_view name) {
            return std::any_of(app.begin(), app.end(), [&](const auto& entry) { return entry.first == name; });
        };
        if (has("tailscale.com/cap/drive")) found.emplace_back("tailscale.com/cap/drive-sharer");
        if (has("tailscale.com/cap/relay")) found.emplace_back("tailscale.com/cap/relay-target");
        return found;
    }

    void add_capabilities(const SourceSet* sources, std::vector<RuleDestination> destinations,
                          CapabilityMap capabilities, std::uint32_t offset) {
        Rule rule;
        rule.place = next_place();
        rule.kind = Rule::Kind::Capabilities;
        rule.sources = sources;
        rule.receivers = grantees_of(destinations);
        rule.destinations = std::move(destinations);
        rule.capabilities = std::make_shared<const CapabilityMap>(std::move(capabilities));
        rule.offset = offset;
        list_.rules.push_back(std::move(rule));
    }

    /// The tagged routers that serve a destination.
    BitSet via_receivers(const RuleDestination& destination, const BitSet& tagged) const {
        BitSet receivers{directory_.size()};
        if (destination.kind == RuleDestination::Kind::Everything) {
            for (const auto& route : directory_.subnet_routes()) receivers.insert(route.node);
        } else {
            for_each_router_of(destination, [&](NodeIndex router) { receivers.insert(router); });
        }
        const bool beyond =
            is_internet(destination) || std::any_of(destination.ranges.begin(), destination.ranges.end(),
                                                    [](const auto& range) { return is_internet_range(range.first); });
        if (beyond) receivers |= directory_.exit_nodes();
        if (destination.kind == RuleDestination::Kind::Internet) receivers |= directory_.connectors();
        receivers &= tagged;
        return receivers;
    }

    void add_via(const Grant& grant, const SourceSet* sources, const std::vector<Selector>& selectors) {
        ViaGrant via;
        via.sources = sources;
        via.tagged = BitSet{directory_.size()};
        for (const auto& tag : grant.via) {
            Selector selector;
            selector.kind = Selector::Kind::Tag;
            selector.name = tag;
            via.tagged |= directory_.nodes_matching(selector);
        }
        const auto add = [&](std::vector<int> protocols, const std::vector<PortRange>& ports, bool silent) {
            Rule rule;
            rule.place = next_place();
            rule.via = true;
            rule.silent = silent;
            rule.sources = sources;
            rule.protocols = std::move(protocols);
            rule.receivers = BitSet{directory_.size()};
            for (const auto& selector : selectors) {
                auto destination = resolve(selector, ports);
                if (destination.ports.empty() && !ports.empty()) continue; // the service has none of them
                rule.destinations.push_back(std::move(destination));
                rule.receivers |= via_receivers(rule.destinations.back(), via.tagged);
            }
            rule.offset = grant.offset;
            list_.rules.push_back(std::move(rule));
        };
        if (sources->empty()) return;
        for (const auto& [protocols, ports] : by_protocol(grant.ip)) add(protocols, ports, false);
        if (grant.ip.empty())
            add({}, {}, true); // app only: no filter, but both ends see each other and the route is there
        for (const auto& selector : selectors) {
            via.destinations.push_back(resolve(selector, {}));
            via.internet = via.internet || is_internet(via.destinations.back());
        }
        list_.vias.push_back(std::move(via));
    }

    const Document& document_;
    const Directory& directory_;
    SourceSets& sources_;
    BitSet passing_;
    std::unordered_map<std::string, Resolved> resolved_; ///< by the text of the selector
    std::pair<std::uint32_t, std::uint32_t> place_;
    RuleList list_;
};

} // namespace

RuleList build_rules(const Document& document, const Directory& directory, SourceSets& sources) {
    return RuleBuilder{document, directory, sources}.build();
}

bool overlaps(const RuleDestination& destination, const Directory& directory, const Directory::SubnetRoute& route) {
    switch (destination.kind) {
    case RuleDestination::Kind::Everything:
        return true;
    case RuleDestination::Kind::Internet: // a network of its own that a router has is not what is meant
        return directory.connectors().contains(route.node) && is_internet_range(route.range);
    case RuleDestination::Kind::Nodes:
        return std::any_of(route.addresses.begin(), route.addresses.end(), [&](std::uint32_t address) {
            return destination.nodes.contains(directory.addresses()[address].node);
        });
    case RuleDestination::Kind::Ranges:
        return std::any_of(destination.ranges.begin(), destination.ranges.end(),
                           [&](const auto& range) { return range.first.overlaps(route.range); });
    }
    return false;
}

bool is_internet(const RuleDestination& destination) {
    if (destination.kind == RuleDestination::Kind::Internet || destination.kind == RuleDestination::Kind::Everything)
        return true;
    return std::any_of(destination.ranges.begin(), destination.ranges.end(), [](const auto& range) {
        const auto prefixes = range.first.prefixes();
        return prefixes.size() == 1 && prefixes.front().is_default();
    });
}

} // namespace tailrace
