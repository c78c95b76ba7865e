// agent/dataplane/net_writer.hpp - the prefixes of a policy in tr_nets, the one map that has keys.
#pragma once
#include "base/result.hpp"
#include "policy/tables.hpp"

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace tailrace {

/// What tr_nets holds for one table, sorted by the bytes of the keys.
using SortedNets = std::vector<std::pair<tr_net_key, tr_address>>;

SortedNets lay_out_nets(const std::vector<PolicyTables::Address>& nets, std::uint8_t table);

/// What the map holds of a table.
Result<SortedNets> read_nets(int map, std::uint8_t table);

struct NetChanges {
    std::size_t written = 0;
    std::size_t removed = 0;
};

/// Turns `present` into `wanted`, in batches where the kernel has them for this map.
Result<NetChanges> change_nets(int map, const SortedNets& present, const SortedNets& wanted);

} // namespace tailrace
