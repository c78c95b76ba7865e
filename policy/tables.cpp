#include "policy/tables.hpp"

#include <fmt/format.h>
#include <netinet/in.h>

#include <algorithm>
#include <bitset>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <set>
#include <span>
#include <string_view>

namespace tailrace {
namespace {

constexpr int kProtoIcmp = 1, kProtoTcp = 6, kProtoUdp = 17, kProtoIcmp6 = 58, kProtoSctp = 132;
constexpr int kSlotProto[3] = {kProtoTcp, kProtoUdp, kProtoSctp};
static_assert(TR_SLOT_TCP == 0 && TR_SLOT_UDP == 1 && TR_SLOT_SCTP == 2);

std::vector<IpPrefix> everything() {
    return {*IpPrefix::parse("0.0.0.0/0"), *IpPrefix::parse("::/0")};
}

/// The addresses that an element of SrcIPs or DstPorts stands for; no value when it makes no sense.
std::optional<std::vector<IpPrefix>> parse_addresses(std::string_view text) {
    if (text == "*") return everything();
    if (text.find('/') != text.npos) {
        auto prefix = IpPrefix::parse(text);
        if (!prefix || !prefix->valid() || !prefix->is_masked()) return std::nullopt;
        return std::vector{*prefix};
    }
    if (auto dash = text.find('-'); dash != text.npos) {
        auto first = IpAddress::parse(text.substr(0, dash)), last = IpAddress::parse(text.substr(dash + 1));
        if (!first || !last || !first->valid() || first->bits() != last->bits() || *last < *first) return std::nullopt;
        return IpRange{*first, *last}.prefixes();
    }
    auto address = IpAddress::parse(text);
    if (!address || !address->valid()) return std::nullopt;
    return std::vector{IpPrefix::single(*address)};
}

/// A rule as the tables need it.
struct PlacedRule {
    std::size_t index = 0;
    std::uint32_t number = 0;
    std::vector<IpPrefix> sources;
    std::vector<std::string> caps;
    std::vector<std::pair<IpPrefix, PortRange>> destinations;
    bool default_protos = false;
    std::bitset<256> protos;
    bool has_v4_destination = false, has_v6_destination = false;
};

bool same_value(const tr_address& a, const tr_address& b) {
    return std::memcmp(&a, &b, sizeof a) == 0;
}

tr_addr to_map(const IpAddress& address) {
    tr_addr out{};
    std::memcpy(out.bytes, address.bytes().data(), address.bytes().size());
    return out;
}

/// How warnings call a rule.
std::string rule_name(std::size_t index) {
    return fmt::format("rule {}", index + 1);
}

} // namespace

std::size_t TableNumbers::SignatureHash::operator()(const Signature& signature) const {
    std::uint64_t hash = 0x9e3779b97f4a7c15;
    for (std::uint64_t element : signature) {
        hash = (hash ^ element) * 0xff51afd7ed558ccd;
        hash ^= hash >> 32;
    }
    return static_cast<std::size_t>(hash);
}

std::uint32_t TableNumbers::Names::number(const Signature& signature) {
    auto [found, fresh] = entries_.try_emplace(signature, Entry{0, true});
    if (fresh) {
        if (free_.empty())
            found->second.number = next_++;
        else {
            found->second.number = free_.back();
            free_.pop_back();
        }
    }
    found->second.used = true;
    return found->second.number;
}

void TableNumbers::Names::sweep() {
    for (auto entry = entries_.begin(); entry != entries_.end();) {
        if (!entry->second.used) {
            free_.push_back(entry->second.number);
            entry = entries_.erase(entry);
            continue;
        }
        entry->second.used = false;
        ++entry;
    }
}

std::vector<std::uint32_t> TableNumbers::rules(const std::vector<FilterRule>& rules) {
    std::vector<KnownRule> wanted;
    for (const FilterRule& rule : rules) {
        KnownRule text{{}, {}, 0};
        for (const std::string& source : rule.src_ips) text.sources += source + " ";
        for (const FilterDestination& to : rule.dst_ports)
            text.destinations += fmt::format("{}:{}-{} ", to.ip, to.ports.first, to.ports.last);
        for (int proto : rule.ip_proto) text.destinations += fmt::format("/{} ", proto);
        wanted.push_back(std::move(text));
    }

    std::vector<bool> taken(known_.size());
    auto take = [&](auto key_of) {
        std::multimap<std::string, std::size_t> by_key;
        for (std::size_t i = 0; i < known_.size(); ++i)
            if (!taken[i]) by_key.emplace(key_of(known_[i]), i);
        for (KnownRule& rule : wanted) {
            if (rule.number) continue;
            auto found = by_key.find(key_of(rule));
            if (found == by_key.end()) continue;
            rule.number = known_[found->second].number;
            taken[found->second] = true;
            by_key.erase(found);
        }
    };
    take([](const KnownRule& rule) { return rule.sources + ">" + rule.destinations; });
    take([](const KnownRule& rule) { return rule.destinations; });
    take([](const KnownRule& rule) { return rule.sources; });

    // New numbers while there are counters for them, then the ones that got free.
    std::set<std::uint32_t> used;
    for (const KnownRule& rule : wanted) used.insert(rule.number);
    std::uint32_t lowest = 1;
    std::vector<std::uint32_t> numbers;
    for (KnownRule& rule : wanted) {
        if (!rule.number && next_rule_ < TR_COUNTED_RULES) rule.number = next_rule_++;
        if (!rule.number) {
            while (used.count(lowest)) ++lowest;
            rule.number = lowest;
            next_rule_ = std::max(next_rule_, lowest + 1);
        }
        used.insert(rule.number);
        numbers.push_back(rule.number);
    }
    known_ = std::move(wanted);
    return numbers;
}

/// One compilation. Signatures: of a source, its rules (number * 2, plus 1 when only a capability names it); of a
/// destination, its rules with port ranges.
class TableCompiler {
public:
    TableCompiler(const FilterInput& input, TableNumbers& numbers) : input_(input), numbers_(numbers) {}

    /// The rules that count, with the reasons for those that don't.
    void read_rules(PolicyTables& out);
    std::size_t rule_count() const { return rules_.size(); }
    std::size_t rule_index(std::size_t i) const { return rules_[i].index; }

    /// Fills the tables from the rules that `kept` marks.
    void build(const std::vector<bool>& kept, PolicyTables& out);
    void sweep();

private:
    using Signature = TableNumbers::Signature;
    /// An element of an address's signature, before inheritance. `element` 0 only says that the prefix matters.
    struct Mark {
        IpPrefix prefix;
        std::uint64_t element = 0;
        auto operator<=>(const Mark&) const = default;
    };
    static std::uint64_t source_element(std::uint32_t rule, bool by_cap) { return rule * 2ULL + (by_cap ? 1 : 0); }
    static std::uint64_t destination_element(std::uint32_t rule, PortRange ports) {
        return std::uint64_t{rule} << 32 | std::uint64_t{ports.first} << 16 | ports.last;
    }

    bool refuse_whole_filter(PolicyTables& out) const;
    void build_sources(PolicyTables& out);
    void build_destinations(PolicyTables& out);
    void build_ports(PolicyTables& out, bool renumbered = false);
    void build_pairs(PolicyTables& out);
    void build_settings(PolicyTables& out) const;
    tr_pair make_pair(const Signature& elements, PolicyTables& out);
    std::uint32_t first_cap_rule(const Signature& signature, const IpPrefix& prefix) const;

    const FilterInput& input_;
    TableNumbers& numbers_;
    std::vector<PlacedRule> rules_;
    std::vector<bool> kept_;
    std::unordered_map<std::uint32_t, const PlacedRule*> by_number_;
    std::map<std::uint32_t, Signature> sources_, destinations_;           ///< class -> signature
    std::map<std::uint32_t, std::vector<std::uint16_t>> port_classes_of_; ///< first << 16 | last -> classes
    std::unordered_map<std::uint32_t, bool> rule_sets_written_;
    std::unordered_map<Signature, tr_pair, TableNumbers::SignatureHash> pairs_made_;
    tr_address own4_{}, own6_{};
};

bool TableCompiler::refuse_whole_filter(PolicyTables& out) const {
    for (std::size_t i = 0; i < input_.rules.size(); ++i) {
        const FilterRule& rule = input_.rules[i];
        bool bits = rule.has_src_bits;
        for (const FilterDestination& to : rule.dst_ports) bits = bits || to.has_bits;
        if (!bits) continue;
        out.warnings.push_back(fmt::format("{} has the obsolete SrcBits or Bits: the whole filter is ignored and "
                                           "nothing is allowed",
                                           rule_name(i)));
        return true;
    }
    for (const PeerFacts& peer : input_.peers) {
        if (!peer.unsigned_peer_api_only) continue;
        for (const PlacedRule& rule : rules_) {
            if (rule.destinations.empty()) continue;
            for (const IpPrefix& source : rule.sources)
                for (const IpPrefix& allowed : peer.allowed_ips)
                    if (source.overlaps(allowed)) {
                        out.warnings.push_back(fmt::format("{} names {}, which a peer without signature holds: the "
                                                           "whole filter is ignored and nothing is allowed",
                                                           rule_name(rule.index), allowed.text()));
                        return true;
                    }
        }
    }
    return false;
}

void TableCompiler::read_rules(PolicyTables& out) {
    std::vector<std::uint32_t> numbers = numbers_.rules(input_.rules);
    for (std::size_t i = 0; i < input_.rules.size(); ++i) {
        const FilterRule& wire = input_.rules[i];
        if (wire.dst_ports.empty()) continue; // a capability grant lets no packet in
        PlacedRule rule;
        rule.index = i;
        rule.number = numbers[i];
        for (const std::string& text : wire.src_ips) {
            if (text.starts_with("cap:")) {
                rule.caps.push_back(text.substr(4));
            } else if (auto prefixes = parse_addresses(text)) {
                rule.sources.insert(rule.sources.end(), prefixes->begin(), prefixes->end());
            } else {
                out.warnings.push_back(fmt::format("{}: source {} is skipped, it is no address, prefix without host "
                                                   "bits, range or capability",
                                                   rule_name(i), text));
            }
        }
        for (const FilterDestination& to : wire.dst_ports) {
            auto prefixes = parse_addresses(to.ip);
            bool no_port = to.ports.last < to.ports.first; // ICMP does not ask for ports
            if (!prefixes || no_port)
                out.warnings.push_back(fmt::format("{}: destination {}:{}-{} {}", rule_name(i), to.ip, to.ports.first,
                                                   to.ports.last,
                                                   prefixes ? "holds no port" : "is skipped, it makes no sense"));
            if (!prefixes) continue;
            for (const IpPrefix& prefix : *prefixes) {
                rule.destinations.emplace_back(prefix, to.ports);
                (prefix.address().is_v4() ? rule.has_v4_destination : rule.has_v6_destination) = true;
            }
        }
        rule.default_protos = wire.ip_proto.empty();
        for (int proto :
             rule.default_protos ? std::vector<int>{kProtoTcp, kProtoUdp, kProtoIcmp, kProtoIcmp6} : wire.ip_proto)
            if (proto >= 0 && proto <= 255) rule.protos.set(static_cast<std::size_t>(proto));
        rules_.push_back(std::move(rule));
    }
    if (refuse_whole_filter(out)) rules_.clear();
}

void TableCompiler::build(const std::vector<bool>& kept, PolicyTables& out) {
    kept_ = kept;
    by_number_.clear();
    sources_.clear();
    destinations_.clear();
    port_classes_of_.clear();
    rule_sets_written_.clear();
    pairs_made_.clear();
    own4_ = own6_ = {};
    out.hosts.clear();
    out.nets.clear();
    out.pairs.clear();
    out.rows.clear();
    out.rules.clear();
    out.settings = {};
    for (std::size_t i = 0; i < rules_.size(); ++i) {
        if (!kept_[i]) continue;
        by_number_[rules_[i].number] = &rules_[i];
        out.rules[rules_[i].number] = rules_[i].index;
    }
    build_sources(out);
    build_destinations(out);
    build_ports(out);
    build_pairs(out);
    build_settings(out);
}

void TableCompiler::sweep() {
    numbers_.source_classes_.sweep();
    numbers_.destination_classes_.sweep();
    numbers_.port_classes_.sweep();
    numbers_.rule_sets_.sweep();
}

namespace {

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
    std::sort(marks.begin(), marks.end());
    if (any_jailed) out.settings.flags |= TR_SETTING_HAS_JAILED;

    std::vector<Level> levels;
    for (std::size_t i = 0; i < marks.size();) {
        Level here;
        here.prefix = marks[i].prefix;
        climb_to(levels, here.prefix);
        Elements added;
        for (; i < marks.size() && marks[i].prefix == here.prefix; ++i)
            if (marks[i].element && (added.empty() || added.back() != marks[i].element))
                added.push_back(marks[i].element);
        const Level* parent = levels.empty() ? nullptr : &levels.back();
        here.elements = parent ? joined(parent->elements, added) : std::move(added);
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

    std::vector<Level> levels;
    for (std::size_t i = 0; i < marks.size();) {
        Level here;
        here.prefix = marks[i].prefix;
        climb_to(levels, here.prefix);
        Elements added;
        for (; i < marks.size() && marks[i].prefix == here.prefix; ++i)
            if (marks[i].element && (added.empty() || added.back() != marks[i].element))
                added.push_back(marks[i].element);
        const Level* parent = levels.empty() ? nullptr : &levels.back();
        here.elements = parent ? joined(parent->elements, added) : std::move(added);
        here.local = (parent && parent->local) || local.count(here.prefix);
        if (here.local) {
            if (own.count(here.prefix)) here.value.flags |= TR_ADDRESS_OWN;
            if (!here.elements.empty()) {
                here.value.address_class = numbers_.destination_classes_.number(here.elements);
                destinations_.emplace(here.value.address_class, here.elements);
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

void TableCompiler::build_ports(PolicyTables& out, bool renumbered) {
    std::set<std::uint32_t> ranges; // first << 16 | last
    for (std::size_t i = 0; i < rules_.size(); ++i) {
        if (!kept_[i]) continue;
        for (const auto& [prefix, ports] : rules_[i].destinations)
            if (!ports.is_all() && ports.first <= ports.last)
                ranges.insert(std::uint32_t{ports.first} << 16 | ports.last);
    }
    std::set<std::uint32_t> starts{0};
    for (std::uint32_t range : ranges) {
        starts.insert(range >> 16);
        starts.insert((range & 0xffff) + 1);
    }

    auto classes = std::make_shared<tr_port_classes>();
    std::set<std::uint32_t> open; // the ranges that hold the interval at hand, last << 16 | first
    auto next_range = ranges.begin();
    for (auto start = starts.begin(); start != starts.end() && *start < TR_PORTS; ++start) {
        while (!open.empty() && (*open.begin() >> 16) < *start) open.erase(open.begin());
        for (; next_range != ranges.end() && (*next_range >> 16) == *start; ++next_range)
            open.insert(*next_range << 16 | *next_range >> 16);
        std::uint32_t end =
            std::next(start) == starts.end() ? TR_PORTS : std::min<std::uint32_t>(*std::next(start), TR_PORTS);
        if (open.empty()) continue;
        auto number = numbers_.port_classes_.number(Signature(open.begin(), open.end()));
        if (number >= TR_PORTS) {
            if (!renumbered) { // earlier policies hold the small numbers: nobody needs those any more
                numbers_.port_classes_ = {};
                port_classes_of_.clear();
                return build_ports(out, true);
            }
            // Every port a class of its own, and class 0 is for those in no rule.
            std::string closed = fmt::format("port {} does not fit into the packet filter and is closed", *start);
            if (std::find(out.warnings.begin(), out.warnings.end(), closed) == out.warnings.end())
                out.warnings.push_back(std::move(closed));
            continue;
        }
        auto port_class = static_cast<std::uint16_t>(number);
        for (std::uint32_t port = *start; port < end; ++port) classes->class_of[port] = port_class;
        for (std::uint32_t range : open) {
            auto& of_range = port_classes_of_[range << 16 | range >> 16];
            if (std::find(of_range.begin(), of_range.end(), port_class) == of_range.end())
                of_range.push_back(port_class);
        }
    }
    out.ports = std::move(classes);
}

/// `elements`: what of a destination's signature the source's rules reach, with bit 63 where only by capability.
tr_pair TableCompiler::make_pair(const Signature& elements, PolicyTables& out) {
    constexpr std::uint64_t kByCap = std::uint64_t{1} << 63;
    struct Reach {
        const PlacedRule* rule;
        bool by_cap;
        std::vector<PortRange> ports;
        bool all = false;
    };
    std::map<std::size_t, Reach> in_order;
    for (std::uint64_t element : elements) {
        const PlacedRule* rule = by_number_.at(static_cast<std::uint32_t>((element & ~kByCap) >> 32));
        PortRange ports{static_cast<std::uint16_t>(element >> 16), static_cast<std::uint16_t>(element)};
        Reach& reach = in_order.try_emplace(rule->index, Reach{rule, (element & kByCap) != 0, {}, false}).first->second;
        reach.ports.push_back(ports);
        reach.all = reach.all || ports.is_all();
    }

    tr_pair pair{};
    std::map<std::pair<std::uint8_t, std::uint16_t>, std::uint32_t> rows; // protocol, port class -> rule
    pair.any_rule = in_order.begin()->second.rule->number;
    for (int slot = TR_SLOT_TCP; slot <= TR_SLOT_SCTP; ++slot) {
        for (const auto& [index, reach] : in_order) {
            if (!reach.rule->protos.test(static_cast<std::size_t>(kSlotProto[slot]))) continue;
            if (reach.all) {
                pair.all_ports[slot] = reach.rule->number;
                break; // whatever comes later is never the first
            }
            for (PortRange ports : reach.ports)
                for (std::uint16_t port_class : port_classes_of_[std::uint32_t{ports.first} << 16 | ports.last])
                    rows.try_emplace({static_cast<std::uint8_t>(kSlotProto[slot]), port_class}, reach.rule->number);
        }
    }
    for (const auto& [index, reach] : in_order) {
        if (!reach.all || reach.by_cap) continue;
        if (reach.rule->default_protos) {
            if (!pair.all_ports[TR_SLOT_CROSS_ICMP]) pair.all_ports[TR_SLOT_CROSS_ICMP] = reach.rule->number;
            continue;
        }
        bool cross_icmp_decided = pair.all_ports[TR_SLOT_CROSS_ICMP]; // by a rule before this one; rows are asked first
        for (int proto = 1; proto < 255; ++proto)
            if (reach.rule->protos.test(static_cast<std::size_t>(proto)) && proto != kProtoTcp && proto != kProtoUdp &&
                proto != kProtoSctp && !(cross_icmp_decided && (proto == kProtoIcmp || proto == kProtoIcmp6)))
                rows.try_emplace({static_cast<std::uint8_t>(proto), std::uint16_t{0}}, reach.rule->number);
    }
    if (rows.empty()) return pair;

    Signature contents;
    for (const auto& [key, rule] : rows) {
        contents.push_back(std::uint64_t{key.first} << 48 | std::uint64_t{key.second} << 32 | rule);
        int slot = key.first == kProtoTcp    ? TR_SLOT_TCP
                   : key.first == kProtoUdp  ? TR_SLOT_UDP
                   : key.first == kProtoSctp ? TR_SLOT_SCTP
                                             : TR_SLOT_OTHER;
        pair.has_rows |= static_cast<std::uint8_t>(1u << slot);
    }
    pair.rule_set = numbers_.rule_sets_.number(contents) & (TR_MAX_RULE_SETS - 1); // there are far fewer
    if (rule_sets_written_.try_emplace(pair.rule_set, true).second)
        for (const auto& [key, rule] : rows) out.rows.push_back({pair.rule_set, key.second, key.first, 0, rule, 0});
    return pair;
}

void TableCompiler::build_pairs(PolicyTables& out) {
    std::unordered_map<std::uint32_t, std::vector<std::uint32_t>> classes_of_rule; // rule -> destination classes
    for (const auto& [dst_class, signature] : destinations_) {
        std::uint32_t last = 0;
        for (std::uint64_t element : signature) {
            auto rule = static_cast<std::uint32_t>(element >> 32);
            if (rule != last) classes_of_rule[rule].push_back(dst_class);
            last = rule;
        }
    }
    for (const auto& [src_class, signature] : sources_) {
        std::unordered_map<std::uint32_t, Signature> reached; // destination class -> elements
        for (std::uint64_t source : signature) {
            auto rule = static_cast<std::uint32_t>(source >> 1);
            auto classes = classes_of_rule.find(rule);
            if (classes == classes_of_rule.end()) continue;
            for (std::uint32_t dst_class : classes->second) {
                const Signature& all = destinations_.at(dst_class);
                auto from = std::lower_bound(all.begin(), all.end(), std::uint64_t{rule} << 32);
                for (; from != all.end() && (*from >> 32) == rule; ++from)
                    reached[dst_class].push_back(*from | (source & 1) << 63);
            }
        }
        for (auto& [dst_class, elements] : reached) {
            auto [made, fresh] = pairs_made_.try_emplace(elements);
            if (fresh) made->second = make_pair(elements, out);
            tr_pair& pair = out.pairs.emplace_back(made->second);
            pair.src_class = src_class;
            pair.dst_class = dst_class;
        }
    }
}

void TableCompiler::build_settings(PolicyTables& out) const {
    tr_settings& settings = out.settings;
    if (input_.shields_up) settings.flags |= TR_SETTING_SHIELDS_UP;
    if (input_.strict_forwarded) settings.flags |= TR_SETTING_STRICT_FORWARDED;
    if (input_.strict_own) settings.flags |= TR_SETTING_STRICT_OWN;
    for (const PolicyTables::Address& net : out.nets)
        settings.flags |= TR_SETTING_HAS_NETS(net.side, net.prefix.address().is_v4() ? 4u : 6u);
    settings.peer_api4 = htons(input_.peer_api4);
    settings.peer_api6 = htons(input_.peer_api6);
    for (const IpAddress& address : input_.own_addresses) {
        if (address.is_v4() && !settings.has_own4) {
            settings.has_own4 = 1;
            settings.own4 = to_map(address);
            settings.own4_address = own4_;
        } else if (address.is_v6() && !settings.has_own6) {
            settings.has_own6 = 1;
            settings.own6 = to_map(address);
            settings.own6_address = own6_;
        }
    }
}

namespace {

std::vector<tr_host> hosts_of(const PolicyTables& tables) {
    std::vector<tr_host> out;
    out.reserve(tables.hosts.size());
    for (const PolicyTables::Address& host : tables.hosts) {
        const IpAddress& address = host.prefix.address();
        std::uint8_t family = address.is_v4() ? 4 : 6;
        out.push_back({to_map(address), {0, host.side, family, 0}, host.value});
    }
    return out;
}

/// Makes a policy of it in which no packet finds its destination.
void allow_nothing(PolicyTables& tables) {
    tables.hosts.clear();
    tables.nets.clear();
    tables.pairs.clear();
    tables.rows.clear();
    tables.rules.clear();
    tr_settings settings{};
    settings.flags =
        tables.settings.flags & (TR_SETTING_SHIELDS_UP | TR_SETTING_STRICT_FORWARDED | TR_SETTING_STRICT_OWN);
    tables.settings = settings;
    tables.image = *lay_out({}, {}, {});
}

bool fits(const PolicyTables& tables, const TableLimits& limits) {
    return tables.hosts.size() <= limits.hosts && tables.nets.size() <= limits.nets &&
           tables.pairs.size() <= limits.pairs && tables.rows.size() <= limits.rows;
}

} // namespace

static PolicyTables compile(const FilterInput& input, TableNumbers& numbers, const TableLimits& limits) {
    PolicyTables out;
    TableCompiler compiler{input, numbers};
    compiler.read_rules(out);
    std::vector<bool> kept(compiler.rule_count(), true);
    compiler.build(kept, out);

    // Too large: find the first rule that does not fit and go on without it, a few times; then without all the rest.
    std::size_t settled = 0; // rules before this one are decided
    for (int round = 0; !fits(out, limits) && settled < kept.size(); ++round) {
        std::size_t low = settled, high = kept.size(); // the first `low` fit, the first `high` don't
        std::vector<bool> trial;
        while (low + 1 < high) {
            std::size_t middle = (low + high) / 2;
            trial = kept;
            std::fill(trial.begin() + static_cast<std::ptrdiff_t>(middle), trial.end(), false);
            compiler.build(trial, out);
            (fits(out, limits) ? low : high) = middle;
        }
        constexpr int kRounds = 8;
        std::size_t until = round < kRounds ? low + 1 : kept.size();
        for (std::size_t i = low; i < until; ++i) {
            kept[i] = false;
            out.left_out.push_back(compiler.rule_index(i));
            out.warnings.push_back(fmt::format("{} does not fit into the packet filter and is not in force",
                                               rule_name(compiler.rule_index(i))));
        }
        settled = until;
        compiler.build(kept, out);
    }
    compiler.sweep();
    auto image = fits(out, limits)
                     ? lay_out(hosts_of(out), out.pairs, out.rows,
                               {image_buckets(limits.hosts), image_buckets(limits.pairs), image_buckets(limits.rows)})
                     : std::nullopt;
    out.ports_sum = content_sum(std::as_bytes(std::span{out.ports.get(), 1}));
    if (image) {
        out.image = std::move(*image);
    } else {
        allow_nothing(out);
        out.warnings.push_back("the addresses of this network alone do not fit into the packet filter: nothing is "
                               "allowed");
    }
    return out;
}

PolicyTables compile_tables(const FilterInput& input, TableNumbers& numbers, const TableLimits& limits) {
    PolicyTables out = compile(input, numbers, limits);
    // A large policy leaves a hundred thousand freed pieces, and the allocator sorts ten thousand of them in an
    // allocation that finds none to fit. Made here, so that it does not happen in the commit.
    for (std::size_t pieces = out.pairs.size(); pieces > 2000; pieces /= 2) {
        void* volatile unused = std::malloc(65536);
        std::free(unused);
    }
    return out;
}

} // namespace tailrace
