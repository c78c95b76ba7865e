// bench/verdict/cells.hpp - the policy and the packets that are measured.
#pragma once
#include "policy/tables.hpp"

#include <string>
#include <vector>

namespace tailrace::bench {

inline constexpr const char* kOwn = "100.64.0.1";
inline constexpr const char* kOwn6 = "fd7a:115c:a1e0::1";
inline constexpr std::uint16_t kOurPort = 5000;  ///< that we sent from to
inline constexpr std::uint16_t kTheirPort = 700; ///< this port of the last peer

/// Rule i lets one peer, by both its addresses, reach one TCP and UDP port of ours.
std::string peer4(int rule);
std::string peer6(int rule);
std::uint16_t port_of(int rule);
FilterInput policy_of(int rules);

/// The same as an nftables ruleset: two sets of (address, protocol, port), asked after the test for established TCP.
/// `stateful`: with conntrack in front, which UDP replies need.
std::string nft_rules_of(int rules, bool stateful);

struct Cell {
    std::string name;
    Bytes frame;             ///< with an Ethernet header
    bool expect_pass = true; ///< by both filters
    bool stateful = false;   ///< nftables needs conntrack for it
};
std::vector<Cell> cells_of(int rules);

/// What we send to begin the flow whose answer a cell holds; and any flow from us.
Bytes frame_from_us();

} // namespace tailrace::bench
