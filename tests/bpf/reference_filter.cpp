#include "tests/bpf/reference_filter.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace tailrace::test {
namespace {

using Ip = ReferenceFilter::Ip;
using Range = ReferenceFilter::Range;

constexpr int kIcmp = 1, kTcp = 6, kUdp = 17, kIcmp6 = 58, kTsmp = 99, kSctp = 132;
constexpr ReferenceVerdict kMalformed{false, "malformed", std::nullopt};

ReferenceVerdict pass(std::string_view reason) {
    return {true, reason, std::nullopt};
}
ReferenceVerdict drop(std::string_view reason) {
    return {false, reason, std::nullopt};
}

int size_of(int family) {
    return family == 4 ? 4 : 16;
}

Ip ip_of(int family, const void* bytes) {
    Ip ip;
    ip.family = family;
    std::memcpy(ip.bytes.data(), bytes, static_cast<std::size_t>(size_of(family)));
    return ip;
}

Ip ip_of(const IpAddress& address) {
    return address.valid() ? ip_of(address.is_v4() ? 4 : 6, address.bytes().data()) : Ip{};
}

std::optional<Ip> parse_ip(const std::string& text) {
    if (text.find('\0') != std::string::npos) return std::nullopt;
    std::uint8_t bytes[16];
    if (::inet_pton(AF_INET, text.c_str(), bytes) == 1) return ip_of(4, bytes);
    if (::inet_pton(AF_INET6, text.c_str(), bytes) == 1) return ip_of(6, bytes);
    return std::nullopt;
}

/// All addresses whose first `bits` bits are those of `ip`.
Range range_of(const Ip& ip, int bits) {
    Range range{ip, ip};
    for (int bit = bits; bit < size_of(ip.family) * 8; ++bit) {
        auto at = static_cast<std::size_t>(bit / 8);
        int mask = 0x80 >> (bit % 8);
        range.first.bytes[at] = static_cast<std::uint8_t>(range.first.bytes[at] & ~mask);
        range.last.bytes[at] = static_cast<std::uint8_t>(range.last.bytes[at] | mask);
    }
    return range;
}

Range range_of(const IpPrefix& prefix) {
    return range_of(ip_of(prefix.address()), prefix.bits());
}

/// An element of SrcIPs or DstPorts. Empty when it makes no sense.
std::vector<Range> parse_ranges(const std::string& text) {
    if (text == "*") return {range_of(*parse_ip("0.0.0.0"), 0), range_of(*parse_ip("::"), 0)};
    if (auto slash = text.rfind('/'); slash != std::string::npos) {
        auto ip = parse_ip(text.substr(0, slash));
        std::string length = text.substr(slash + 1);
        bool digits = !length.empty() && length.size() <= 3 && length.find_first_not_of("0123456789") == length.npos;
        if (!ip || !digits || (length.size() > 1 && length[0] == '0')) return {};
        int bits = std::atoi(length.c_str());
        if (bits > size_of(ip->family) * 8) return {};
        Range range = range_of(*ip, bits);
        if (range.first != *ip) return {}; // has host bits
        return {range};
    }
    if (std::count(text.begin(), text.end(), '-') == 1) {
        auto dash = text.find('-');
        auto first = parse_ip(text.substr(0, dash)), last = parse_ip(text.substr(dash + 1));
        if (!first || !last || first->family != last->family || *last < *first) return {};
        return {{*first, *last}};
    }
    auto ip = parse_ip(text);
    if (!ip) return {};
    return {{*ip, *ip}};
}

bool overlap(const Range& a, const Range& b) {
    return a.first.family == b.first.family && a.first <= b.last && b.first <= a.last;
}

bool any_holds(const std::vector<Range>& ranges, const Ip& ip) {
    return std::any_of(ranges.begin(), ranges.end(), [&](const Range& range) { return range.holds(ip); });
}

bool is_multicast(const Ip& ip) {
    return ip.family == 4 ? ip.bytes[0] >= 224 && ip.bytes[0] <= 239 : ip.bytes[0] == 0xff;
}

bool is_refused_link_local(const Ip& ip) {
    static const Range v4 = range_of(*parse_ip("169.254.0.0"), 16), v6 = range_of(*parse_ip("fe80::"), 10);
    return (v4.holds(ip) || v6.holds(ip)) && ip != *parse_ip("169.254.169.254");
}

} // namespace

ReferenceFilter::ReferenceFilter(const FilterInput& input)
    : peer_api4_(input.peer_api4), peer_api6_(input.peer_api6), shields_up_(input.shields_up),
      strict_forwarded_(input.strict_forwarded), strict_own_(input.strict_own) {
    for (const IpAddress& address : input.own_addresses) {
        own_.push_back(ip_of(address));
        local_nets_.push_back({own_.back(), own_.back()});
    }
    for (const IpPrefix& net : input.local_nets) local_nets_.push_back(range_of(net));

    std::vector<Range> unsigned_nets;
    for (const PeerFacts& facts : input.peers) {
        Peer peer;
        for (const IpAddress& address : facts.addresses) peer.addresses.push_back(ip_of(address));
        for (const IpPrefix& prefix : facts.allowed_ips) {
            peer.allowed.emplace_back(range_of(prefix), prefix.bits());
            if (facts.unsigned_peer_api_only) unsigned_nets.push_back(range_of(prefix));
        }
        peer.caps = facts.caps;
        peer.jailed = facts.jailed;
        peers_.push_back(std::move(peer));
    }

    bool believe = true;
    for (const FilterRule& wire : input.rules) {
        believe = believe && !wire.has_src_bits;
        Rule rule;
        for (const std::string& text : wire.src_ips) {
            if (text.rfind("cap:", 0) == 0)
                rule.caps.push_back(text.substr(4));
            else
                for (const Range& range : parse_ranges(text)) rule.sources.push_back(range);
        }
        for (const FilterDestination& to : wire.dst_ports) {
            believe = believe && !to.has_bits;
            auto ranges = parse_ranges(to.ip);
            if (!ranges.empty()) rule.destinations.push_back({ranges, to.ports.first, to.ports.last});
        }
        rule.protos = wire.ip_proto.empty() ? std::vector{kTcp, kUdp, kIcmp, kIcmp6} : wire.ip_proto;
        if (!rule.destinations.empty())
            for (const Range& source : rule.sources)
                for (const Range& net : unsigned_nets) believe = believe && !overlap(source, net);
        rules_.emplace_back(std::move(rule));
    }
    if (!believe)
        for (auto& rule : rules_) rule.reset();

    auto edge = [&](const Range& range) {
        edges_.push_back(range.first);
        edges_.push_back(range.last);
    };
    for (const auto& rule : rules_) {
        if (!rule) continue;
        for (const Range& source : rule->sources) edge(source);
        for (const Destination& to : rule->destinations)
            for (const Range& range : to.ranges) edge(range);
    }
    for (const Range& net : local_nets_) edge(net);
    for (const Peer& peer : peers_) {
        for (const Ip& ip : peer.addresses) edges_.push_back(ip);
        for (const auto& [range, bits] : peer.allowed) edge(range);
    }
}

std::optional<ReferenceFilter::Parsed> ReferenceFilter::parse(BytesView packet) {
    auto at = [&](std::size_t offset) { return std::to_integer<std::uint32_t>(packet[offset]); };
    auto be16 = [&](std::size_t offset) { return at(offset) << 8 | at(offset + 1); };
    Parsed out;
    std::size_t body, end; // of the transport, in bytes from the start of the packet
    if (packet.size() < 20) return std::nullopt;
    bool more = false;
    std::uint32_t blocks = 0;
    int family = static_cast<int>(at(0) >> 4);

    if (family == 4) {
        body = (at(0) & 15) * 4;
        end = be16(2);
        if (body < 20 || end > packet.size() || body > end) return std::nullopt;
        out.proto = static_cast<int>(at(9));
        out.src = ip_of(4, &packet[12]);
        out.dst = ip_of(4, &packet[16]);
        more = be16(6) & 0x2000;
        blocks = be16(6) & 0x1fff;
        out.fragment_id = be16(4);
    } else if (family == 6) {
        if (packet.size() < 40) return std::nullopt;
        body = 40;
        end = 40 + be16(4);
        if (end > packet.size()) return std::nullopt;
        out.proto = static_cast<int>(at(6));
        out.src = ip_of(6, &packet[8]);
        out.dst = ip_of(6, &packet[24]);
        if (out.proto == 44) {
            if (end < 48) return std::nullopt;
            out.proto = static_cast<int>(at(40));
            more = at(43) & 1;
            blocks = be16(42) >> 3;
            out.fragment_id = be16(44) << 16 | be16(46);
            body = 48;
        }
    } else {
        return std::nullopt;
    }

    if (blocks > 0) {
        if (blocks < 10) return std::nullopt; // could reach into a transport header
        out.later_fragment = true;
        return out;
    }
    out.first_fragment = more;
    std::size_t bytes = end - body;
    auto needs = [&](std::size_t least) { return bytes >= least; };
    switch (out.proto) {
    case 0:
    case 255:
        return std::nullopt;
    case kTcp:
        if (!needs(20)) return std::nullopt;
        break;
    case kUdp:
        if (!needs(8)) return std::nullopt;
        break;
    case kSctp:
        if (!needs(12)) return std::nullopt;
        break;
    case kTsmp:
        if (!needs(7) || (family == 4 && more)) return std::nullopt;
        break;
    case kIcmp:
        if (family == 4 && !needs(4)) return std::nullopt;
        break;
    case kIcmp6:
        if (family == 6 && !needs(4)) return std::nullopt;
        break;
    case 2: // IGMP
        if (family == 4 && !needs(8)) return std::nullopt;
        break;
    default:
        break;
    }
    if (out.proto == kTcp || out.proto == kUdp || out.proto == kSctp) {
        out.src_port = static_cast<std::uint16_t>(be16(body));
        out.dst_port = static_cast<std::uint16_t>(be16(body + 2));
    }
    if (out.proto == kTcp) {
        out.syn = at(body + 13) & 2;
        out.rst = at(body + 13) & 4;
        out.ack = at(body + 13) & 16;
    }
    if (out.proto == (family == 4 ? kIcmp : kIcmp6) && bytes >= 8) {
        out.icmp_type = static_cast<int>(at(body));
        out.icmp_code = static_cast<int>(at(body + 1));
    }
    return out;
}

bool ReferenceFilter::is_local(const Ip& ip) const {
    return any_holds(local_nets_, ip);
}

bool ReferenceFilter::is_own(const Ip& ip) const {
    return std::find(own_.begin(), own_.end(), ip) != own_.end();
}

bool ReferenceFilter::has_cap(const Ip& ip, const std::vector<std::string>& caps) const {
    for (const Peer& peer : peers_) {
        if (std::find(peer.addresses.begin(), peer.addresses.end(), ip) == peer.addresses.end()) continue;
        for (const std::string& cap : caps)
            if (std::find(peer.caps.begin(), peer.caps.end(), cap) != peer.caps.end()) return true;
    }
    return false;
}

/// WireGuard gives an address to the peer with the longest prefix around it.
bool ReferenceFilter::is_jailed(const Ip& ip) const {
    int longest = -1;
    bool jailed = false;
    for (const Peer& peer : peers_)
        for (const auto& [range, bits] : peer.allowed)
            if (range.holds(ip) && bits > longest) {
                longest = bits;
                jailed = peer.jailed;
            }
    return jailed;
}

std::optional<std::size_t> ReferenceFilter::rule_for(const Parsed& packet) const {
    bool icmp = packet.proto == (packet.dst.family == 4 ? kIcmp : kIcmp6);
    bool ports = packet.proto == kTcp || packet.proto == kUdp || packet.proto == kSctp;
    for (std::size_t i = 0; i < rules_.size(); ++i) {
        if (!rules_[i]) continue;
        const Rule& rule = *rules_[i];
        bool listed = std::find(rule.protos.begin(), rule.protos.end(), packet.proto) != rule.protos.end();
        if (!icmp && !listed) continue; // ICMP does not ask for protocols
        bool by_cap = (icmp || ports) && has_cap(packet.src, rule.caps);
        if (!any_holds(rule.sources, packet.src) && !by_cap) continue;
        for (const Destination& to : rule.destinations) {
            if (!any_holds(to.ranges, packet.dst)) continue;
            if (icmp) return i; // nor for ports
            if (ports && to.first_port <= packet.dst_port && packet.dst_port <= to.last_port) return i;
            if (!ports && to.first_port == 0 && to.last_port == 65535) return i;
        }
    }
    // A capability that a rule names lets ICMP in to wherever, as long as the rule has a destination of the family.
    if (!icmp) return std::nullopt;
    for (std::size_t i = 0; i < rules_.size(); ++i) {
        if (!rules_[i] || !has_cap(packet.src, rules_[i]->caps)) continue;
        for (const Destination& to : rules_[i]->destinations)
            for (const Range& range : to.ranges)
                if (range.first.family == packet.dst.family) return i;
    }
    return std::nullopt;
}

ReferenceFilter::Flow ReferenceFilter::flow_of(const Parsed& packet) const {
    return {packet.src, packet.src_port, packet.dst, packet.dst_port, packet.proto, is_jailed(packet.src)};
}

ReferenceVerdict ReferenceFilter::by_rule(const Parsed& packet) const {
    if (is_jailed(packet.src)) return drop("jailed");
    if (shields_up_) return drop("shields-up");
    if (auto rule = rule_for(packet)) return {true, "rule", rule};
    return drop("no-rule");
}

ReferenceVerdict ReferenceFilter::judge(const Parsed& packet) const {
    int family = packet.dst.family;
    if (packet.proto == kTcp) {
        bool opens = packet.syn && !packet.ack;
        if (!opens && !is_strict(packet.dst)) return pass("established");
        if (!opens && flows_.count(flow_of(packet))) return pass("reply");
        ReferenceVerdict verdict = by_rule(packet);
        std::uint16_t peer_api = family == 4 ? peer_api4_ : peer_api6_;
        if (!verdict.passes && packet.syn && is_own(packet.dst) && peer_api && packet.dst_port == peer_api)
            return pass("peerapi");
        if (!opens && verdict == drop("no-rule")) return drop("no-flow");
        return verdict;
    }
    if (packet.proto == kUdp || packet.proto == kSctp)
        return flows_.count(flow_of(packet)) ? pass("reply") : by_rule(packet);
    if (packet.proto == (family == 4 ? kIcmp : kIcmp6)) {
        static const std::set<int> errors4{3, 11, 12}, errors6{1, 2, 3, 4};
        bool reply = packet.icmp_type == (family == 4 ? 0 : 129) && packet.icmp_code == 0;
        return reply || (family == 4 ? errors4 : errors6).count(packet.icmp_type) ? pass("icmp-reply")
                                                                                  : by_rule(packet);
    }
    if (packet.proto == kTsmp) return pass("tsmp");
    return by_rule(packet);
}

ReferenceVerdict ReferenceFilter::in(BytesView bytes) {
    if (bytes.empty()) return pass("keepalive");
    auto packet = parse(bytes);
    if (!packet) return kMalformed;
    if (is_multicast(packet->dst)) return drop("multicast");
    if (is_refused_link_local(packet->dst)) return drop("link-local");

    Fragment fragment{packet->src, packet->dst, packet->fragment_id, packet->dst.family == 4 ? packet->proto : 0};
    if (packet->later_fragment) {
        if (!strict_own_ && !strict_forwarded_) return pass("fragment");
        if (!is_local(packet->dst)) return drop("not-local");
        return !is_strict(packet->dst) || fragments_.count(fragment) ? pass("fragment") : drop("no-first-fragment");
    }
    if (!is_local(packet->dst)) return drop("not-local");
    ReferenceVerdict verdict = judge(*packet);
    if (verdict.passes && packet->first_fragment && is_strict(packet->dst)) fragments_.insert(fragment);
    return verdict;
}

ReferenceVerdict ReferenceFilter::out(BytesView bytes, bool from_agent) {
    if (bytes.empty()) return pass("out");
    auto packet = parse(bytes);
    if (!packet) return drop("out-malformed");
    if (is_multicast(packet->dst)) return drop("out-multicast");
    if (is_refused_link_local(packet->dst)) return drop("out-link-local");
    if (packet->later_fragment) return pass("out");
    if (packet->proto == kTsmp && !from_agent) return drop("out-tsmp");
    if (packet->proto == kUdp || packet->proto == kSctp ||
        (packet->proto == kTcp && !packet->rst && is_strict(packet->src)))
        flows_.insert(
            {packet->dst, packet->dst_port, packet->src, packet->src_port, packet->proto, is_jailed(packet->dst)});
    return pass("out");
}

} // namespace tailrace::test
