// agent/path/cloud_addresses.hpp - public addresses that a cloud gives an instance without telling its interfaces.
#pragma once
#include "base/io/reactor.hpp"
#include "base/net.hpp"
#include "base/result.hpp"

#include <cstdint>
#include <string_view>
#include <vector>

namespace tailrace {

/// What the firmware calls its vendor, where this machine has such a file.
inline constexpr const char* kBiosVendorFile = "/sys/class/dmi/id/bios_vendor";
/// Where clouds answer their instances.
inline const Endpoint kMetadataService{IpAddress::v4(0xa9fea9fe), 80}; // 169.254.169.254

/// Whether this is an instance of Amazon EC2, the one cloud that is asked; no packet is sent to find out. Pure. Source:
/// tailscale util/cloudenv/cloudenv.go.
bool is_amazon(std::string_view bios_vendor);

/// The addresses in an answer, one a line; other lines are none. Pure.
std::vector<IpAddress> parse_cloud_addresses(std::string_view text);

/// All public addresses of this instance, sorted, within kCloudTime. Source: tailscale util/cloudinfo/cloudinfo.go.
inline constexpr auto kCloudTime = std::chrono::seconds{2};
Task<Result<std::vector<IpAddress>>> ask_amazon(Reactor& reactor, Endpoint service, std::uint32_t mark);

} // namespace tailrace
