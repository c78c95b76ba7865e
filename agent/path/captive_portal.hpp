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

/// Whom to ask on port 80.
struct PortalQuestion {
    enum class To { Relay, Control };
    std::string host;
    To to = To::Relay;
    bool operator==(const PortalQuestion&) const = default;
};

/// Relays by their IPv4 address, if the map says that they can be asked: those of the home region first, five at most.
/// Where there is none, the coordination server: the reference client asks hosts of its maker then, whom the users of
/// other servers have no business with. Pure.
std::vector<PortalQuestion> captive_portal_questions(const wire::DerpMap& map, int home, const std::string& control);
/// A relay: anything but an empty page with the answer to our challenge comes from somebody else. A coordination server
/// need not know the page, so only what a portal alone says counts: a redirection to another host, or status 511. Empty
/// when the answer tells nothing. Pure.
std::optional<bool> is_captive_portal(const HttpResponse& response, const PortalQuestion& question);

/// Empty: nobody could be asked, or nobody said anything within 3 s.
Task<std::optional<bool>> find_captive_portal(Reactor& reactor, std::vector<PortalQuestion> questions,
                                              std::uint32_t mark);

} // namespace tailrace
