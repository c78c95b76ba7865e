// agent/router/source_checks.hpp - the kernel's check of where packets come from, and our marks.
#pragma once
#include "base/result.hpp"

#include <string>

namespace tailrace {

/// net.ipv4.conf.all.src_valid_mark, while it has to be 1: else the kernel looks for the way back without the mark,
/// finds the exit node, and drops the packet as forged where rp_filter is 1. What has no mark is not concerned.
class SourceChecks {
public:
    struct Paths {
        std::string setting = "/proc/sys/net/ipv4/conf/all/src_valid_mark";
        /// There while the setting is 1 because of us, which an agent must know that was started since. Goes with a
        /// reboot, as the setting does.
        std::string memory;
    };
    /// Another memory for each device: there may be several agents.
    static Paths paths_of(const std::string& device);
    explicit SourceChecks(Paths paths) : paths_(std::move(paths)) {}

    /// An error: it cannot be written, as with a read-only /proc/sys; then all but rp_filter=1 works.
    Result<void> use_marks();
    /// Makes it 0 where we made it 1 and nobody has changed it since.
    Result<void> give_back();

private:
    Paths paths_;
};

} // namespace tailrace
