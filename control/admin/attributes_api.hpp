// control/admin/attributes_api.hpp - the part of the admin API that is about posture attributes.
#pragma once
#include "control/admin/admin_api.hpp"
#include "control/admin/messages.hpp"

#include <vector>

namespace tailrace {

/// What policies may ask about the node, by name.
std::vector<admin::AttributeInfo> describe_attributes(const Node& node);
/// Sets and takes away, and answers with describe_attributes().
Task<HttpResponse> change_attributes(AdminBackend& backend, NodeId id, std::string body);

} // namespace tailrace
