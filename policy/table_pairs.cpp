#include "policy/table_compiler.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace tailrace {
namespace {

constexpr int kSlotProto[3] = {kProtoTcp, kProtoUdp, kProtoSctp};
static_assert(TR_SLOT_TCP == 0 && TR_SLOT_UDP == 1 && TR_SLOT_SCTP == 2);

} // namespace

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

} // namespace tailrace
