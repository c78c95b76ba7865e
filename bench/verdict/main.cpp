// bench/verdict: what does the verdict on one packet cost, beside nftables with the same policy?
//
// Two ways of measuring, on this machine, in one run, medians of many short bursts:
//   "run"   our program in BPF_PROG_TEST_RUN. Nothing is subtracted: the loop of the test run, shown in the first line,
//           is in every figure, and the goals are held against the figure as it stands.
//   "way"   what the filter adds to the way of a packet through the network stack, for both filters in the same place:
//           packets go up from loopback's driver (a live test run of XDP) and end in a chain that drops all at ingress.
//           Figure = with the filter before that chain, minus without. Ours is a tc program; nftables has a netdev
//           chain with two sets of (address, protocol, port), its fastest form. A packet that the filter drops never
//           comes to the last chain, which makes its figure a little too low, for both alike.
//           UDP replies need conntrack in nftables, which stands in prerouting: there, both with and without end in a
//           chain of prerouting, after conntrack and before it.
// That both filters gave the verdict that the policy demands is checked by counters in each line.
// The caches are warm: each burst is of one packet. "remembered" has another flow in each run, by a program that counts
// up in the ports and whose cost is in the figure; the memory is full, so each new flow also pushes one out.
#include "agent/dataplane/programs.hpp"
#include "bench/verdict/cells.hpp"
#include "bench/verdict/room.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <linux/pkt_cls.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

using namespace tailrace;
using namespace tailrace::bench;

namespace {

struct Line {
    std::string name;
    int rules = 0;
    double goal = 60;
    double run = 0, way = 0, nft = 0; ///< nanoseconds; way and nft 0: not measured
};

struct Measuring {
    Room& room;
    int bursts = 41;
    std::uint32_t runs = 20000, packets = 4000;

    Result<double> median(const std::function<Result<double>()>& burst) const {
        std::vector<double> all;
        for (int i = 0; i < bursts; ++i) {
            auto one = burst();
            if (!one) return one;
            all.push_back(*one);
        }
        std::nth_element(all.begin(), all.begin() + bursts / 2, all.end());
        return all[static_cast<std::size_t>(bursts / 2)];
    }

    /// Nanoseconds on the way; checks that all packets came to the end, or none.
    Result<double> way(const Cell& cell, bool expect_arrival) const {
        auto before = room.arrived();
        if (!before) return before.error();
        auto took = median([&] { return room.hand_up(cell.frame, packets); });
        if (!took) return took.error().with("hand packets to the network stack ({})", cell.name);
        auto after = room.arrived();
        if (!after) return after.error();
        std::uint64_t wanted = expect_arrival ? std::uint64_t{packets} * static_cast<unsigned>(bursts) : 0;
        if (*after - *before != wanted)
            return Error::make("{}: {} packets came through, not {}", cell.name, *after - *before, wanted);
        return took;
    }
};

Result<std::vector<Line>> measure_rules(const Measuring& with, PacketPrograms& programs, TableWriter& writer,
                                        TableNumbers& numbers, int rules) {
    Room& room = with.room;
    std::vector<Cell> cells = cells_of(rules);
    std::vector<Line> lines;
    if (auto done = writer.commit(compile_tables(policy_of(rules), numbers, writer.limits())); !done)
        return done.error();
    if (auto sent = room.test_run(programs.egress.get(), frame_from_us(), 1); !sent) return sent.error();
    if (auto sent = room.send(kOwn, kOurPort, peer4(0), kTheirPort); !sent) return sent.error();

    for (const Cell& cell : cells) {
        std::uint32_t verdict = 0;
        auto took = with.median([&] { return room.test_run(programs.policy.get(), cell.frame, with.runs, &verdict); });
        if (!took) return took.error().with("{}", cell.name);
        if ((verdict == TC_ACT_OK) != cell.expect_pass)
            return Error::make("{}: the policy program says {}", cell.name, verdict);
        lines.push_back({cell.name, rules, 60, *took, 0, 0});
    }

    // Without a filter, with ours, with theirs.
    std::vector<double> bare;
    if (auto ready = room.end_of_way(false, false); !ready) return ready.error();
    for (const Cell& cell : cells) {
        auto took = with.way(cell, true);
        if (!took) return took.error();
        bare.push_back(*took);
    }
    if (auto ready = room.attach(programs.policy.get()); !ready) return ready.error();
    for (std::size_t i = 0; i < cells.size(); ++i) {
        auto took = with.way(cells[i], cells[i].expect_pass);
        if (!took) return took.error().with("with our filter");
        lines[i].way = *took - bare[i];
    }
    if (auto gone = room.detach(); !gone) return gone.error();
    if (auto ready = room.nft(nft_rules_of(rules, false)); !ready) return ready.error();
    for (std::size_t i = 0; i < cells.size(); ++i) {
        if (cells[i].stateful) continue;
        auto took = with.way(cells[i], cells[i].expect_pass);
        if (!took) return took.error().with("with nftables");
        lines[i].nft = *took - bare[i];
    }
    if (auto gone = room.nft("flush ruleset"); !gone) return gone.error();
    for (std::size_t i = 0; i < cells.size(); ++i) {
        if (!cells[i].stateful) continue;
        if (auto ready = room.end_of_way(true, true); !ready) return ready.error();
        auto without = with.way(cells[i], true);
        if (!without) return without.error();
        if (auto ready = room.nft(nft_rules_of(rules, true)); !ready) return ready.error();
        if (auto ready = room.end_of_way(true, false); !ready) return ready.error();
        if (auto sent = room.send(kOwn, kOurPort, peer4(0), kTheirPort); !sent) return sent.error();
        auto took = with.way(cells[i], cells[i].expect_pass);
        if (!took) return took.error().with("with nftables and conntrack");
        lines[i].nft = *took - *without;
        if (auto gone = room.nft("flush ruleset"); !gone) return gone.error();
    }

    // Last: it fills the memory with other flows.
    auto filled = room.test_run_varied(programs.egress.get(), frame_from_us(), 200000);
    if (!filled) return filled.error();
    auto took = with.median([&] { return room.test_run_varied(programs.egress.get(), frame_from_us(), with.runs); });
    if (!took) return took.error();
    lines.push_back({"UDP from us, remembered", rules, 250, *took, 0, 0});
    return lines;
}

Result<std::vector<Line>> measure(const std::vector<int>& rule_counts, int bursts) {
    auto room = Room::create();
    if (!room) return room.error();
    Measuring with{*room, bursts};
    ProgramOptions options;
    options.l2_bytes = 14;
    auto programs = load_packet_programs(options);
    if (!programs) return programs.error();
    auto maps = programs->table_maps();
    if (!maps) return maps.error();
    auto writer = TableWriter::create(std::move(*maps));
    if (!writer) return writer.error();
    TableNumbers numbers;

    Bytes any = cells_of(1)[0].frame;
    auto nothing = with.median([&] { return room->test_run(room->program_that_does_nothing(), any, with.runs); });
    if (!nothing) return nothing.error();
    auto varied = with.median([&] { return room->test_run_varied(room->program_that_does_nothing(), any, with.runs); });
    if (!varied) return varied.error();
    std::vector<Line> lines{{"a program that does nothing", 0, 0, *nothing, 0, 0},
                            {"the same, another flow each run", 0, 0, *varied, 0, 0}};
    for (int rules : rule_counts) {
        auto some = measure_rules(with, *programs, *writer, numbers, rules);
        if (!some) return some.error().with("{} rules", rules);
        lines.insert(lines.end(), some->begin(), some->end());
    }
    return lines;
}

std::string number(double value) {
    return value == 0 ? "-" : fmt::format("{:.0f}", value);
}

void print_table(const std::vector<Line>& lines) {
    fmt::print("{:<34} {:>6} {:>8} {:>6} {:>10} {:>10}\n", "packet, ns", "rules", "ours:run", "goal", "ours:way",
               "nft:way");
    for (const Line& line : lines)
        fmt::print("{:<34} {:>6} {:>8.0f} {:>6} {:>10} {:>10}\n", line.name, number(line.rules), line.run,
                   number(line.goal), number(line.way), number(line.nft));
}

void print_json(const std::vector<Line>& lines) {
    std::string out;
    for (const Line& line : lines)
        out += fmt::format("{}{{\"packet\":\"{}\",\"rules\":{},\"goal_ns\":{},\"run_ns\":{:.1f},\"way_ns\":{:.1f},"
                           "\"nft_way_ns\":{:.1f}}}",
                           out.empty() ? "" : ",\n", line.name, line.rules, line.goal, line.run, line.way, line.nft);
    fmt::print("[{}]\n", out);
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app{"The cost of one verdict, beside nftables with the same policy"};
    bool json = false;
    int bursts = 41;
    std::vector<int> rules{10, 100, 1000, 10000};
    app.add_flag("--json", json, "for machines");
    app.add_option("--bursts", bursts, "the figures are medians of so many")->check(CLI::Range(1, 10000));
    app.add_option("--rules", rules, "sizes of the policy")->check(CLI::Range(1, 100000));
    CLI11_PARSE(app, argc, argv);

    auto lines = measure(rules, bursts);
    if (!lines) {
        fmt::print(stderr, "bench/verdict: {}\n", lines.error().message());
        return 1;
    }
    json ? print_json(*lines) : print_table(*lines);
    return 0;
}
