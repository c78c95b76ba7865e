// agent/path/captive_portal.hpp - does somebody answer HTTP in the name of others, as hotels do? (derp-disco-paths.md
// 4.13). Source: tailscale net/captivedetection.
#pragma once
#include "base/io/http.hpp"
#include "proto/control/derp_map.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tailrace {

/// Relays that can be asked on port 80, by their IPv4 address: those of the home region first, five at most. Pure.
std::vector<std::string> captive_portal_hosts(const wire::DerpMap& map, int home);
/// Anything but an empty page with the answer to our challenge comes from somebody else. Pure.
bool looks_like_captive_portal(const HttpResponse& response, const std::string& host);

/// Empty: nobody could be asked, or nobody answered within 3 s.
Task<std::optional<bool>> find_captive_portal(Reactor& reactor, wire::DerpMap map, int home, std::uint32_t mark);

} // namespace tailrace
