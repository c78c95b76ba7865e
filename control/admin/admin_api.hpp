// control/admin/admin_api.hpp - the JSON API behind the command line, served on the Unix socket.
#pragma once
#include "base/io/http.hpp"
#include "control/routes/route_health.hpp"
#include "control/tailnet/tailnet_state.hpp"

#include <string>

namespace tailrace {

/// What the API needs of the server that it is part of.
class AdminBackend {
public:
    virtual ~AdminBackend() = default;
    virtual TailnetState& tailnet() = 0;
    virtual const TailnetState& tailnet() const = 0;
    /// Of a router that shares a route with another; nothing for others.
    virtual std::optional<RouteHealth::State> route_state(NodeId id) const = 0;
    /// For whom a router of this route carries it: codes of regions and "others", or "everybody"; empty for a standby.
    virtual std::vector<std::string> carries_for(NodeId id, const IpPrefix& route) const = 0;
    /// Writes what changed and tells the clients; an error means that nothing has happened.
    virtual Task<Result<void>> commit() = 0;
    /// Done when what follows from changes before is in force: who is primary, say.
    virtual Task<void> settled() = 0;
    /// The policy in force; "" when there is none (everybody may reach everybody).
    virtual std::string policy_text() const = 0;
    /// Refused with line and column when it has an error, and when the policy lives in a file.
    virtual Task<Result<void>> set_policy(std::string text) = 0;
};

/// Answers one request. Who may ask has been checked before (peer credentials of the socket).
///
///   GET|POST /v1/users        DELETE /v1/users/NAME        POST /v1/users/NAME/role
///   GET|POST /v1/keys         POST /v1/keys/ID/revoke
///   GET|POST /v1/oauth-clients                             POST /v1/oauth-clients/ID/revoke
///   GET /v1/nodes[/WHICH]     POST /v1/nodes/WHICH/{expire,rename,tag}, /v1/nodes/register   DELETE /v1/nodes/WHICH
///   GET /v1/routes, /v1/nodes/WHICH/routes           POST /v1/nodes/WHICH/{approve-routes,revoke-routes}
///   GET|POST /v1/nodes/WHICH/attributes
///   GET|POST /v1/services     POST /v1/services/NAME/{approve,revoke}                DELETE /v1/services/NAME
///   GET|PUT /v1/policy        GET /v1/policy/tailnet (what policies are applied to)
///
/// WHICH is an id, a name, an address or a node key. Errors are {"error": "a sentence"}.
Task<HttpResponse> answer_admin(AdminBackend& backend, HttpRequest request);

} // namespace tailrace
