// tests/fuzz/filter_twins.hpp - the compiled tables, asked in C++ what the packet program asks them, against the slow
// reading of the same rules. No kernel.
#pragma once
#include "policy/tables.hpp"
#include "tests/bpf/random_policy.hpp"
#include "tests/bpf/reference_filter.hpp"

#include <map>
#include <tuple>
#include <vector>

namespace tailrace::test {

/// Compiled tables as bpf/policy.bpf.c reads them.
class TableWalk {
public:
    explicit TableWalk(const PolicyTables& tables);

    bool is_local(const IpAddress& dst) const { return find(TR_SIDE_DESTINATION, dst) != nullptr; }
    /// Number of the rule that lets a packet with this header in; 0: none.
    std::uint32_t rule_for(const IpAddress& src, const IpAddress& dst, std::uint8_t proto, std::uint16_t port) const;

private:
    const tr_address* find(std::uint8_t side, const IpAddress& address) const;
    std::uint32_t row(const tr_pair& pair, std::uint8_t proto, std::uint16_t port_class) const;

    const PolicyTables& tables_;
    std::map<std::pair<std::uint8_t, IpPrefix>, tr_address> addresses_;
    std::map<std::pair<std::uint32_t, std::uint32_t>, tr_pair> pairs_;
    std::map<std::tuple<std::uint32_t, std::uint8_t, std::uint16_t>, std::uint32_t> rows_;
};

/// Aborts where tables and rules disagree. `narrower`: where the tables let in what the rules don't.
enum class Agreement { Exact, Narrower };
void compare_twins(const FilterInput& input, const PolicyTables& tables, Dice& dice, Agreement agreement);

} // namespace tailrace::test
