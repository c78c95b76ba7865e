// bench/commit: how long does a change of the policy take to be in force?
//
// 10,000 peers with two addresses each, a class of their own and a port of their own at us and at six subnets behind
// us: about 100,000 entries in the maps. "tables" is the way from rules to entries, laid out as in the maps; "commit"
// the way from there to the switch: comparing with what the maps hold, writing, reading back. Before a commit may
// begin, the packets that read the retired table must be through ("grace period"): a worker waits for that after the
// last commit.
#include "agent/dataplane/programs.hpp"
#include "bench/verdict/cells.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <vector>

using namespace tailrace;
using namespace tailrace::bench;

namespace {

struct Times {
    double tables_ms = 0, grace_ms = 0, commit_ms = 0;
    std::size_t entries = 0, written = 0;
};

FilterInput company(int peers) {
    constexpr int kSubnets = 6;
    FilterInput input = policy_of(peers);
    for (int net = 0; net < kSubnets; ++net)
        input.local_nets.push_back(*IpPrefix::parse(fmt::format("10.{}.0.0/16", net)));
    for (std::size_t i = 0; i < input.rules.size(); ++i) {
        FilterRule& rule = input.rules[i];
        rule.ip_proto = {6};
        for (const IpPrefix& net : input.local_nets)
            rule.dst_ports.push_back({net.text(), rule.dst_ports[0].ports, false});
        // One destination more or less sets the subnets apart, so that each is a class.
        rule.dst_ports.erase(rule.dst_ports.begin() + 2 + static_cast<std::ptrdiff_t>(i) % kSubnets);
    }
    return input;
}

double since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

Result<Times> change(const FilterInput& input, TableNumbers& numbers, TableWriter& writer) {
    Times times;
    auto start = std::chrono::steady_clock::now();
    PolicyTables tables = compile_tables(input, numbers, writer.limits());
    times.tables_ms = since(start);
    if (!tables.left_out.empty()) return Error::make("{} rules do not fit", tables.left_out.size());
    start = std::chrono::steady_clock::now();
    if (auto waited = writer.wait_for_readers(); !waited) return waited.error();
    times.grace_ms = since(start);
    auto report = writer.commit(tables);
    if (!report) return report.error();
    times.commit_ms = static_cast<double>(report->took.count()) / 1e6;
    times.entries = report->entries;
    times.written = report->written;
    return times;
}

Times median(std::vector<Times> all) {
    auto of = [&](auto field) {
        std::nth_element(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2), all.end(),
                         [&](const Times& a, const Times& b) { return a.*field < b.*field; });
        return all[all.size() / 2].*field;
    };
    return {of(&Times::tables_ms), of(&Times::grace_ms), of(&Times::commit_ms), of(&Times::entries),
            of(&Times::written)};
}

/// Somebody who has joined: two addresses, and a rule of its own, like those that there are.
FilterRule newcomer(const FilterRule& like, int round, int number) {
    FilterRule rule = like;
    rule.src_ips = {fmt::format("100.121.{}.{}", round, number),
                    fmt::format("fd7a:115c:a1e0::{:x}:{:x}", round + 1, number)};
    const auto port = static_cast<std::uint16_t>(60001 + round * 5 + number);
    for (auto& destination : rule.dst_ports) destination.ports = {port, port};
    return rule;
}

struct Measured {
    Times full, one_source, one_peer, one_less;
};

Result<Measured> measure(int peers, int rounds) {
    std::vector<Times> full, one_source, one_peer, one_less;
    for (int round = 0; round < rounds; ++round) {
        auto programs = load_packet_programs({14, {}, nullptr});
        if (!programs) return programs.error();
        auto maps = programs->table_maps();
        if (!maps) return maps.error();
        auto writer = TableWriter::create(std::move(*maps));
        if (!writer) return writer.error();
        TableNumbers numbers;
        FilterInput input = company(peers);
        auto first = change(input, numbers, *writer); // into empty maps
        if (!first) return first.error();
        full.push_back(*first);
        // A table is written that is two changes old: with both tables alike it is only what is measured.
        const auto measure_change = [&](std::vector<Times>& times) -> Result<void> {
            auto done = change(input, numbers, *writer);
            if (!done) return done.error();
            times.push_back(*done);
            auto again = change(input, numbers, *writer);
            return again ? Result<void>{} : Result<void>{again.error()};
        };
        if (auto second = change(input, numbers, *writer); !second) return second.error();
        for (int i = 0; i < 5; ++i) {
            std::size_t which = static_cast<std::size_t>(round * 5 + i) * 997 % input.rules.size();
            input.rules[which].src_ips.push_back(fmt::format("100.120.{}.{}", round, i));
            if (auto done = measure_change(one_source); !done) return done.error();
            input.rules.push_back(newcomer(input.rules[which], round, i));
            if (auto done = measure_change(one_peer); !done) return done.error();
            input.rules.erase(input.rules.begin() + static_cast<std::ptrdiff_t>(which) + 1);
            if (auto done = measure_change(one_less); !done) return done.error();
        }
    }
    return Measured{median(std::move(full)), median(std::move(one_source)), median(std::move(one_peer)),
                    median(std::move(one_less))};
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app{"How long a change of the policy takes to be in force"};
    bool json = false;
    int peers = 10000, rounds = 5;
    app.add_flag("--json", json, "for machines");
    app.add_option("--peers", peers, "so many, each with a rule of its own")->check(CLI::Range(1, 100000));
    app.add_option("--rounds", rounds, "the figures are medians of so many")->check(CLI::Range(1, 1000));
    CLI11_PARSE(app, argc, argv);

    auto measured = measure(peers, rounds);
    if (!measured) {
        fmt::print(stderr, "bench/commit: {}\n", measured.error().message());
        return 1;
    }
    struct Line {
        const char* name;
        const Times& times;
        double goal_ms;
    };
    const Line lines[] = {{"full", measured->full, 150},
                          {"one address more", measured->one_source, 1}, // IPv4, in the sources of a rule
                          {"one peer more", measured->one_peer, 1},      // both addresses, with a rule of its own
                          {"one peer less", measured->one_less, 1}};
    if (!json)
        fmt::print("{:<18} {:>9} {:>9} {:>10} {:>10} {:>8} {:>10}\n", "change, ms", "entries", "written", "tables",
                   "commit", "goal", "grace");
    std::string out;
    for (const Line& line : lines) {
        const Times& times = line.times;
        if (!json)
            fmt::print("{:<18} {:>9} {:>9} {:>10.2f} {:>10.3f} {:>8} {:>10.2f}\n", line.name, times.entries,
                       times.written, times.tables_ms, times.commit_ms, line.goal_ms, times.grace_ms);
        out += fmt::format("{}{{\"change\":\"{}\",\"peers\":{},\"entries\":{},\"written\":{},\"tables_ms\":{:.3f},"
                           "\"commit_ms\":{:.3f},\"goal_ms\":{},\"grace_ms\":{:.3f}}}",
                           out.empty() ? "" : ",\n", line.name, peers, times.entries, times.written, times.tables_ms,
                           times.commit_ms, line.goal_ms, times.grace_ms);
    }
    if (json) fmt::print("[{}]\n", out);
    return 0;
}
