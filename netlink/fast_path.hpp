// Forwarded flows that skip the host's routing, connection tracking and firewall rules: nftables' software flow table,
// fed by a table of ours.
//
//     table inet tailrace-DEVICE-fast { flags owner
//         flowtable flows { hook ingress priority 0; devices = { DEVICE, eth0, ... } }
//         chain guard { type filter hook ingress device DEVICE priority -10;
//             meta mark & BIT == 0 drop }
//         set accepted { typeof ct id; size 65536; flags dynamic,timeout; timeout 1m }
//         chain offload { type filter hook forward priority 300;
//             iifname "DEVICE" meta l4proto { tcp, udp } ct direction original update @accepted { ct id }
//             iifname "DEVICE" meta l4proto { tcp, udp } ct direction reply ct state established
//                 ct id @accepted flow add @flows
//             oifname "DEVICE" ... the same }
//     }
//
// Which flows: those of which a packet in each direction got to priority 300, past everybody's forward rules, since the
// table was made. (That the connection exists is no proof for its original direction: a rule of now may drop it, while
// its replies still come.)
// What is not plain (fragments, IP options, TTL 1, too big, FIN and RST, no neighbour) the kernel hands to its usual
// path by itself.
//
// What it does not skip: the packet programs on the tunnel. tc runs before this hook and after it, so each packet is
// judged by the policy in force now, counted and remembered as everywhere. `guard` does here what the backstop
// (netlink/nftables.hpp) does in prerouting, which these packets never see.
//
// What ends it: the table belongs to our netlink socket and dies with it, so without an agent that watches there is no
// fast path; any change of rules or routes makes the table anew, empty.
#pragma once
#include "base/result.hpp"
#include "netlink/socket.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace tailrace {

class FastPath {
public:
    /// `mark_bit`: the bit that the policy program sets on what passes (bpf/shared/marks.h).
    static Result<FastPath> create(const std::string& device, std::uint32_t mark_bit);

    /// Flows between the device and these interfaces (sorted names) from now on. The same again changes nothing. After
    /// an error everything is forwarded the usual way.
    Result<void> use(const std::vector<std::string>& interfaces, int device_index);
    /// Flows have to be accepted again before they are fast again.
    Result<void> end_flows();
    Result<void> remove(); ///< none there is success

    bool in_force() const { return in_force_; }
    /// What that error says where it says more than that a call failed.
    static bool is_not_supported(const Error& error);

private:
    FastPath(const std::string& device, std::uint32_t mark_bit, NetlinkSocket socket);
    Result<void> make();

    std::string device_;
    std::string table_;
    std::uint32_t mark_bit_;
    NetlinkSocket socket_; ///< owns the table
    std::vector<std::string> interfaces_;
    int device_index_ = 0;
    bool in_force_ = false;
    bool may_be_there_ = false; ///< the table: the kernel may have made it all the same
};

} // namespace tailrace
