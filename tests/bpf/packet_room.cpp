#include "tests/bpf/packet_room.hpp"

#include "agent/engine/wanted.hpp"
#include "bpf/shared/flow_map.h"
#include "bpf/shared/marks.h"
#include "bpf/shared/reasons.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/pkt_cls.h>

namespace tailrace::test {
namespace {

const char* const kReasonNames[] = {
#define X(symbol, name, passes) name,
    TR_REASONS(X)
#undef X
};

/// The counter at `index` of a map whose values are `a_value` counters each.
tr_counter read_counter(int map, std::uint32_t index, std::uint32_t a_value = 1) {
    std::vector<tr_counter> of_cpus(static_cast<std::size_t>(::libbpf_num_possible_cpus()) * a_value);
    std::uint32_t value = index / a_value;
    tr_counter total{};
    if (::bpf_map_lookup_elem(map, &value, of_cpus.data()) != 0) return total;
    for (std::size_t i = index % a_value; i < of_cpus.size(); i += a_value) {
        total.packets += of_cpus[i].packets;
        total.bytes += of_cpus[i].bytes;
    }
    return total;
}

std::uint64_t read_rule_hits(int map, std::uint32_t rule) {
    return read_counter(map, rule, TR_RULES_A_VALUE).packets;
}

std::vector<tr_counter> read_reasons(int map) {
    std::vector<tr_counter> out;
    for (std::uint32_t reason = 0; reason < TR_REASON_COUNT; ++reason) out.push_back(read_counter(map, reason));
    return out;
}

void empty(int map, std::size_t key_bytes) {
    Bytes key(key_bytes);
    while (::bpf_map_get_next_key(map, nullptr, key.data()) == 0) ::bpf_map_delete_elem(map, key.data());
}

IpPrefix prefix(const char* text) {
    return *IpPrefix::parse(text);
}
IpAddress address(const char* text) {
    return *IpAddress::parse(text);
}

/// The local nets of R when it advertises these routes, on a host with 203.0.113.5/24.
std::vector<IpPrefix> nets_of(std::vector<IpPrefix> routes) {
    Prefs prefs;
    prefs.advertise_routes = std::move(routes);
    return local_nets({IpPrefix::single(address(PacketRoom::kR)), IpPrefix::single(address(PacketRoom::kR6))}, prefs,
                      {{IpPrefix{address("203.0.113.5"), 24}, false}, {IpPrefix{address("127.0.0.1"), 8}, true}});
}

} // namespace

TestRun run_program(int program, BytesView packet, std::uint32_t mark, std::uint32_t gso_segments,
                    std::uint32_t gso_bytes) {
    Bytes frame(kEthernetBytes);
    // An Ethernet type for experiments: kernels refuse test runs of IP packets that are too short (6.18 does). The
    // programs don't look at it.
    frame[12] = std::byte{0x88};
    frame[13] = std::byte{0xb5};
    frame.insert(frame.end(), packet.begin(), packet.end());
    Bytes returned(frame.size() + 64);

    __sk_buff context_in{}, context_out{};
    context_in.mark = mark;
    context_in.gso_segs = gso_segments;
    context_in.gso_size = gso_segments ? 1200 : gso_bytes;
    bpf_test_run_opts options{};
    options.sz = sizeof options;
    options.data_in = frame.data();
    options.data_size_in = static_cast<std::uint32_t>(frame.size());
    options.data_out = returned.data();
    options.data_size_out = static_cast<std::uint32_t>(returned.size());
    options.ctx_in = &context_in;
    options.ctx_size_in = sizeof context_in;
    options.ctx_out = &context_out;
    options.ctx_size_out = sizeof context_out;
    options.repeat = 1;
    int failed = ::bpf_prog_test_run_opts(program, &options);
    const bool passed = options.retval == TC_ACT_OK || static_cast<int>(options.retval) == TC_ACT_UNSPEC;
    return {failed, !failed && passed, (context_out.mark & TR_MARK_MASK) == TR_MARK_PASSED};
}

Fd PacketRoom::question_;
std::unique_ptr<PacketPrograms> PacketRoom::programs_;

std::map<std::string, std::uint32_t> PacketRoom::map_sizes() const {
    return {{"tr_nets", 8192}, {"tr_flows", 1024}};
}

void PacketRoom::SetUp() {
    if (!programs_) {
        ProgramOptions options;
        options.l2_bytes = kEthernetBytes;
        options.map_sizes = map_sizes();
        auto loaded = load_packet_programs(options);
        if (!loaded && loaded.error().code() == EPERM) // EACCES is the verifier's
            GTEST_SKIP() << "needs the privilege to load BPF programs: " << loaded.error().message();
        ASSERT_TRUE(loaded) << loaded.error().message();
        programs_ = std::make_unique<PacketPrograms>(std::move(*loaded));
    }
    forget();
    std::uint32_t zero = 0, none = TR_TABLE_NONE;
    ASSERT_EQ(::bpf_map_update_elem(programs_->maps.at("tr_live").get(), &zero, &none, BPF_ANY), 0);
    auto maps = programs_->table_maps();
    ASSERT_TRUE(maps) << maps.error().message();
    auto writer = TableWriter::create(std::move(*maps));
    ASSERT_TRUE(writer) << writer.error().message();
    writer_ = std::make_unique<TableWriter>(std::move(*writer));
    numbers_ = std::make_unique<TableNumbers>();
}

int PacketRoom::question_program() {
    if (!question_) {
        auto loaded = load_question(programs_->maps, kEthernetBytes);
        EXPECT_TRUE(loaded) << loaded.error().message();
        if (loaded) question_ = std::move(*loaded);
    }
    return question_.get();
}

void PacketRoom::TearDownTestSuite() {
    question_ = Fd{};
    programs_.reset();
}

std::uint32_t flow_buckets(int map) {
    bpf_map_info info{};
    std::uint32_t bytes = sizeof info;
    (void)::bpf_obj_get_info_by_fd(map, &info, &bytes);
    return info.max_entries;
}

void PacketRoom::forget() {
    int map = programs_->maps.at("tr_flows").get();
    const tr_flow_bucket nothing{};
    for (std::uint32_t i = 0; i < flow_buckets(map); ++i) (void)::bpf_map_update_elem(map, &i, &nothing, BPF_ANY);
    empty(programs_->maps.at("tr_frags").get(), sizeof(tr_frag_key));
}

std::size_t PacketRoom::flows_remembered() const {
    int map = programs_->maps.at("tr_flows").get();
    std::size_t count = 0;
    for (std::uint32_t i = 0; i < flow_buckets(map); ++i) {
        tr_flow_bucket bucket{};
        (void)::bpf_map_lookup_elem(map, &i, &bucket);
        for (__u64 tag : bucket.tag) count += tag != 0;
    }
    return count;
}

void PacketRoom::commit(const FilterInput& input, const TableLimits& limits) {
    PolicyTables tables = compile_tables(input, *numbers_, limits);
    rules_ = tables.rules;
    warnings_ = tables.warnings;
    auto done = writer_->commit(tables);
    ASSERT_TRUE(done) << done.error().message();
}

std::vector<std::pair<std::string, std::uint64_t>> PacketRoom::reason_counts() const {
    std::vector<std::pair<std::string, std::uint64_t>> out;
    auto counters = read_reasons(programs_->maps.at("tr_reasons").get());
    for (std::size_t reason = 0; reason < counters.size(); ++reason)
        out.emplace_back(kReasonNames[reason], counters[reason].packets);
    return out;
}

std::map<std::size_t, std::uint64_t> PacketRoom::rule_counts() const {
    std::map<std::size_t, std::uint64_t> out;
    for (const auto& [number, index] : rules_)
        out[index] = read_rule_hits(programs_->maps.at("tr_rule_hits").get(), number);
    return out;
}

Outcome PacketRoom::in(const Bytes& packet, std::uint32_t gso_segments, std::uint32_t gso_bytes) {
    Outcome outcome;
    std::map<std::uint32_t, std::uint64_t> before;
    int hits = programs_->maps.at("tr_rule_hits").get();
    for (const auto& [number, index] : rules_) before[number] = read_rule_hits(hits, number);
    outcome = run(programs_->policy.get(), packet, 0, gso_segments, gso_bytes);
    for (const auto& [number, index] : rules_)
        if (read_rule_hits(hits, number) != before[number]) outcome.rule = index;
    return outcome;
}

Outcome PacketRoom::out(const Bytes& packet, std::uint32_t mark, std::uint32_t gso_segments, std::uint32_t gso_bytes) {
    return run(programs_->egress.get(), packet, mark, gso_segments, gso_bytes);
}

Outcome PacketRoom::run(int program, const Bytes& packet, std::uint32_t mark, std::uint32_t gso_segments,
                        std::uint32_t gso_bytes) {
    int reasons = programs_->maps.at("tr_reasons").get();
    auto before = read_reasons(reasons);
    TestRun run = run_program(program, packet, mark, gso_segments, gso_bytes);
    auto after = read_reasons(reasons);
    Outcome outcome;
    if (run.failed) {
        outcome.reason = "test run failed: " + std::to_string(run.failed);
        return outcome;
    }
    outcome.passed = run.passed;
    outcome.marked = run.marked;
    for (std::size_t reason = 0; reason < TR_REASON_COUNT; ++reason) {
        if (after[reason].packets == before[reason].packets) continue;
        outcome.reason += kReasonNames[reason];
        outcome.counted_packets = after[reason].packets - before[reason].packets;
        outcome.counted_bytes = after[reason].bytes - before[reason].bytes;
    }
    return outcome;
}

::testing::AssertionResult passed_as(const Outcome& outcome, const std::string& reason) {
    bool right = outcome.passed && outcome.marked && outcome.reason == reason;
    return (right ? ::testing::AssertionSuccess() : ::testing::AssertionFailure())
           << outcome << (outcome.marked ? "" : ", not marked") << ", should have passed as " << reason;
}

::testing::AssertionResult dropped_as(const Outcome& outcome, const std::string& reason) {
    bool right = !outcome.passed && !outcome.marked && outcome.reason == reason;
    return (right ? ::testing::AssertionSuccess() : ::testing::AssertionFailure())
           << outcome << (outcome.marked ? ", marked" : "") << ", should have been dropped as " << reason;
}

::testing::AssertionResult passed_by_rule(const Outcome& outcome, std::size_t index) {
    if (outcome.rule == index) return passed_as(outcome, "rule");
    return ::testing::AssertionFailure() << outcome << ", counted by rule "
                                         << (outcome.rule ? std::to_string(*outcome.rule) : "none") << ", not by "
                                         << index;
}

FilterRule PacketRoom::rule(std::vector<std::string> sources, std::vector<std::pair<std::string, PortRange>> to,
                            std::vector<int> protos) {
    FilterRule out;
    out.src_ips = std::move(sources);
    for (auto& [ip, ports] : to) out.dst_ports.push_back({ip, ports, false});
    out.ip_proto = std::move(protos);
    return out;
}

FilterInput PacketRoom::receiver() {
    FilterRule r6;
    r6.src_ips = {kB};
    r6.cap_grant = {{{"100.64.0.16/32"}, {}, {{"example.com/cap/x", {}}}}};
    return receiver_with({
        rule({kA, kA6}, {{kR, {22, 22}}, {kR6, {22, 22}}}),
        rule({kA}, {{kR, {53, 53}}}, {17}),
        rule({kA}, {{"10.33.0.0/16", {443, 443}}}),
        rule({"192.168.1.0/24"}, {{"10.33.0.0/16", PortRange::all()}}),
        rule({kA}, {{kR, PortRange::all()}}, {47}),
        r6,
    });
}

FilterInput PacketRoom::receiver_with(std::vector<FilterRule> rules) {
    FilterInput input;
    input.rules = std::move(rules);
    input.own_addresses = {address(kR), address(kR6)};
    input.local_nets = nets_of({prefix("10.33.0.0/16")});
    input.peer_api4 = input.peer_api6 = kPeerApi;
    input.strict_forwarded = input.strict_own = false;
    PeerFacts a, b, c;
    a.addresses = {address(kA), address(kA6)};
    b.addresses = {address(kB), address(kB6)};
    c.addresses = {address("100.64.0.13")};
    a.allowed_ips = {prefix("100.64.0.19/32"), prefix("fd7a:115c:a1e0::13/128")};
    b.allowed_ips = {prefix("100.64.0.17/32"), prefix("fd7a:115c:a1e0::11/128")};
    c.allowed_ips = {prefix("100.64.0.13/32"), prefix("192.168.1.0/24")};
    input.peers = {a, b, c};
    return input;
}

FilterInput PacketRoom::exit_node(std::vector<FilterRule> rules) {
    FilterInput input = receiver_with(std::move(rules));
    input.local_nets = nets_of({prefix("0.0.0.0/0"), prefix("::/0")});
    return input;
}

} // namespace tailrace::test
