// policy/tailnet_json.hpp - a tailnet as a file, so that a policy can be judged away from its server.
#pragma once
#include "base/result.hpp"
#include "policy/tailnet.hpp"

#include <string>
#include <string_view>

namespace tailrace {

/// {"domain": "example.com",
///  "users": [{"id": 1, "login": "alice@example.com", "role": "owner"}],
///  "nodes": [{"id": 1, "name": "laptop", "user": "alice@example.com", "tags": [], "addresses": ["100.64.0.1"],
///             "routes": ["10.0.0.0/8"], "primaries": ["10.0.0.0/8"], "online": true, "appConnector": false,
///             "attributes": {"node:os": "linux"}}],
///  "services": [{"name": "svc:web", "addresses": ["100.64.0.9"], "ports": ["443", "8000-8010"]}]}
std::string tailnet_json(const Tailnet& tailnet);

/// The same back. IDs may be left out, and nodes may name users that are not listed; who has the
/// addresses of a service among its routes hosts it; primaries are chosen where none
/// are named. HuJSON is welcome. Errors name the place in the file and what is wanted there.
Result<Tailnet> parse_tailnet(std::string_view text);

} // namespace tailrace
