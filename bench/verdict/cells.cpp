#include "bench/verdict/cells.hpp"

#include "tests/bpf/packet.hpp"

#include <fmt/format.h>

namespace tailrace::bench {
namespace {

using test::Packet;

Bytes framed(const Packet& packet, bool v6 = false) {
    Bytes frame(14); // from and to the all-zero address, which is that of a loopback device
    frame[12] = v6 ? std::byte{0x86} : std::byte{0x08};
    frame[13] = v6 ? std::byte{0xdd} : std::byte{0x00};
    Bytes body = packet.bytes();
    frame.insert(frame.end(), body.begin(), body.end());
    return frame;
}

} // namespace

std::string peer4(int rule) {
    return fmt::format("100.{}.{}.{}", 70 + rule / 65536, rule / 256 % 256, rule % 256);
}
std::string peer6(int rule) {
    return fmt::format("fd7a:115c:a1e0::{:x}:{:x}", 1 + rule / 65536, rule % 65536);
}
std::uint16_t port_of(int rule) {
    return static_cast<std::uint16_t>(1000 + rule % 500);
}

FilterInput policy_of(int rules) {
    FilterInput input;
    input.own_addresses = {*IpAddress::parse(kOwn), *IpAddress::parse(kOwn6)};
    for (int i = 0; i < rules; ++i) {
        PortRange port{port_of(i), port_of(i)};
        input.rules.push_back({{peer4(i), peer6(i)}, {{kOwn, port, false}, {kOwn6, port, false}}, {6, 17}, {}, false});
    }
    return input;
}

std::string nft_rules_of(int rules, bool stateful) {
    std::string four, six;
    for (int i = 0; i < rules; ++i)
        for (const char* proto : {"tcp", "udp"}) {
            four += fmt::format("{}{} . {} . {}", four.empty() ? "" : ",\n", peer4(i), proto, port_of(i));
            six += fmt::format("{}{} . {} . {}", six.empty() ? "" : ",\n", peer6(i), proto, port_of(i));
        }
    const char* hook = stateful ? "hook prerouting priority -150" : "hook ingress device lo priority 0";
    return fmt::format("table {0} same {{\n"
                       "set four {{ type ipv4_addr . inet_proto . inet_service; size {1}; elements = {{ {2} }} }}\n"
                       "set six {{ type ipv6_addr . inet_proto . inet_service; size {1}; elements = {{ {3} }} }}\n"
                       "chain judge {{ type filter {4}; policy drop;\n{5}"
                       "tcp flags & (syn | ack) != syn accept\n"
                       "ip daddr {6} ip saddr . meta l4proto . th dport @four accept\n"
                       "ip6 daddr {7} ip6 saddr . meta l4proto . th dport @six accept\n"
                       "}}\n}}\n",
                       stateful ? "inet" : "netdev", rules * 2, four, six, hook,
                       stateful ? "ct state established accept\n" : "", kOwn, kOwn6);
}

std::vector<Cell> cells_of(int rules) {
    using test::kAck, test::kSyn;
    int last = rules - 1;
    Packet first4{peer4(0), kOwn}, last4{peer4(last), kOwn}, last6{peer6(last), kOwn6};
    return {
        {"new TCP, first rule", framed(first4.tcp(port_of(0), kSyn)), true, false},
        {"new TCP, last rule", framed(last4.tcp(port_of(last), kSyn)), true, false},
        {"new UDP, last rule", framed(last4.udp(port_of(last))), true, false},
        {"new TCP, no rule", framed(last4.tcp(9, kSyn)), false, false},
        {"established TCP", framed(last4.tcp(9, kAck)), true, false},
        {"established UDP", framed(Packet{peer4(0), kOwn}.udp(kOurPort, kTheirPort)), true, true},
        {"IPv6, fragment header, last rule", framed(last6.tcp(port_of(last), kSyn).fragment(0, false), true), true,
         false},
    };
}

Bytes frame_from_us() {
    return framed(Packet{kOwn, peer4(0)}.udp(kTheirPort, kOurPort));
}

} // namespace tailrace::bench
