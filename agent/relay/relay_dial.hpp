// agent/relay/relay_dial.hpp - a connection to a node of the DERP map, with the TLS that the map asks for
// (derp-disco-paths.md 1.1).
#pragma once
#include "base/io/stream.hpp"
#include "proto/control/derp_map.hpp"

#include <memory>
#include <string>
#include <vector>

namespace tailrace {

/// Where to dial: literal addresses first, for then no DNS is needed.
std::vector<std::string> relay_hosts(const wire::DerpNode& node);

/// `host`: one of relay_hosts(). `mark`: SO_MARK, but not towards ourselves.
Task<Result<std::unique_ptr<Stream>>> dial_relay_node(Reactor& reactor, wire::DerpNode node, std::string host,
                                                      std::uint32_t mark);

} // namespace tailrace
