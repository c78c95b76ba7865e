// agent/dataplane/table_writer.hpp - puts compiled policies into the maps, one whole policy at a time.
#pragma once
#include "base/fd.hpp"
#include "base/result.hpp"
#include "base/time.hpp"
#include "policy/tables.hpp"

#include <array>
#include <cstddef>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

namespace tailrace {

/// Descriptors of the maps of bpf/maps.bpf.h that a policy is made of.
struct TableMaps {
    Fd live, settings, hosts, nets, pairs, ports, rows;
};

struct CommitReport {
    std::uint32_t serial = 0;
    std::size_t written = 0; ///< entries that were added or changed
    std::size_t removed = 0;
    std::size_t entries = 0; ///< of the policy that is now in force
    Duration took{};         ///< from the end of the grace period to the switch
};

/// Fills the idle one of the two tables, checks it, and switches. A packet sees the old policy or the new one. On an
/// error the old one stays in force.
class TableWriter {
public:
    /// Takes over whatever the maps hold, in force or half written.
    static Result<TableWriter> create(TableMaps maps);

    /// Waits for the grace period first, when nobody has since the last switch.
    Result<CommitReport> commit(const PolicyTables& tables);

    /// Returns when no packet can still be reading the retired table: up to some ten milliseconds. May be called on a
    /// worker between two commits.
    Result<void> wait_for_readers();

    bool has_policy() const { return live_ != TR_TABLE_NONE; }
    std::uint32_t serial() const { return in_force_.serial; }

private:
    /// What one map holds for one table, sorted by the bytes of the keys.
    template <typename Key, typename Value>
    using Entries = std::vector<std::pair<Key, Value>>;
    struct Contents {
        bool known = false; ///< false: must be read from the maps first
        Entries<tr_host_key, tr_address> hosts;
        Entries<tr_net_key, tr_address> nets;
        Entries<tr_pair_key, tr_pair> pairs;
        Entries<tr_row_key, std::uint32_t> rows;
        std::shared_ptr<const tr_port_classes> ports;

        std::size_t size() const { return hosts.size() + nets.size() + pairs.size() + rows.size(); }
    };

    explicit TableWriter(TableMaps maps) : maps_(std::move(maps)) {}
    static Contents lay_out(const PolicyTables& tables, std::uint8_t table);
    Result<Contents> read_back(std::uint8_t table) const;
    Result<void> bring_to(const Contents& wanted, const Contents& present, std::uint8_t table, CommitReport& report);

    TableMaps maps_;
    std::array<Contents, TR_TABLES> present_;
    std::uint32_t live_ = TR_TABLE_NONE;
    tr_settings in_force_{};
    bool readers_may_linger_ = true;
    Fd grace_outer_, grace_inner_;
};

} // namespace tailrace
