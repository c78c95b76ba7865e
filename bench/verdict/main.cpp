// bench/verdict: what does one packet cost in the policy program, and one change of the policy?
// Test runs of the real program, no device. The time includes what a test run itself costs, printed as "empty".
#include "agent/dataplane/programs.hpp"
#include "tests/bpf/packet.hpp"

#include <bpf/bpf.h>
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

using namespace tailrace;
using test::Packet;

namespace {

constexpr const char* kOwn = "100.64.0.1";

std::string peer(int number) {
    return fmt::format("100.{}.{}.{}", 70 + number / 65536, number / 256 % 256, number % 256);
}

FilterInput rules_for(int count) {
    FilterInput input;
    input.own_addresses = {*IpAddress::parse(kOwn)};
    for (int i = 0; i < count; ++i) {
        auto port = static_cast<std::uint16_t>(1000 + i % 500);
        input.rules.push_back({{peer(i)}, {{kOwn, {port, port}, false}}, {6}, {}, false});
    }
    return input;
}

/// Nanoseconds a run, the best of several: others use this machine too.
unsigned measure(int program, const Packet& packet) {
    Bytes frame(14);
    Bytes body = packet.bytes();
    frame[12] = std::byte{0x08};
    frame.insert(frame.end(), body.begin(), body.end());
    unsigned best = ~0u;
    for (int round = 0; round < 7; ++round) {
        bpf_test_run_opts options{};
        options.sz = sizeof options;
        options.data_in = frame.data();
        options.data_size_in = static_cast<std::uint32_t>(frame.size());
        options.repeat = 1'000'000;
        if (::bpf_prog_test_run_opts(program, &options) != 0) return 0;
        best = std::min(best, options.duration);
    }
    return best;
}

int complain(const Error& error) {
    fmt::print(stderr, "bench/verdict: {}\n", error.message());
    return 1;
}

} // namespace

int main() {
    ProgramOptions options;
    options.l2_bytes = 14;
    auto programs = load_packet_programs(options);
    if (!programs) return complain(programs.error());
    auto maps = programs->table_maps();
    if (!maps) return complain(maps.error());
    auto writer = TableWriter::create(std::move(*maps));
    if (!writer) return complain(writer.error());
    TableNumbers numbers;

    int policy = programs->policy.get();
    fmt::print("{:<44} {:>8}\n", "packet", "ns");
    fmt::print("{:<44} {:>8}\n", "empty (dropped before the first policy)",
               measure(policy, Packet{kOwn, kOwn}.tcp(1, test::kSyn)));
    for (int count : {10, 1000, 10000}) {
        FilterInput input = rules_for(count);
        auto full = writer->commit(compile_tables(input, numbers));
        if (!full) return complain(full.error());
        auto port = static_cast<std::uint16_t>(1000 + (count - 1) % 500);
        Packet last{peer(count - 1), kOwn};
        fmt::print("{:<44} {:>8}\n", fmt::format("TCP SYN, last of {} rules", count),
                   measure(policy, last.tcp(port, test::kSyn)));
        fmt::print("{:<44} {:>8}\n", fmt::format("TCP SYN refused, {} rules", count),
                   measure(policy, last.tcp(9, test::kSyn)));
        fmt::print("{:<44} {:>8}\n", "TCP established", measure(policy, last.tcp(9, test::kAck)));
        // Both tables hold this policy, then one source moves.
        if (auto again = writer->commit(compile_tables(input, numbers)); !again) return complain(again.error());
        input.rules[0].src_ips.push_back("100.99.0.1");
        auto delta = writer->commit(compile_tables(input, numbers));
        if (!delta) return complain(delta.error());
        fmt::print("{:<44} {:>8.3f} ms, {} entries\n", "commit of all", full->took.count() / 1e6, full->written);
        fmt::print("{:<44} {:>8.3f} ms, {} entries\n", "commit of one source", delta->took.count() / 1e6,
                   delta->written + delta->removed);
    }
    programs->maps.clear();
    return 0;
}
