#include "tests/bpf/random_policy.hpp"

#include "agent/engine/wanted.hpp"

#include <algorithm>
#include <iterator>

namespace tailrace::test {
namespace {

const char* const kPlaces[] = {
    "100.64.0.16",
    "100.64.0.17",
    "100.64.0.18",
    "100.64.0.19",
    "100.64.0.20",
    "100.64.0.21",
    "100.64.0.22",
    "100.64.255.255",
    "100.127.255.9",
    "10.33.0.0",
    "10.33.1.5",
    "10.33.255.255",
    "10.34.0.1",
    "192.168.1.7",
    "192.168.1.255",
    "203.0.113.5",
    "203.0.113.6",
    "8.8.8.8",
    "169.254.169.254",
    "169.254.1.1",
    "127.0.0.1",
    "0.0.0.0",
    "255.255.255.255",
    "224.0.0.251",
    "fd7a:115c:a1e0::10",
    "fd7a:115c:a1e0::11",
    "fd7a:115c:a1e0::12",
    "fd7a:115c:a1e0::13",
    "fd7a:115c:a1e0::14",
    "fd7a:115c:a1e0::15",
    "2001:db8:7::5",
    "2001:db8:7:ffff:ffff:ffff:ffff:ffff",
    "2001:4860:4860::8888",
    "::1",
    "::",
    "fe80::1",
    "ff02::1",
    "::ffff:10.33.1.5",
};
const char* const kOwnPlaces[] = {"100.64.0.16",  "100.64.0.16",         "fd7a:115c:a1e0::10", "10.33.0.0/16",
                                  "10.33.4.0/22", "10.33.1.0-10.33.1.7", "2001:db8:7::/48"};
const char* const kNonsense[] = {
    "10.0.0.1/8",
    "",
    "cap:",
    "100.64.0.300",
    "100.64.0.17-",
    "10.0.0.9-10.0.0.1",
    "::1-10.0.0.1",
    "1.2.3.4/33",
    "100.64.0.0/08",
    "fd7a::1/64",
    "-",
    "100.64.0.16-100.64.0.18-100.64.0.20",
    "100.64.0.016",
    "0.0.0.0/-0",
    "::/129",
    " 100.64.0.16",
    "100.64.0.16 ",
    "any",
    "**",
};
const char* const kRoutes[] = {"10.33.0.0/16", "10.33.4.0/22", "192.168.7.0/24",  "169.254.169.254/32",
                               "0.0.0.0/0",    "::/0",         "2001:db8:7::/48", "10.33.1.5/32",
                               "127.0.0.0/8",  "100.64.0.0/10"};
const char* const kPeerRoutes[] = {"192.168.1.0/24", "192.168.0.0/16",  "192.168.1.7/32",
                                   "10.33.1.0/24",   "2001:db8:9::/48", "0.0.0.0/0"};
const char* const kCaps[] = {"foo", "bar"};
constexpr std::uint16_t kPorts[] = {0, 1, 22, 53, 80, 443, 1000, 1023, 1024, 8080, 32767, 32768, 41234, 65534, 65535};
constexpr std::uint8_t kOtherProtos[] = {0, 1, 2, 4, 43, 44, 47, 50, 51, 58, 59, 60, 99, 132, 254, 255};

IpAddress place(Dice& dice, bool v4) {
    for (;;) {
        IpAddress address = *IpAddress::parse(dice.pick(kPlaces));
        if (address.is_v4() == v4) return address;
        if (dice.chance(10)) return *IpAddress::parse(v4 ? kPlaces[0] : "fd7a:115c:a1e0::10");
    }
}

/// One element of SrcIPs or DstPorts.
std::string random_element(Dice& dice, bool source) {
    bool v4 = dice.chance(60);
    std::uint32_t kind = dice.below(100);
    if (kind < 30) return place(dice, v4).text();
    if (kind < 55) {
        int size = v4 ? 32 : 128;
        int bits = dice.chance(70) ? size - static_cast<int>(dice.below(static_cast<std::uint32_t>(size / 2)))
                                   : static_cast<int>(dice.below(static_cast<std::uint32_t>(size + 1)));
        return IpPrefix{near(dice, place(dice, v4)), bits}.masked().text();
    }
    if (kind < 78) {
        IpAddress first = near(dice, place(dice, v4)), last = dice.chance(50) ? place(dice, v4) : first;
        for (std::uint32_t more = dice.below(6); more > 0 && last.next().valid(); --more) last = last.next();
        if (last < first) std::swap(first, last);
        return first.text() + "-" + last.text();
    }
    if (kind < 88) return "*";
    if (kind < 95) return source ? std::string{"cap:"} + dice.pick(kCaps) : place(dice, v4).text();
    return dice.pick(kNonsense);
}

PortRange random_range(Dice& dice) {
    std::uint32_t kind = dice.below(100);
    if (kind < 30) return PortRange::all();
    std::uint16_t first = dice.pick(kPorts), last = dice.pick(kPorts);
    if (kind < 60) last = first;
    if (kind < 97 && last < first) std::swap(first, last);
    return {first, last};
}

std::vector<int> random_protos(Dice& dice) {
    static const std::vector<int> usual[] = {{6}, {17}, {6, 17}, {1}, {58}, {132}, {47}, {300}, {-1, 6}, {99}};
    if (dice.chance(45)) return {};
    if (dice.chance(70)) return dice.pick(usual);
    std::vector<int> protos;
    for (std::uint32_t count = 1 + dice.below(4); count > 0; --count)
        protos.push_back(dice.chance(70) ? dice.pick(kOtherProtos) : static_cast<int>(dice.below(256)));
    return protos;
}

} // namespace

std::uint32_t Dice::below(std::uint32_t limit) {
    if (from_bytes_) {
        std::uint32_t value = 0;
        for (std::uint32_t room = limit - 1; room > 0 && !bytes_.empty(); room >>= 8) {
            value = value << 8 | std::to_integer<std::uint32_t>(bytes_[0]);
            bytes_ = bytes_.subspan(1);
        }
        return value % limit;
    }
    // SplitMix64. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
    std::uint64_t mixed = state_ += 0x9e3779b97f4a7c15;
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111eb;
    mixed ^= mixed >> 31;
    return static_cast<std::uint32_t>((mixed >> 32) * limit >> 32);
}

IpAddress near(Dice& dice, const IpAddress& address) {
    if (dice.chance(50)) return address;
    if (dice.chance(50)) return address.next().valid() ? address.next() : address;
    Bytes bytes(address.bytes().begin(), address.bytes().end());
    for (std::size_t i = bytes.size(); i-- > 0;) {
        bool borrow = bytes[i] == std::byte{0};
        bytes[i] = static_cast<std::byte>(std::to_integer<int>(bytes[i]) - 1);
        if (!borrow) break;
    }
    return IpAddress::from_bytes(bytes);
}

IpAddress random_address(Dice& dice, bool v4, const std::vector<IpAddress>& edges) {
    if (!edges.empty() && dice.chance(75))
        for (int tries = 0; tries < 4; ++tries)
            if (const IpAddress& edge = dice.pick(edges); edge.is_v4() == v4) return near(dice, edge);
    if (dice.chance(85)) return place(dice, v4);
    Bytes bytes(v4 ? 4 : 16);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(dice.below(256));
    return IpAddress::from_bytes(bytes);
}

std::uint16_t random_port(Dice& dice, const FilterInput& policy) {
    if (!policy.rules.empty() && dice.chance(70)) {
        const FilterRule& rule = dice.pick(policy.rules);
        if (!rule.dst_ports.empty()) {
            const PortRange& ports = dice.pick(rule.dst_ports).ports;
            std::uint32_t port = dice.chance(50) ? ports.first : ports.last;
            return static_cast<std::uint16_t>(port + dice.below(3) + 65535); // one off, or not
        }
    }
    return dice.chance(70) ? dice.pick(kPorts) : static_cast<std::uint16_t>(dice.below(65536));
}

std::uint8_t random_protocol(Dice& dice, const FilterInput& policy) {
    std::uint32_t kind = dice.below(100);
    if (kind < 32) return 6;
    if (kind < 52) return 17;
    if (kind < 60) return 132;
    if (kind < 68) return 1;
    if (kind < 76) return 58;
    if (kind < 90 && !policy.rules.empty())
        if (const auto& protos = dice.pick(policy.rules).ip_proto; !protos.empty())
            return static_cast<std::uint8_t>(dice.pick(protos));
    return kind < 96 ? dice.pick(kOtherProtos) : static_cast<std::uint8_t>(dice.below(256));
}

std::vector<FilterRule> random_rules(Dice& dice) {
    std::vector<FilterRule> rules(dice.below(dice.chance(20) ? 40 : 10));
    for (FilterRule& rule : rules) {
        for (std::uint32_t count = dice.below(4) + (dice.chance(95) ? 1 : 0); count > 0; --count)
            rule.src_ips.push_back(random_element(dice, true));
        if (dice.chance(8)) {
            rule.cap_grant.push_back({{"100.64.0.16/32"}, {}, {{"example.com/cap/x", std::vector<std::string>{}}}});
            continue;
        }
        for (std::uint32_t count = 1 + dice.below(4); count > 0; --count) {
            std::string to = random_element(dice, false);
            if (dice.chance(60)) to = dice.pick(kOwnPlaces); // else most would be for others
            rule.dst_ports.push_back({to, random_range(dice), false});
        }
        rule.ip_proto = random_protos(dice);
    }
    if (!rules.empty() && dice.below(200) == 0) rules.back().has_src_bits = true;
    return rules;
}

FilterInput random_policy(Dice& dice) {
    FilterInput input;
    std::vector<IpPrefix> own;
    if (dice.chance(95)) input.own_addresses.push_back(*IpAddress::parse("100.64.0.16"));
    if (dice.chance(90)) input.own_addresses.push_back(*IpAddress::parse("fd7a:115c:a1e0::10"));
    for (const IpAddress& address : input.own_addresses) own.push_back(IpPrefix::single(address));
    Prefs prefs;
    prefs.advertise_routes.emplace();
    for (const char* route : kRoutes)
        if (dice.chance(35)) prefs.advertise_routes->push_back(*IpPrefix::parse(route));
    input.local_nets = local_nets(own, prefs,
                                  {{*IpPrefix::parse("203.0.113.5/24"), false},
                                   {*IpPrefix::parse("127.0.0.1/8"), true},
                                   {*IpPrefix::parse("::1/128"), true}});
    bool any_jailed = dice.chance(20), any_unsigned = dice.chance(2);
    for (std::uint8_t number = 0x11; number <= 0x15; ++number) {
        PeerFacts peer;
        peer.addresses.push_back(IpAddress::v4(0x64400000u + number));
        if (dice.chance(80)) {
            Bytes bytes(16);
            std::ranges::copy(IpAddress::parse("fd7a:115c:a1e0::")->bytes(), bytes.begin());
            bytes[15] = std::byte{number};
            peer.addresses.push_back(IpAddress::from_bytes(bytes));
        }
        for (const IpAddress& address : peer.addresses) peer.allowed_ips.push_back(IpPrefix::single(address));
        for (const char* route : kPeerRoutes)
            if (dice.chance(8)) peer.allowed_ips.push_back(*IpPrefix::parse(route));
        for (const char* cap : kCaps)
            if (dice.chance(25)) peer.caps.push_back(cap);
        peer.jailed = any_jailed && dice.chance(40);
        peer.unsigned_peer_api_only = any_unsigned && dice.chance(20);
        input.peers.push_back(std::move(peer));
    }
    if (dice.chance(80)) input.peer_api4 = 41234;
    if (dice.chance(80)) input.peer_api6 = 41234;
    input.shields_up = dice.chance(4);
    input.strict_forwarded = dice.chance(50);
    input.strict_own = dice.chance(30);
    input.rules = random_rules(dice);
    return input;
}

IpAddress RandomTraffic::source(bool v4) {
    if (dice_.chance(60))
        for (const IpAddress& address : dice_.pick(policy_.peers).addresses)
            if (address.is_v4() == v4) return address;
    return random_address(dice_, v4, edges_);
}

IpAddress RandomTraffic::destination(bool v4) {
    if (dice_.chance(45))
        for (const IpAddress& address : policy_.own_addresses)
            if (address.is_v4() == v4) return address;
    if (!policy_.local_nets.empty() && dice_.chance(40))
        for (int tries = 0; tries < 4; ++tries)
            if (const IpPrefix& net = dice_.pick(policy_.local_nets); net.address().is_v4() == v4)
                return dice_.chance(50) ? net.first() : net.last();
    return random_address(dice_, v4, edges_);
}

Packet RandomTraffic::with_transport(const Packet& packet, std::uint8_t proto, bool v4, std::uint16_t dst_port,
                                     std::uint16_t src_port) {
    static constexpr std::uint8_t types4[] = {0, 3, 4, 5, 8, 11, 12, 13}, types6[] = {1, 2, 3, 4, 128, 129, 133, 135};
    static constexpr std::uint8_t flags[] = {kSyn, kSyn, kSyn, kAck, kSyn | kAck, kRst, kFin | kAck, kSyn | kEce, 0};
    if (proto == 6)
        return packet.tcp(dst_port, dice_.chance(80) ? dice_.pick(flags) : static_cast<std::uint8_t>(dice_.below(256)),
                          src_port);
    if (proto == 17) return packet.udp(dst_port, src_port);
    if (proto == 132) return packet.sctp(dst_port, src_port);
    if (proto == (v4 ? 1 : 58))
        return packet.icmp(v4 ? dice_.pick(types4) : dice_.pick(types6),
                           static_cast<std::uint8_t>(dice_.chance(70) ? 0 : dice_.below(256)));
    return packet.proto(proto, dice_.below(40));
}

Bytes RandomTraffic::finish(Packet packet, bool v4) {
    static constexpr std::uint16_t blocks[] = {0, 0, 0, 1, 9, 10, 11, 185, 0x1fff};
    static constexpr std::uint8_t extensions[] = {0, 43, 44, 50, 51, 60, 60, 135, 139, 140};
    if (dice_.chance(7)) packet = packet.cut_transport(dice_.below(24));
    if (!v4)
        while (dice_.chance(8)) packet = packet.extension(dice_.pick(extensions));
    if (dice_.chance(12)) packet = packet.fragment(dice_.pick(blocks), dice_.chance(60), dice_.below(3));
    if (v4 && dice_.chance(6)) packet = packet.options(4 * dice_.below(11));
    Bytes bytes = packet.bytes();
    if (dice_.chance(3)) bytes.resize(dice_.below(static_cast<std::uint32_t>(bytes.size() + 1)));
    if (dice_.chance(2)) bytes.resize(bytes.size() + dice_.below(30), std::byte{0x5a});
    if (!bytes.empty() && dice_.chance(3)) {
        std::uint32_t at = dice_.below(std::min<std::uint32_t>(static_cast<std::uint32_t>(bytes.size()), 64));
        bytes[at] = static_cast<std::byte>(dice_.below(256));
    }
    return bytes;
}

Bytes RandomTraffic::aimed(const FilterRule& rule) {
    auto one_of = [&](const std::string& text) -> IpAddress { // none: anything will do
        if (auto slash = text.find('/'); slash != text.npos) {
            auto prefix = IpPrefix::parse(text);
            return !prefix ? IpAddress{} : dice_.chance(50) ? prefix->first() : prefix->last();
        }
        auto dash = text.find('-');
        auto address =
            IpAddress::parse(dash == text.npos || dice_.chance(50) ? text.substr(0, dash) : text.substr(dash + 1));
        return address ? *address : IpAddress{};
    };
    const FilterDestination* to = &dice_.pick(rule.dst_ports);
    IpAddress dst = one_of(to->ip), src = one_of(dice_.pick(rule.src_ips));
    auto elsewhere = [&] { // for others, so that rules are not asked
        return dst.valid() && std::ranges::none_of(policy_.local_nets, [&](auto& net) { return net.contains(dst); });
    };
    for (int tries = 0; tries < 3 && elsewhere(); ++tries) {
        to = &dice_.pick(rule.dst_ports);
        dst = one_of(to->ip);
    }
    bool v4 = dst.valid() ? dst.is_v4() : src.valid() ? src.is_v4() : dice_.chance(60);
    if (!dst.valid() || dice_.chance(10)) dst = destination(v4);
    if (!src.valid() || src.is_v4() != v4) src = source(v4);
    std::uint32_t port = dice_.pick(std::array{to->ports.first, to->ports.last, random_port(dice_, policy_)});
    if (dice_.chance(20)) port += dice_.below(2) * 2 + 65535;
    std::uint8_t proto = dice_.pick(std::array<std::uint8_t, 4>{6, 6, 17, static_cast<std::uint8_t>(v4 ? 1 : 58)});
    if (!rule.ip_proto.empty() && dice_.chance(80)) proto = static_cast<std::uint8_t>(dice_.pick(rule.ip_proto));
    Packet packet{dice_.chance(70) ? src : near(dice_, src), dice_.chance(70) ? dst : near(dice_, dst)};
    return finish(with_transport(packet, proto, v4, static_cast<std::uint16_t>(port),
                                 static_cast<std::uint16_t>(dice_.below(65536))),
                  v4);
}

Bytes RandomTraffic::inbound() {
    if (!policy_.rules.empty() && dice_.chance(60))
        if (const FilterRule& rule = dice_.pick(policy_.rules); !rule.dst_ports.empty() && !rule.src_ips.empty())
            return aimed(rule);

    if (!sent_.empty() && dice_.chance(15)) { // an answer, or nearly
        Flow flow = dice_.pick(sent_);
        std::uint32_t wrong = dice_.below(10);
        if (wrong == 0) flow.our_port = random_port(dice_, policy_);
        if (wrong == 1) flow.their_port = random_port(dice_, policy_);
        if (wrong == 2) flow.proto = random_protocol(dice_, policy_);
        if (wrong == 3) flow.theirs = source(flow.ours.is_v4());
        Packet packet{flow.theirs, flow.ours};
        return finish(with_transport(packet, flow.proto, flow.ours.is_v4(), flow.our_port, flow.their_port),
                      flow.ours.is_v4());
    }
    bool v4 = dice_.chance(60);
    Packet packet{source(v4), destination(v4)};
    std::uint16_t port = random_port(dice_, policy_);
    return finish(with_transport(packet, random_protocol(dice_, policy_), v4, port,
                                 static_cast<std::uint16_t>(dice_.below(65536))),
                  v4);
}

Bytes RandomTraffic::outbound() {
    bool v4 = dice_.chance(60);
    static constexpr std::uint8_t protos[] = {6, 6, 17, 17, 132};
    Flow flow{destination(v4), source(v4), random_port(dice_, policy_), random_port(dice_, policy_),
              dice_.chance(90) ? dice_.pick(protos) : random_protocol(dice_, policy_)};
    sent_.push_back(flow);
    return finish(with_transport(Packet{flow.ours, flow.theirs}, flow.proto, v4, flow.their_port, flow.our_port), v4);
}

} // namespace tailrace::test
