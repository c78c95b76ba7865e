#include "agent/dataplane/quirks.hpp"

#include "base/text.hpp"

#include <string>

namespace tailrace {

std::optional<KernelVersion> KernelVersion::parse(std::string_view release) {
    KernelVersion version;
    int* parts[] = {&version.major, &version.minor, &version.patch};
    std::size_t at = 0, read = 0;
    while (read < 3 && at < release.size()) {
        std::size_t end = at;
        while (end < release.size() && release[end] >= '0' && release[end] <= '9') ++end;
        auto number = parse_number<int>(release.substr(at, end - at));
        if (!number) break;
        *parts[read++] = *number;
        if (end >= release.size() || release[end] != '.') break;
        at = end + 1;
    }
    if (read < 2) return std::nullopt;
    return version;
}

const std::vector<KernelQuirk>& kernel_quirks() {
    // Distributions take changes back and forth: the version says what to look for, not what is there.
    static const std::vector<KernelQuirk> quirks = {
        {"too-old",
         {0, 0, 0},
         {6, 1, 0},
         QuirkNeeds::Nothing,
         "kernels before 6.1 are not tested",
         "upgrade the kernel; Debian 12 has 6.1",
         "DESIGN.md 2"},
        {"threaded-napi-stall",
         {5, 15, 0},
         {6, 13, 0},
         QuirkNeeds::ThreadedNapi,
         "on some stable kernels of the series 5.15 to 6.12 decryption for one peer stops for ever under load when the "
         "WireGuard device has threaded NAPI (CVE-2026-52945)",
         "echo 0 > /sys/class/net/DEVICE/threaded, or a kernel with the fix of February 2026",
         "cilium/cilium issue 46687, bottlerocket-os/bottlerocket issue 4772"},
        {"udp-gso-mangled",
         {7, 0, 0},
         {7, 1, 5},
         QuirkNeeds::UserspaceWireGuard,
         "UDP segmentation offload writes wrong headers and checksums on kernels 7.0 to 7.1.4, so that most packets of "
         "a "
         "userspace WireGuard are lost",
         "ethtool -K UPLINK tx-udp-segmentation off, or a newer kernel; or use the kernel's WireGuard module",
         "tailscale/tailscale issue 19777"},
    };
    return quirks;
}

std::vector<const KernelQuirk*> quirks_of(const KernelVersion& version) {
    std::vector<const KernelQuirk*> out;
    for (const KernelQuirk& quirk : kernel_quirks())
        if (version >= quirk.from && version < quirk.before) out.push_back(&quirk);
    return out;
}

} // namespace tailrace
