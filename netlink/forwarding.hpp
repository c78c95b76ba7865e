// What the host does with packets that pass between the tailnet and other networks: a table of ours, beside the
// backstop and never touching it,
//
//     table inet tailrace-DEVICE-forward {
//         chain restore { type filter hook prerouting priority mangle;                       # keep_marks
//             ct state established,related ct mark & MASK == BYPASS meta mark set mark & ~MASK ^ BYPASS }
//         chain save { type filter hook output priority mangle;
//             ct state new meta mark & MASK == BYPASS ct mark set ct mark & ~MASK ^ BYPASS }
//         chain arrived { type filter hook input priority mangle;                             # answer_as_asked
//             ip daddr 100.64.0.0/10 return
//             ip6 daddr fd7a:115c:a1e0::/48 return
//             iifname != "DEVICE" iifname != "lo" ct mark & MASK == 0 ct mark set ct mark & ~MASK ^ BYPASS }
//         chain answer { type route hook output priority mangle;
//             ct mark & MASK == BYPASS meta mark & MASK == 0 meta mark set mark & ~MASK ^ BYPASS }
//         chain input { type filter hook input priority filter - 5;                          # drop_spoofed
//             iifname != "DEVICE" iifname != "lo" ip saddr 100.115.92.0/23 return
//             iifname != "DEVICE" iifname != "lo" ip saddr 100.64.0.0/10 counter drop
//             iifname != "DEVICE" iifname != "lo" ip6 saddr fd7a:115c:a1e0::/48 counter drop }
//         chain forward { type filter hook forward priority filter - 5;
//             iifname "DEVICE" meta mark set mark & ~MASK ^ SUBNET return
//             oifname "DEVICE" ip saddr 100.64.0.0/10 counter drop
//             oifname "DEVICE" ip6 saddr fd7a:115c:a1e0::/48 counter drop
//             oifname "DEVICE" ct state & (established|related|untracked) == 0 counter drop } # stateful
//         chain masquerade { type nat hook postrouting priority srcnat;                       # masquerade
//             meta mark & MASK == SUBNET oifname != "DEVICE" counter masquerade }
//     }
//
// and, because an accept in one table is not final for the next, two rules at the head of the FORWARD and of the
// INPUT chain of the tables `ip filter` and `ip6 filter`, where these exist: they are the ones that Docker, ufw and
// iptables close. They carry the comment "tailrace DEVICE" and are words that iptables can show. Other people's
// tables are left alone, however they are made; what in them stands in the way is said.
//
// The meaning is the reference client's (linux-router.md 7.3, 7.5). Different on purpose: marks are saved and restored
// bit by bit, so that other people's marks stay; forged IPv6 tailnet sources are dropped as IPv4 ones are; the rules of
// a function that is off are not there, so that nobody pays for connection tracking who does not need it.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "netlink/socket.hpp"

namespace tailrace {

namespace nft {
struct PlannedChain;
}

/// How much of it is in force. Numbers as in the preferences.
enum class ForwardingMode {
    Off = 0,      ///< none of our rules
    NoDivert = 1, ///< our table is there to be read and copied, but nothing passes through it
    On = 2,
};

struct ForwardingConfig {
    ForwardingMode mode = ForwardingMode::On;
    bool routes = false;     ///< we are a router: what stands in the way of forwarded packets is worth a warning
    bool masquerade = false; ///< forwarded packets leave under our own address
    bool stateful = false;   ///< from elsewhere into the tailnet only replies
    bool keep_marks = false; ///< replies to our own marked packets are routed as those were: with rp_filter=1 and an
                             ///< exit node they would be taken for forged
    bool answer_as_asked = false; ///< with keep_marks: what comes to this host by another interface is answered by the
                                  ///< host's own routes, though ours lead to where it came from: whoever works on this
                                  ///< host from there is not cut off
    bool drop_spoofed = true;     ///< tailnet sources come by the device only
    std::uint16_t port = 0;       ///< of WireGuard: let in where a filter table is closed; 0: not

    friend bool operator==(const ForwardingConfig&, const ForwardingConfig&) = default;
};

class Forwarding {
public:
    static Result<Forwarding> create(const std::string& device);

    /// Makes all of it as it shall be: each table in one transaction, and only where something differs. Gives sentences
    /// for the health report.
    Result<std::vector<std::string>> reconcile(const ForwardingConfig& wanted);
    /// Our table is as the last reconcile() wanted it, whatever else of it went wrong.
    bool stands() const { return stands_; }
    /// In the place of our table one that lets nothing through between the tailnet and other networks: for kernels
    /// that lack what the table is made of. It needs neither connection tracking nor NAT.
    Result<void> refuse();
    Result<void> remove(); ///< none there is success

    const std::string& table_name() const { return table_; }

private:
    Forwarding(const std::string& device, NetlinkSocket socket);
    Result<void> make_table(const std::vector<nft::PlannedChain>& chains);
    Result<std::string> what_is_wrong(const std::vector<nft::PlannedChain>& chains);
    Result<void> remove_table();
    /// Our rules at the head of the chains that others may close.
    Result<void> open_filters(const ForwardingConfig& wanted);
    Result<std::vector<std::string>> obstacles();

    std::string device_;
    std::string table_;
    std::string comment_;
    NetlinkSocket socket_;
    bool stands_ = false;
};

} // namespace tailrace
