// agent/cli/risk.hpp - asks before somebody cuts off the connection that they work through.
#pragma once
#include <string>

namespace tailrace::cli {

/// Whether a session with this SSH_CLIENT ("ADDRESS PORT PORT") comes through the tailnet.
bool comes_by_tailnet(const std::string& ssh_client);

/// True when nothing is at risk or `accepted` ("all", or a list with lose-ssh) says so; else what the person at the
/// terminal answers, and false when there is none. "aborted, no changes made" is told here.
bool may_cut_ssh(const std::string& accepted);

} // namespace tailrace::cli
