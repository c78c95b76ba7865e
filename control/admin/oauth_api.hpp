// control/admin/oauth_api.hpp - the part of the admin API about OAuth clients.
#pragma once
#include "control/admin/admin_api.hpp"

#include <string>

namespace tailrace {

/// GET|POST /v1/oauth-clients and POST /v1/oauth-clients/WHICH/revoke, where WHICH is an id or the public part.
Task<HttpResponse> answer_oauth_clients(AdminBackend& backend, HttpRequest request, std::string which,
                                        std::string verb);

} // namespace tailrace
