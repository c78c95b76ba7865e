// agent/dataplane/quirks.hpp - what is known to be wrong with kernels, as data.
#pragma once
#include <array>
#include <compare>
#include <optional>
#include <string_view>
#include <vector>

namespace tailrace {

struct KernelVersion {
    int major = 0, minor = 0, patch = 0;
    auto operator<=>(const KernelVersion&) const = default;
    /// "6.1.0-28-amd64", "6.18.44-fc-v669".
    static std::optional<KernelVersion> parse(std::string_view release);
};

/// On what, besides the version, it depends whether a quirk bites.
enum class QuirkNeeds {
    Nothing,
    ThreadedNapi,       ///< of the WireGuard device
    UserspaceWireGuard, ///< wireguard-go sends with UDP GSO; the kernel's module does not
};

struct KernelQuirk {
    const char* name;
    KernelVersion from, before; ///< first with it, first without
    QuirkNeeds needs;
    const char* what;
    const char* cure;
    const char* source;
};

/// All that we know of.
const std::vector<KernelQuirk>& kernel_quirks();
/// Those that apply to a kernel of this version, whatever else they need.
std::vector<const KernelQuirk*> quirks_of(const KernelVersion& version);

} // namespace tailrace
