#include "tests/fuzz/filter_twins.hpp"

#include <netinet/in.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace tailrace::test {
namespace {

constexpr std::uint8_t kIcmp = 1, kTcp = 6, kUdp = 17, kIcmp6 = 58, kSctp = 132;
constexpr int kQuestions = 60;

ReferenceFilter::Ip to_reference(const IpAddress& address) {
    ReferenceFilter::Ip ip;
    ip.family = address.is_v4() ? 4 : 6;
    std::ranges::transform(address.bytes(), ip.bytes.begin(),
                           [](std::byte b) { return std::to_integer<std::uint8_t>(b); });
    return ip;
}

IpAddress from_reference(const ReferenceFilter::Ip& ip) {
    return IpAddress::from_bytes(std::as_bytes(std::span{ip.bytes}).first(ip.family == 4 ? 4 : 16));
}

} // namespace

TableWalk::TableWalk(const PolicyTables& tables) : tables_(tables) {
    for (const auto* list : {&tables.hosts, &tables.nets})
        for (const PolicyTables::Address& address : *list)
            if (!addresses_.emplace(std::pair{address.side, address.prefix}, address.value).second) std::abort();
    for (const tr_pair& pair : tables.pairs)
        if (!pairs_.emplace(std::pair{pair.src_class, pair.dst_class}, pair).second) std::abort();
    for (const tr_row& row : tables.rows) {
        std::tuple<std::uint32_t, std::uint8_t, std::uint16_t> key{row.rule_set, row.ip_proto, row.port_class};
        if (!rows_.emplace(key, row.rule).second) std::abort();
    }
}

const tr_address* TableWalk::find(std::uint8_t side, const IpAddress& address) const {
    for (int bits = address.bits(); bits >= 0; --bits)
        if (auto found = addresses_.find({side, IpPrefix{address, bits}.masked()}); found != addresses_.end())
            return &found->second;
    return nullptr;
}

std::uint32_t TableWalk::row(const tr_pair& pair, std::uint8_t proto, std::uint16_t port_class) const {
    auto found = rows_.find({pair.rule_set, proto, port_class});
    return found == rows_.end() ? 0 : found->second;
}

std::uint32_t TableWalk::rule_for(const IpAddress& src, const IpAddress& dst, std::uint8_t proto,
                                  std::uint16_t port) const {
    const tr_address *from = find(TR_SIDE_SOURCE, src), *to = find(TR_SIDE_DESTINATION, dst);
    if (!to || !from) return 0;
    auto found = pairs_.find({from->address_class, to->address_class});
    const tr_pair* pair =
        found == pairs_.end() || !from->address_class || !to->address_class ? nullptr : &found->second;
    if (proto == (dst.is_v4() ? kIcmp : kIcmp6)) return pair ? pair->any_rule : from->icmp_rule;
    if (!pair) return 0;
    auto with_ports = [&](unsigned slot) {
        std::uint32_t rule = 0;
        if (pair->has_rows & 1u << slot) rule = row(*pair, proto, tables_.ports->class_of[port]);
        return rule ? rule : pair->all_ports[slot];
    };
    if (proto == kTcp) return with_ports(TR_SLOT_TCP);
    if (proto == kUdp) return with_ports(TR_SLOT_UDP);
    if (proto == kSctp) return with_ports(TR_SLOT_SCTP);
    std::uint32_t rule = pair->has_rows & 1u << TR_SLOT_OTHER ? row(*pair, proto, 0) : 0;
    if (!rule && (proto == kIcmp || proto == kIcmp6)) rule = pair->all_ports[TR_SLOT_CROSS_ICMP];
    return rule;
}

void compare_twins(const FilterInput& input, const PolicyTables& tables, Dice& dice, Agreement agreement) {
    TableWalk walk{tables};
    ReferenceFilter reference{input};
    std::vector<IpAddress> edges;
    for (const ReferenceFilter::Ip& ip : reference.edges()) edges.push_back(from_reference(ip));
    for (int i = 0; i < kQuestions; ++i) {
        bool v4 = dice.chance(50);
        IpAddress src = random_address(dice, v4, edges), dst = random_address(dice, v4, edges);
        ReferenceFilter::Parsed packet;
        packet.src = to_reference(src);
        packet.dst = to_reference(dst);
        packet.proto = random_protocol(dice, input);
        packet.dst_port = random_port(dice, input);
        auto proto = static_cast<std::uint8_t>(packet.proto);
        if (proto == 0 || proto == 255) continue; // dropped before any rule is asked

        bool local = reference.is_local(packet.dst);
        std::optional<std::size_t> expected = local ? reference.rule_for(packet) : std::nullopt, got;
        if (std::uint32_t number = walk.rule_for(src, dst, proto, packet.dst_port))
            got = tables.rules.at(number); // a number without a rule would throw
        bool right = agreement == Agreement::Exact ? local == walk.is_local(dst) && expected == got
                                                   : !got || expected.has_value();
        if (right) continue;
        auto text = [](std::optional<std::size_t> rule) { return rule ? static_cast<long>(*rule) : -1; };
        std::fprintf(stderr, "%s -> %s protocol %d port %d: rule %ld, should be %ld (-1: none)\n", src.text().c_str(),
                     dst.text().c_str(), packet.proto, packet.dst_port, text(got), text(expected));
        std::abort();
    }
}

} // namespace tailrace::test
