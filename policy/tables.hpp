// policy/tables.hpp - a node's packet filter as the flat tables that the packet programs read.
#pragma once
#include "base/net.hpp"
#include "bpf/shared/policy_map.h"
#include "policy/filter_rule.hpp"
#include "policy/table_image.hpp"
#include "policy/table_numbers.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace tailrace {

/// What the filter must know of a peer.
struct PeerFacts {
    std::vector<IpAddress> addresses;
    std::vector<IpPrefix> allowed_ips;
    std::vector<std::string> caps; ///< names in its CapMap: sources "cap:NAME"
    bool jailed = false;           ///< may only answer
    bool unsigned_peer_api_only = false;
};

struct FilterInput {
    std::vector<FilterRule> rules;
    std::vector<IpAddress> own_addresses;
    std::vector<IpPrefix> local_nets;     ///< what is ours or behind us; the own addresses need not be in it
    std::vector<IpAddress> never_sources; ///< whatever a rule says: what comes from them matches none
    std::vector<PeerFacts> peers;         ///< a prefix that several hold belongs to the first
    std::uint16_t peer_api4 = 0;          ///< 0: none
    std::uint16_t peer_api6 = 0;
    bool shields_up = false;
    bool strict_forwarded = true; ///< strict TCP and fragments towards subnets behind us
    bool strict_own = false;
};

/// How many entries one table may have. The defaults are those of maps of the sizes in bpf/maps.bpf.h.
struct TableLimits {
    std::size_t hosts = entries_in_buckets(16384);
    std::size_t nets = 32768;
    std::size_t pairs = entries_in_buckets(32768);
    std::size_t rows = entries_in_buckets(16384);
};

/// One compiled policy. The tables and places in it are filled in by whoever writes them to the maps.
struct PolicyTables {
    struct Address {
        std::uint8_t side = 0; ///< TR_SIDE_...
        IpPrefix prefix;
        tr_address value{};
    };

    std::vector<Address> hosts; ///< whole addresses
    std::vector<Address> nets;
    std::vector<tr_pair> pairs;
    std::vector<tr_row> rows;
    TableImage image;                             ///< of hosts, pairs and rows
    std::shared_ptr<const tr_port_classes> ports; ///< never null
    ContentSum ports_sum{};                       ///< of ports
    tr_settings settings{};                       ///< without serial, lineage and places

    std::map<std::uint32_t, std::size_t> rules; ///< rule number -> index in FilterInput::rules
    std::vector<std::size_t> left_out;          ///< rules that did not fit: the policy in force is narrower
    std::vector<std::string> warnings;          ///< sentences for the health report
};

/// Pure. Never wider than the rules say: entries that make no sense are skipped with a warning, and rules that do not
/// fit into the limits are left out and named.
PolicyTables compile_tables(const FilterInput& input, TableNumbers& numbers, const TableLimits& limits = {});

} // namespace tailrace
