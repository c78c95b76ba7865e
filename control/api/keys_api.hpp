// control/api/keys_api.hpp - the keys of a tailnet, by the public API (admin-api.md 6).
#pragma once
#include "control/api/api.hpp"

namespace tailrace {

/// POST keys, for whoever has this grant.
Api::Answer create_key_by_api(TailnetState& tailnet, WallTime now, const AccessGrant& grant, std::string_view body);

} // namespace tailrace
