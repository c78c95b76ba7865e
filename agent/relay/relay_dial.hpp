// agent/relay/relay_dial.hpp - a connection to a node of the DERP map, with the TLS that the map asks for
// (derp-disco-paths.md 1.1).
#pragma once
#include "base/io/tls.hpp"
#include "proto/control/derp_map.hpp"
#include "proto/keys.hpp"

#include <memory>
#include <string>
#include <vector>

namespace tailrace {

/// Where to dial: literal addresses first, for then no DNS is needed.
std::vector<std::string> relay_hosts(const wire::DerpNode& node);

/// `host`: one of relay_hosts(). `mark`: SO_MARK, but not towards ourselves.
Task<Result<std::unique_ptr<Stream>>> dial_relay_node(Reactor& reactor, wire::DerpNode node, std::string host,
                                                      std::uint32_t mark);

/// The key that a relay names in its meta-certificate, when we may rely on it: we need not wait for it then
/// (derp-disco-paths.md 1.2, fast start). Pure.
std::optional<NodeKey> key_in_certificates(const TlsPeer& peer);

} // namespace tailrace
