// control/admin/routes_api.hpp - the part of the admin API about routes.
#pragma once
#include "control/admin/admin_api.hpp"
#include "control/admin/messages.hpp"

#include <string>
#include <vector>

namespace tailrace {

/// Every route that the node offers, or that somebody has decided about, in order.
std::vector<admin::RouteInfo> describe_routes(const AdminBackend& backend, const Node& node);
/// "approve-routes" or "revoke-routes" with {"routes": [...], "all": bool}; the answer lists the node's routes.
Task<HttpResponse> change_routes(AdminBackend& backend, NodeId id, std::string verb, std::string body);

} // namespace tailrace
