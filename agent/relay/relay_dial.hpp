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

/// Over which family a node may be dialled, and where: a literal address, or a name that DNS knows.
struct RelayDoor {
    bool v6 = false;
    bool literal = false;
    std::string host;
    bool operator==(const RelayDoor&) const = default;
};
/// IPv4 first. A family is literal where the map has its address, asked of DNS where the map has nothing, and left out
/// where the map has something else, such as "none". Pure.
std::vector<RelayDoor> relay_doors(const wire::DerpNode& node);

/// How long each door waits until it is tried, unless another fails before. Pure. IPv6 goes first where it is known to
/// work, else an address before a name, which costs a look-up.
std::vector<Duration> head_starts(const std::vector<RelayDoor>& doors, bool v6_works);

struct RelayDialOptions {
    Duration limit = std::chrono::seconds{5}; ///< for connection and TLS; the connection alone has 1.5 s
    bool v6_works = false;                    ///< the last look at the network has seen so
};
/// The families race; or a proxy does it, where HTTPS_PROXY names one. `mark`: SO_MARK, but not towards ourselves.
Task<Result<std::unique_ptr<Stream>>> dial_relay_node(Reactor& reactor, wire::DerpNode node, std::uint32_t mark,
                                                      RelayDialOptions options = {});

/// The key that a relay names in its meta-certificate, when we may rely on it: we need not wait for it then
/// (derp-disco-paths.md 1.2, fast start). Pure.
std::optional<NodeKey> key_in_certificates(const TlsPeer& peer);

} // namespace tailrace
