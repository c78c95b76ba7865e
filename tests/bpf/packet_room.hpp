// tests/bpf/packet_room.hpp - the real programs, loaded but attached to nothing, and a way to hand them one packet.
#pragma once
#include "agent/dataplane/programs.hpp"
#include "agent/dataplane/table_writer.hpp"
#include "policy/tables.hpp"
#include "tests/bpf/packet.hpp"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <string>

namespace tailrace::test {

inline constexpr std::uint32_t kEthernetBytes = 14;

/// One run of a program on one packet (without link header). `gso_bytes`: of each of its segments, whose number is
/// unknown.
struct TestRun {
    int failed = 0; ///< what the kernel answered; 0: it ran
    bool passed = false;
    bool marked = false; ///< carries TR_MARK_PASSED
};
TestRun run_program(int program, BytesView packet, std::uint32_t mark = 0, std::uint32_t gso_segments = 0,
                    std::uint32_t gso_bytes = 0);

/// What a program said, and which counter it moved.
struct Outcome {
    bool passed = false;
    bool marked = false; ///< carries TR_MARK_PASSED
    std::string reason;
    std::uint64_t counted_packets = 0, counted_bytes = 0;
    std::optional<std::size_t> rule; ///< index of the rule that counted it

    friend std::ostream& operator<<(std::ostream& out, const Outcome& outcome) {
        return out << (outcome.passed ? "passed" : "dropped") << " as " << outcome.reason;
    }
};

/// The receiver R of the verdict table and its rules. A fixture: each test starts without policy and without memory.
class PacketRoom : public ::testing::Test {
public:
    static constexpr const char* kR = "100.64.0.16";
    static constexpr const char* kR6 = "fd7a:115c:a1e0::10";
    static constexpr const char* kA = "100.64.0.19";
    static constexpr const char* kA6 = "fd7a:115c:a1e0::13";
    static constexpr const char* kB = "100.64.0.17";
    static constexpr const char* kB6 = "fd7a:115c:a1e0::11";
    static constexpr const char* kJailed = "100.64.0.50";
    static constexpr std::uint16_t kPeerApi = 41234;

    /// A rule from its sources and "address:first-last" destinations.
    static FilterRule rule(std::vector<std::string> sources, std::vector<std::pair<std::string, PortRange>> to,
                           std::vector<int> protos = {});
    /// R with the rules r1 to r6 and strict settings off.
    static FilterInput receiver();
    static FilterInput receiver_with(std::vector<FilterRule> rules);
    /// R as an exit node with these rules, on 203.0.113.5/24.
    static FilterInput exit_node(std::vector<FilterRule> rules);

protected:
    void SetUp() override;
    static void TearDownTestSuite();
    /// Of the maps whose size is not that of bpf/maps.bpf.h. The same for all tests of a suite.
    virtual std::map<std::string, std::uint32_t> map_sizes() const;

    void commit(const FilterInput& input, const TableLimits& limits = {});
    Result<CommitReport> try_commit(const PolicyTables& tables) { return writer_->commit(tables); }
    void set_watched(bool watched) { ASSERT_TRUE(writer_->set_watched(watched)); }
    /// What the programs remember between packets, none of it and how many flows.
    void forget();
    std::size_t flows_remembered() const;
    Outcome in(const Packet& packet) { return in(packet.bytes()); }
    Outcome in(const Bytes& packet, std::uint32_t gso_segments = 0, std::uint32_t gso_bytes = 0);
    Outcome out(const Packet& packet, std::uint32_t mark = 0) { return out(packet.bytes(), mark); }
    Outcome out(const Bytes& packet, std::uint32_t mark = 0, std::uint32_t gso_segments = 0,
                std::uint32_t gso_bytes = 0);
    /// The counters of all reasons, by name; and of the rules, by index.
    std::vector<std::pair<std::string, std::uint64_t>> reason_counts() const;
    std::map<std::size_t, std::uint64_t> rule_counts() const;
    PacketPrograms& programs() { return *programs_; }
    int question_program(); ///< the program that answers questions
    std::vector<std::string> warnings() const { return warnings_; }

private:
    Outcome run(int program, const Bytes& packet, std::uint32_t mark, std::uint32_t gso_segments,
                std::uint32_t gso_bytes);

    static Fd question_;
    static std::unique_ptr<PacketPrograms> programs_; ///< loaded once: an interpreter's verifier takes its time
    std::unique_ptr<TableWriter> writer_;
    std::unique_ptr<TableNumbers> numbers_;
    std::map<std::uint32_t, std::size_t> rules_;
    std::vector<std::string> warnings_;
};

/// The verdict, its reason and the mark.
::testing::AssertionResult passed_as(const Outcome& outcome, const std::string& reason);
::testing::AssertionResult dropped_as(const Outcome& outcome, const std::string& reason);
::testing::AssertionResult passed_by_rule(const Outcome& outcome, std::size_t index);

#define EXPECT_PASS(outcome, reason) EXPECT_TRUE(passed_as(outcome, reason))
#define EXPECT_DROP(outcome, reason) EXPECT_TRUE(dropped_as(outcome, reason))
#define EXPECT_RULE(outcome, index) EXPECT_TRUE(passed_by_rule(outcome, index))

} // namespace tailrace::test
