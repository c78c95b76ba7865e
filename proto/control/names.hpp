// proto/control/names.hpp - what nodes and services of a tailnet may be called. Pure. Source: admin-api.md 17,
// ssh-serve-peerapi.md 2.4.
#pragma once
#include "base/result.hpp"

#include <string_view>

namespace tailrace {

/// In small letters, as what somebody typed has to be. Source: RFC 1035 2.3.1, RFC 1123 2.1.
bool is_dns_label(std::string_view text);
/// "svc:" and a DNS label.
Result<void> check_service_name(std::string_view name);

} // namespace tailrace
