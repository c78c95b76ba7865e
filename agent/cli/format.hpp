// agent/cli/format.hpp - what the command line prints, as text. Layout of the reference client (cli-localapi.md 4, 5).
#pragma once
#include "agent/local/status.hpp"
#include "base/result.hpp"

#include <boost/json/fwd.hpp>

#include <string>
#include <string_view>

namespace tailrace::cli {

struct StatusOptions {
    bool active_only = false;
    bool self = true;
    bool peers = true;
    bool header = false;
};
/// The table and what follows it. For Running and Starting only.
std::string status_table(const Status& status, const StatusOptions& options, const WallTime& now);
/// The program and the agent should come from one package. "" when they do, or the agent does not say.
std::string version_skew_text(std::string_view ours, std::string_view theirs);
/// What to do about a machine that waits for approval.
std::string how_to_approve(const PeerStatus& self);
/// The one text for every other state: "Logged out.".
std::string not_running_text(const Status& status);

std::string ping_line(const PingResult& result, std::string_view type);
/// "35ms", rounded as the reference client does.
std::string latency_text(double seconds);
/// Text of `whois`, from the local API's JSON.
Result<std::string> whois_text(std::string_view json);
/// A whole command with every "tskey-..." made unreadable.
std::string scrub_auth_keys(std::string_view text);
/// Quoted for a shell where needed.
std::string shell_quote(std::string_view text);
/// "offline, last seen 3d ago"
std::string offline_text(const PeerStatus& peer, const WallTime& now);
/// Whether that is its full or its short name.
bool is_named(const PeerStatus& peer, std::string_view name);
/// A member that is text, without what could move the cursor, for it may come from another machine; else "".
std::string text_of(const boost::json::object& object, const char* name);
/// "line 23", "lines 23 and 40": its member PolicyLines; "" where there is none.
std::string policy_lines_text(const boost::json::object& object);
/// The peer that a person called `name`: an address, a short name, or a full name.
Result<const PeerStatus*> find_peer(const Status& status, std::string_view name);
/// Of a service that this node may reach, "svc:web", "web" or with the tailnet's domain behind it; empty: it knows
/// none.
std::vector<IpAddress> addresses_of_service(const Status& status, std::string_view name);

} // namespace tailrace::cli
