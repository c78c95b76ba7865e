// The permanent backstop: nothing comes in by the device that the policy program has not marked.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "netlink/socket.hpp"

namespace tailrace {

/// How well the table is protected against other people's `nft flush ruleset`.
enum class BackstopHold {
    Missing,
    Plain,    ///< anybody may flush it: watch and repair
    Shadowed, ///< a plain table that outlives us, and beside it an owned one that nobody else can flush while we live
    OwnedAndPersistent, ///< one table that nobody else can flush while we live and that outlives us
};
std::string_view text(BackstopHold hold);

struct BackstopState {
    bool intact = false;
    std::string reason; ///< what is wrong, when not intact
    BackstopHold hold = BackstopHold::Missing;
    std::uint64_t dropped_packets = 0;
    std::uint64_t dropped_bytes = 0;
};

class Backstop {
public:
    /// `mark_bit`: the bit that the policy program sets on what passes (bpf/shared/marks.h).
    static Result<Backstop> create(const std::string& device, std::uint32_t mark_bit);

    /// Makes the table right, in one transaction: at no moment is there none. Nothing happens when it is right.
    Result<BackstopState> ensure();
    Result<BackstopState> check();
    Result<void> remove(); ///< none there is success

    const std::string& table_name() const { return table_; }

private:
    Backstop(std::string device, std::uint32_t mark_bit, NetlinkSocket socket);

    std::string device_;
    std::string table_;
    std::uint32_t mark_bit_ = 0;
    NetlinkSocket socket_; ///< owns the tables: it must live as long as we want them protected
};

/// Tells when somebody touched nftables. Wait until fd() is readable, then call take_changes(); when it says true, call
/// ensure().
class NftablesWatch {
public:
    static Result<NftablesWatch> open(std::string device);

    int fd() const { return fd_.get(); }
    /// Reads all that is there: true when our tables were touched or events were lost.
    Result<bool> take_changes();

private:
    NftablesWatch(Fd fd, std::string device) : fd_(std::move(fd)), device_(std::move(device)) {}
    Fd fd_;
    std::string device_;
};

} // namespace tailrace
