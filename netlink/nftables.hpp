// Our nftables table. The permanent backstop: nothing comes in by the device that the policy program has not marked.
// And relayed peers, whose WireGuard endpoints are 127.64.x.y on lo (agent/relay), kept from connection tracking: a
// rule for all like "masquerade" would give their datagrams another source.
//
//     table inet tailrace-DEVICE {
//         chain backstop {
//             type filter hook prerouting priority -450; policy accept;
//             iifname "DEVICE" meta mark & BIT == 0 counter drop
//         }
//         chain relayed {
//             type filter hook output priority raw; policy accept;
//             oifname "lo" ip saddr 127.64.0.0/10 notrack
//             oifname "lo" ip daddr 127.64.0.0/10 notrack
//         }
//     }
//
// A packet that is not tracked when it leaves is not tracked when lo brings it back.
//
// Why prerouting at -450 (NF_IP_PRI_RAW_BEFORE_DEFRAG) and not input and forward: it is the first place after tc where
// every packet passes, whatever becomes of it. Later places would be too late in three ways: other people's mangle
// rules (-150) may overwrite the mark, the reference client's own connmark restore among them, and then innocent
// packets would die or guilty ones live; conntrack (-200) would already remember what is dropped; and defragmentation
// (-400) joins fragments under the mark of one of them, while here each stands for itself.
//
// What it must outlast, and what makes it (tried on Linux 6.18 and 6.12, which behave alike):
//  - `nft flush ruleset`, `delete table` by others while the agent lives: a table with the flag `owner` belongs to the
//  netlink
//    socket that made it; a flush of others skips it, and touching it is EPERM.
//  - the agent's death: a table with only `owner` dies with its socket. With `persist` as well (Linux 6.9) it stays,
//  then
//    ownerless, and the next agent adopts it by naming it with both flags, without a gap. A plain table cannot become
//    owned (EOPNOTSUPP): it is replaced in one transaction.
//  - Linux 5.12 to 6.8 know `owner` alone: there a plain table outlives us and an owned twin ("-guard") protects us
//  while we
//    live. Older: only the plain one, watched and repaired.
//  - the agent's death and then `nft flush ruleset`: nobody's table is left, and no flag helps. What stands is the
//  policy
//    program itself. With TCX (Linux 6.6) it hangs on a pinned link that `tc qdisc del` does not know: both together
//    pass nothing. Only before 6.6, with the agent dead, and both commands given, is the door open until the agent is
//    back. (A service manager that keeps our netlink socket, like systemd's FDSTORE, would close that too: socket_fd()
//    is for it.)
//
// The rules for forwarding and masquerade are no part of this: they get tables of their own, so that no mistake in them
// and no reload of them can touch this one.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "netlink/socket.hpp"

struct nftnl_chain;

namespace tailrace {

/// How well the table is protected against other people's `nft flush ruleset`.
enum class BackstopHold {
    Missing,
    Plain,              ///< anybody may flush it: watch and repair
    Shadowed,           ///< a plain table that outlives us, and beside it an owned one that nobody else can flush
    OwnedAndPersistent, ///< one table that nobody else can flush while we live and that outlives us
};
std::string_view text(BackstopHold hold);

struct BackstopState {
    bool intact = false; ///< packets without the mark are dropped, now
    std::string reason;  ///< what is wrong, when not intact
    BackstopHold hold = BackstopHold::Missing;
    std::uint64_t dropped_packets = 0; ///< since the table was made
    std::uint64_t dropped_bytes = 0;
};

class Backstop {
public:
    /// `mark_bit`: the bit that the policy program sets on what passes (bpf/shared/marks.h).
    static Result<Backstop> create(const std::string& device, std::uint32_t mark_bit);

    /// Makes the table right and as well held as this kernel can, in one transaction: at no moment is there none.
    /// Nothing happens when it is right. EPERM: another live process owns it.
    Result<BackstopState> ensure();
    Result<BackstopState> check();
    Result<void> remove(); ///< none there is success

    const std::string& table_name() const { return table_; }
    int socket_fd() const { return socket_.fd(); } ///< whoever has it open holds the tables

private:
    Backstop(const std::string& device, std::uint32_t mark_bit, NetlinkSocket socket);

    /// One table as the kernel has it.
    struct TableState {
        bool exists = false;
        std::uint32_t flags = 0;
        std::uint32_t owner = 0; ///< port of the netlink socket that owns it
        std::string wrong;       ///< empty: it does its job
        std::uint64_t packets = 0;
        std::uint64_t bytes = 0;
    };
    Result<TableState> look_at(const std::string& table);
    /// Adds to `state` what is wrong with a chain that should have these rules.
    Result<void> look_at_chain(const std::string& table, const std::string& chain, TableState& state,
                               const std::vector<std::string>& rules,
                               const std::function<bool(const nftnl_chain*)>& is_right);
    BackstopHold hold_of(const TableState& table, const TableState& guard) const;
    Result<void> make(BackstopHold hold, const TableState& table, const TableState& guard);

    std::string device_;
    std::string table_;
    std::string guard_;
    std::uint32_t mark_bit_ = 0;
    bool can_notrack_ = true;
    NetlinkSocket socket_; ///< owns the tables: it must live as long as we want them protected
};

/// Tells when somebody touched our tables. Wait until fd() is readable, then call take_changes(); when it says true,
/// call Backstop::ensure(). Our own changes are seen too: ensure() then finds all well and does nothing.
class NftablesWatch {
public:
    static Result<NftablesWatch> open(const std::string& device);

    int fd() const { return fd_.get(); }
    /// Reads all that is there: true when our tables were touched or events were lost.
    Result<bool> take_changes();
    /// Whether, since it was asked last, others changed what our forwarded packets have to pass as well: a table
    /// "filter", or which chains there are. That may go on all the time: look at most once a second.
    bool take_others_changes() { return std::exchange(others_, false); }
    /// Whether, since it was asked last, others changed any table of theirs.
    bool take_rule_changes() { return std::exchange(rules_, false); }

private:
    NftablesWatch(Fd fd, std::string table) : fd_(std::move(fd)), table_(std::move(table)) {}
    Fd fd_;
    std::string table_;
    bool others_ = false;
    bool rules_ = false;
};

} // namespace tailrace
