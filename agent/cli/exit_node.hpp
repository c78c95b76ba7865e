// agent/cli/exit_node.hpp - choosing an exit node on the command line.
#pragma once
#include "agent/cli/local_client.hpp"

#include <string>

namespace tailrace::cli {

/// Puts the node that `--exit-node=VALUE` names into the preferences. Before the agent runs an address is taken as it
/// is.
Result<void> choose_exit_node(Prefs& prefs, const std::string& value, const Status& status);

/// People know a node by its address rather than by its StableID.
Prefs with_exit_node_shown(Prefs prefs, const Status& status);

/// On again, the one that was used last; or off.
Task<int> use_exit_node(LocalClient& client, bool enabled);
Task<int> exit_node_list(LocalClient& client, std::string country, bool json_wanted);
Task<int> exit_node_suggest(LocalClient& client, bool json_wanted);
/// What `exit-node list` prints; an error when there is nothing to list.
Result<std::string> exit_node_table(const Status& status, const std::string& country, const WallTime& now);
/// All of them as JSON, for programs: nothing to list is an empty list.
std::string exit_node_json(const Status& status, const std::string& country);

} // namespace tailrace::cli
