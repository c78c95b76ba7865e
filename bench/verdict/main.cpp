// bench/verdict: what does the verdict on one packet cost, beside nftables with the same policy?
//
// Two ways of measuring, on this machine, in one run, medians of many short bursts:
//   "run"   our program in BPF_PROG_TEST_RUN. Nothing is subtracted: the loop of the test run, shown in the first line,
//           is in every figure, and the goals are held against the figure as it stands.
//   "way"   what the filter adds to the way of a packet through the network stack, for both filters in the same place:
//           packets go up from loopback's driver (a live test run of XDP) and end in a chain that drops all at ingress.
//           Figure = with the filter before that chain, minus without, each burst beside one of the other. Ours is a tc
//           program; nftables has a netdev chain with two sets of (address, protocol, port), its fastest form. A packet
//           that the filter drops never comes to the last chain, so the figures of "no rule" are too low, ours
//           more than theirs: tc stands before the whole ingress hook of nftables. Don't compare that line by "way".
//           UDP replies need conntrack in nftables, which stands in prerouting: there, both with and without end
//           in a chain of prerouting, after conntrack and before it.
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

double median(std::vector<double> all) {
    auto middle = all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2);
    std::nth_element(all.begin(), middle, all.end());
    return *middle;
}

/// The rooms in which a packet goes its way: without a filter, with ours, with nftables; the last two with conntrack.
struct Rooms {
    Room bare, ours, nft, bare_stateful, nft_stateful;
};

Result<Rooms> make_rooms() {
    std::vector<Room> rooms;
    for (int i = 0; i < 5; ++i) {
        auto room = Room::create();
        if (!room) return room.error();
        if (auto ready = room->end_of_way(i >= 3, i == 3); !ready) return ready.error();
        rooms.push_back(std::move(*room));
    }
    return Rooms{std::move(rooms[0]), std::move(rooms[1]), std::move(rooms[2]), std::move(rooms[3]),
                 std::move(rooms[4])};
}

struct Measuring {
    int bursts = 41;
    std::uint32_t runs = 20000, packets = 2000;

    using Burst = std::function<Result<double>()>;

    Result<double> run(const Burst& burst) const {
        std::vector<double> figures;
        for (int i = 0; i < bursts; ++i) {
            auto one = burst();
            if (!one) return one.error();
            figures.push_back(*one);
        }
        return median(std::move(figures));
    }

    /// What the second room's way is longer than the first one's: median of the differences of bursts that follow each
    /// other. Checks that all packets came to the end of both ways, or of the second one none.
    Result<double> way(const Cell& cell, Room& without, Room& with, bool expect_arrival) const {
        std::uint64_t all = std::uint64_t{packets} * static_cast<unsigned>(bursts);
        auto before_without = without.arrived(), before_with = with.arrived();
        if (!before_without || !before_with) return Error::make("{}: no counters", cell.name);
        std::vector<double> differences;
        for (int i = 0; i < bursts; ++i) {
            auto shorter = without.hand_up(cell.frame, packets), longer = with.hand_up(cell.frame, packets);
            if (!shorter) return shorter.error().with("hand packets to the network stack ({})", cell.name);
            if (!longer) return longer.error().with("hand packets to the network stack ({})", cell.name);
            differences.push_back(*longer - *shorter);
        }
        auto after_without = without.arrived(), after_with = with.arrived();
        if (!after_without || !after_with) return Error::make("{}: no counters", cell.name);
        if (*after_without - *before_without != all || *after_with - *before_with != (expect_arrival ? all : 0))
            return Error::make("{}: {} and {} of {} packets came through", cell.name, *after_without - *before_without,
                               *after_with - *before_with, all);
        return median(std::move(differences));
    }
};

/// Of one size of the policy.
struct Column {
    int rules = 0;
    std::vector<Cell> cells;
    std::vector<std::vector<double>> runs; ///< figures of each cell, and last of "remembered"
};

/// The programs under test with what fills their tables.
struct Filter {
    PacketPrograms& programs;
    TableWriter& writer;
    TableNumbers& numbers;

    Result<void> hold(int rules) {
        auto done = writer.commit(compile_tables(policy_of(rules), numbers, writer.limits()));
        if (!done) return done.error();
        return {};
    }
};

Result<void> measure_runs(const Measuring& with, Room& room, Filter& filter, Column& column) {
    for (std::size_t i = 0; i < column.cells.size(); ++i) {
        const Cell& cell = column.cells[i];
        // So that it knows the flow whose answer a cell holds.
        if (auto sent = room.test_run(filter.programs.egress.get(), frame_from_us(), 1); !sent) return sent.error();
        std::uint32_t verdict = 0;
        auto took = room.test_run(filter.programs.policy.get(), cell.frame, with.runs, &verdict);
        if (!took) return took.error().with("{}", cell.name);
        if ((verdict != TC_ACT_SHOT) != cell.expect_pass)
            return Error::make("{}: the policy program says {}", cell.name, verdict);
        column.runs[i].push_back(*took);
    }
    auto remembered = room.test_run_varied(filter.programs.egress.get(), frame_from_us(), with.runs);
    if (!remembered) return remembered.error();
    column.runs.back().push_back(*remembered);
    return {};
}

Result<std::vector<Line>> measure_ways(const Measuring& with, Rooms& rooms, const Filter& filter, Column& column) {
    const int rules = column.rules;
    for (auto& [where, stateful] : {std::pair<Room*, bool>{&rooms.nft, false}, {&rooms.nft_stateful, true}})
        for (const std::string& text :
             {fmt::format("table {0} same\ndelete table {0} same\n", stateful ? "inet" : "netdev"),
              nft_rules_of(rules, stateful)})
            if (auto ready = where->nft(text); !ready) return ready.error();
    std::vector<Line> lines;
    for (std::size_t i = 0; i < column.cells.size(); ++i) {
        const Cell& cell = column.cells[i];
        if (auto sent = rooms.ours.test_run(filter.programs.egress.get(), frame_from_us(), 1); !sent)
            return sent.error();
        if (auto sent = rooms.nft_stateful.send(kOwn, kOurPort, peer4(0), kTheirPort); !sent) return sent.error();
        auto ours = with.way(cell, rooms.bare, rooms.ours, cell.expect_pass);
        if (!ours) return ours.error().with("our filter");
        auto theirs = cell.stateful ? with.way(cell, rooms.bare_stateful, rooms.nft_stateful, cell.expect_pass)
                                    : with.way(cell, rooms.bare, rooms.nft, cell.expect_pass);
        if (!theirs) return theirs.error().with("nftables");
        lines.push_back({cell.name, rules, 60, median(std::move(column.runs[i])), *ours, *theirs});
    }
    lines.push_back({"UDP from us, remembered", rules, 250, median(std::move(column.runs.back())), 0, 0});
    return lines;
}

Result<std::vector<Line>> measure(const std::vector<int>& rule_counts, int bursts) {
    auto rooms = make_rooms();
    if (!rooms) return rooms.error();
    Room& room = rooms->ours;
    Measuring with{bursts};
    ProgramOptions options;
    options.l2_bytes = 14;
    auto programs = load_packet_programs(options);
    if (!programs) return programs.error();
    auto maps = programs->table_maps();
    if (!maps) return maps.error();
    auto writer = TableWriter::create(std::move(*maps));
    if (!writer) return writer.error();
    TableNumbers numbers;
    if (auto ready = room.attach(programs->policy.get()); !ready) return ready.error();

    Bytes any = cells_of(1)[0].frame;
    auto nothing = with.run([&] { return room.test_run(room.program_that_does_nothing(), any, with.runs); });
    if (!nothing) return nothing.error();
    auto varied = with.run([&] { return room.test_run_varied(room.program_that_does_nothing(), any, with.runs); });
    if (!varied) return varied.error();
    std::vector<Line> lines{{"a program that does nothing", 0, 0, *nothing, 0, 0},
                            {"the same, another flow each run", 0, 0, *varied, 0, 0}};
    Filter filter{*programs, *writer, numbers};
    std::vector<Column> columns;
    for (int rules : rule_counts) {
        std::vector<Cell> cells = cells_of(rules);
        std::size_t figures = cells.size() + 1;
        columns.push_back({rules, std::move(cells), std::vector<std::vector<double>>(figures)});
    }
    if (auto filled = room.test_run_varied(programs->egress.get(), frame_from_us(), 200000); !filled)
        return filled.error();
    // Cells and columns take turns, so that what disturbs the machine for a while disturbs all of them alike.
    for (int burst = 0; burst < bursts; ++burst)
        for (Column& column : columns) {
            if (auto held = filter.hold(column.rules); !held) return held.error().with("{} rules", column.rules);
            if (auto done = measure_runs(with, room, filter, column); !done)
                return done.error().with("{} rules", column.rules);
        }
    for (Column& column : columns) {
        if (auto held = filter.hold(column.rules); !held) return held.error().with("{} rules", column.rules);
        auto some = measure_ways(with, *rooms, filter, column);
        if (!some) return some.error().with("{} rules", column.rules);
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
