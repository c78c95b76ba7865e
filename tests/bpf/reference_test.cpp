// The packet programs against reference_filter.hpp: random policies, random packets, no difference.
// usage: bpf_reference [--packets N] [--seed N] [--dump FILE]
// Without --packets: a million.
// --dump writes every policy and packet with the reference's verdict as lines of JSON, for a judge from outside; no
// strict settings then.
#include "base/json/json.hpp"
#include "proto/control/filter.hpp"
#include "tests/bpf/packet_room.hpp"
#include "tests/bpf/random_policy.hpp"
#include "tests/bpf/reference_filter.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <fstream>

namespace tailrace::test {
namespace {

struct Options {
    std::optional<std::uint64_t> packets;
    std::uint64_t seed = 1;
    std::string dump;
};
Options options;

constexpr std::uint64_t kUsualPackets = 1'000'000;
constexpr std::uint32_t kPacketsPerPolicy = 2000;
constexpr std::uint32_t kBypassMark = 0x80000;

std::string hex(BytesView bytes) {
    std::string out;
    for (std::byte byte : bytes) out += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
    return out;
}

template <typename List>
std::string texts(const List& list) {
    std::string out;
    for (const auto& element : list) out += fmt::format("{}\"{}\"", out.empty() ? "" : ",", element.text());
    return "[" + out + "]";
}

std::string text_of(const FilterInput& input) {
    std::vector<wire::FilterRule> rules;
    for (const FilterRule& rule : input.rules) {
        wire::FilterRule wire;
        wire.src_ips = rule.src_ips;
        if (rule.has_src_bits) wire.src_bits = std::vector{32};
        for (const FilterDestination& to : rule.dst_ports)
            wire.dst_ports.push_back({to.ip, {}, {to.ports.first, to.ports.last}});
        wire.ip_proto = rule.ip_proto;
        for (const CapGrant& grant : rule.cap_grant) wire.cap_grant.push_back({grant.dsts, {}, {}});
        rules.push_back(std::move(wire));
    }
    std::string peers;
    for (const PeerFacts& peer : input.peers) {
        std::string caps;
        for (const std::string& cap : peer.caps) caps += fmt::format("{}\"{}\"", caps.empty() ? "" : ",", cap);
        peers += fmt::format("{}{{\"Addresses\":{},\"AllowedIPs\":{},\"Caps\":[{}],\"Jailed\":{},\"Unsigned\":{}}}",
                             peers.empty() ? "" : ",", texts(peer.addresses), texts(peer.allowed_ips), caps,
                             peer.jailed, peer.unsigned_peer_api_only);
    }
    return fmt::format("{{\"Rules\":{},\"Own\":{},\"LocalNets\":{},\"Peers\":[{}],\"PeerAPI4\":{},\"PeerAPI6\":{},"
                       "\"ShieldsUp\":{},\"StrictForwarded\":{},\"StrictOwn\":{}}}",
                       json::write(rules), texts(input.own_addresses), texts(input.local_nets), peers, input.peer_api4,
                       input.peer_api6, input.shields_up, input.strict_forwarded, input.strict_own);
}

/// All that cannot be read is one reason to the reference.
std::string_view group_of(std::string_view reason) {
    for (std::string_view malformed :
         {"too-short", "bad-version", "truncated", "bad-header", "unknown-protocol", "bad-fragment"})
        if (reason == malformed) return "malformed";
    return reason;
}

/// How often each reason and each rule (by index, as "rule 3") let in or refused.
using Tally = std::map<std::string, std::int64_t>;

std::string text_of(const Tally& tally) {
    std::string out;
    for (const auto& [name, count] : tally)
        if (count) out += fmt::format("{}{} x {}", out.empty() ? "" : ", ", name, count);
    return out;
}

class Reference : public PacketRoom {
protected:
    std::map<std::string, std::uint32_t> map_sizes() const override { return {{"tr_nets", 16384}, {"tr_flows", 256}}; }

    Tally counters() {
        Tally tally;
        for (const auto& [name, count] : reason_counts()) tally[std::string{group_of(name)}] += count;
        for (const auto& [index, count] : rule_counts()) tally[fmt::format("rule {}", index)] += count;
        return tally;
    }
    static Tally difference(const Tally& before, Tally after) {
        for (const auto& [name, count] : before) after[name] -= count;
        std::erase_if(after, [](const auto& entry) { return entry.second == 0; });
        return after;
    }

    /// One policy and its packets. `each`: looks at the counters after every packet, else at the end.
    /// False: there is a difference, and it has been reported if `each`.
    bool run(std::uint64_t policy_seed, std::uint64_t packets, bool each, std::ofstream* dump);
};

bool Reference::run(std::uint64_t policy_seed, std::uint64_t packets, bool each, std::ofstream* dump) {
    Dice dice{policy_seed};
    FilterInput input = random_policy(dice);
    if (!options.dump.empty()) input.strict_forwarded = input.strict_own = false;
    commit(input);
    if (HasFatalFailure()) return false;
    forget();
    if (dump) *dump << "{\"Policy\":" << text_of(input) << "}\n";

    ReferenceFilter reference{input};
    std::vector<IpAddress> edges;
    for (const ReferenceFilter::Ip& ip : reference.edges())
        edges.push_back(IpAddress::from_bytes(std::as_bytes(std::span{ip.bytes}).first(ip.family == 4 ? 4 : 16)));
    RandomTraffic traffic{dice, input, std::move(edges)};
    Tally wanted, before = counters();
    for (std::uint64_t i = 0; i < packets; ++i) {
        bool out = dice.chance(8), from_agent = dice.chance(20);
        Bytes packet = out ? traffic.outbound() : traffic.inbound();
        ReferenceVerdict expected = out ? reference.out(packet, from_agent) : reference.in(packet);
        TestRun run = run_program((out ? programs().egress : programs().policy).get(), packet,
                                  out && from_agent ? kBypassMark : 0);
        if (packet.empty() && run.failed) continue; // there are kernels that run no test with an empty packet
        ++wanted[std::string{expected.reason}];
        if (expected.rule) ++wanted[fmt::format("rule {}", *expected.rule)];
        if (dump)
            *dump << fmt::format("{{\"Out\":{},\"Packet\":\"{}\",\"Passes\":{},\"Reason\":\"{}\"}}\n", out, hex(packet),
                                 expected.passes, expected.reason);

        bool same = !run.failed && run.passed == expected.passes && (out || run.marked == expected.passes);
        if (same && !each) continue;
        Tally after = counters(), did = difference(before, after);
        if (same && did == wanted) {
            wanted.clear();
            before = std::move(after);
            continue;
        }
        if (!each) return false;
        ADD_FAILURE() << fmt::format("{} packet {} of the policy with seed {}\n  policy: {}\n  packet: {}\n"
                                     "  reference: {} as {}{}\n  program:   {} as {}",
                                     out ? "outbound" : "inbound", i, policy_seed, text_of(input), hex(packet),
                                     expected.passes ? "passes" : "drops", expected.reason,
                                     expected.rule ? fmt::format(", rule {}", *expected.rule) : "",
                                     run.failed   ? "does not run"
                                     : run.passed ? "passes"
                                                  : "drops",
                                     text_of(did));
        return false;
    }
    return difference(before, counters()) == wanted;
}

TEST_F(Reference, AgreesOnEveryPacket) {
    std::ofstream dump;
    if (!options.dump.empty()) {
        dump.open(options.dump);
        ASSERT_TRUE(dump) << "cannot write " << options.dump;
    }
    auto started = std::chrono::steady_clock::now();
    std::uint64_t policies = 0, done = 0, wanted = options.packets.value_or(kUsualPackets);
    for (; done < wanted; ++policies) {
        std::uint64_t policy_seed = options.seed * 1'000'003 + policies;
        std::uint64_t packets = std::min<std::uint64_t>(kPacketsPerPolicy, wanted - done);
        done += packets;
        if (run(policy_seed, packets, false, dump.is_open() ? &dump : nullptr)) continue;
        ASSERT_FALSE(HasFatalFailure());
        EXPECT_FALSE(run(policy_seed, packets, true, nullptr)) << "a difference that shows only in passing";
        FAIL() << fmt::format("policy {} of --seed {}", policies, options.seed);
    }
    std::chrono::duration<double> took = std::chrono::steady_clock::now() - started;
    fmt::print("{} packets under {} policies, no difference, {:.1f} s\n", done, policies, took.count());
}

} // namespace
} // namespace tailrace::test

int main(int argc, char** argv) {
    ::testing::InitGoogleTest(&argc, argv);
    for (int i = 1; i + 1 < argc; i += 2) {
        std::string_view name = argv[i];
        if (name == "--packets")
            tailrace::test::options.packets = std::strtoull(argv[i + 1], nullptr, 10);
        else if (name == "--seed")
            tailrace::test::options.seed = std::strtoull(argv[i + 1], nullptr, 10);
        else if (name == "--dump")
            tailrace::test::options.dump = argv[i + 1];
    }
    return RUN_ALL_TESTS();
}
