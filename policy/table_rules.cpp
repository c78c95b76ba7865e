#include "policy/table_compiler.hpp"

#include <fmt/format.h>

#include <optional>
#include <string_view>

namespace tailrace {
namespace {

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

} // namespace

std::string rule_name(std::size_t index) {
    return fmt::format("rule {}", index + 1);
}

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

} // namespace tailrace
