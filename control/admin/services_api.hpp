// control/admin/services_api.hpp - the part of the admin API about services.
#pragma once
#include "control/admin/admin_api.hpp"

#include <string>

namespace tailrace {

/// GET and POST all, DELETE one, and POST "approve" or "revoke" with {"node": WHICH}.
Task<HttpResponse> answer_services(AdminBackend& backend, HttpRequest request, std::string name, std::string verb);

} // namespace tailrace
