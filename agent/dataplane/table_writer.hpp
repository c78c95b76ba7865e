// agent/dataplane/table_writer.hpp - puts compiled policies into the maps, one whole policy at a time.
#pragma once
#include "agent/dataplane/net_writer.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "base/time.hpp"
#include "policy/tables.hpp"

#include <array>
#include <cstddef>
#include <utility>
#include <vector>

namespace tailrace {

/// Descriptors of the maps of bpf/maps.bpf.h that a policy is made of.
struct TableMaps {
    Fd live, settings, hosts, nets, pairs, ports, rows;
};

struct CommitReport {
    std::uint32_t serial = 0;
    std::size_t written = 0; ///< buckets, in blocks of which one changed, and prefixes
    std::size_t removed = 0; ///< prefixes
    std::size_t entries = 0; ///< of the policy that is now in force
    Duration took{};         ///< from the end of the grace period to the switch
};

/// Fills the idle one of the two tables, checks it, and switches. A packet sees the old policy or the new one. On an
/// error the old one stays in force.
class TableWriter {
public:
    /// Takes over whatever the maps hold, in force or half written.
    static Result<TableWriter> create(TableMaps maps);

    /// Waits for the grace period first, when nobody has since the last switch. Refuses, before it writes anything,
    /// what does not fit (code() is ENOSPC).
    Result<CommitReport> commit(const PolicyTables& tables);

    /// No policy is in force, until the next commit: nothing passes. What is left when none can be written.
    Result<void> withdraw();

    /// Returns when no packet can still be reading the retired table: up to some ten milliseconds. May be called on a
    /// worker between two commits.
    Result<void> wait_for_readers();

    /// Numbers commits on from a policy of other maps, whose flows count for ours as well. Before the first commit.
    void continue_from(const tr_settings& before) { in_force_ = before; }

    /// Whether the programs tell of packets what PacketWatch wants to know; outlives commits, not this object.
    Result<void> set_watched(bool watched);

    bool has_policy() const { return live_ != TR_TABLE_NONE; }
    std::uint32_t serial() const { return in_force_.serial; }
    /// What fits into these maps.
    TableLimits limits() const;

private:
    /// What the maps hold for one table, as far as we know.
    struct Idle {
        std::vector<ContentSum> hosts, pairs, rows; ///< of blocks; fewer than there are: the rest is unknown
        ContentSum ports{};                         ///< zero: unknown
        bool known = false;                         ///< the prefixes; false: must be read from the map first
        SortedNets nets;
    };
    struct Sizes {
        std::uint32_t hosts = 0, nets = 0, pairs = 0, rows = 0; ///< max_entries
    };

    explicit TableWriter(TableMaps maps) : maps_(std::move(maps)) {}
    /// The word that packets read.
    Result<void> write_live(std::uint32_t table, bool watched);
    Result<void> write(const PolicyTables& tables, std::uint32_t table, tr_settings& settings, CommitReport& report);

    TableMaps maps_;
    Sizes sizes_;
    std::array<Idle, TR_TABLES> present_;
    std::uint32_t live_ = TR_TABLE_NONE;
    bool watched_ = false;
    tr_settings in_force_{};
    bool readers_may_linger_ = true;
    Fd grace_outer_, grace_inner_;
};

} // namespace tailrace
