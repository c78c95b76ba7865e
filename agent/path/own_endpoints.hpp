// agent/path/own_endpoints.hpp - where others may reach us. Pure.
#pragma once
#include "base/net.hpp"
#include "netlink/link.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace tailrace {

/// The addresses of our interfaces with WireGuard's port, in the order in which control is told (derp-disco-paths.md
/// 4.2, number 8). `device` is our own tunnel.
std::vector<Endpoint> own_endpoints(const std::vector<Link>& links, const std::string& device, std::uint16_t port);

} // namespace tailrace
