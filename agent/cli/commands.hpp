// agent/cli/commands.hpp - what each subcommand of `tailrace` does. Each gives the exit status.
#pragma once
#include "agent/app_connector/app_connector.hpp"
#include "agent/cli/format.hpp"
#include "agent/cli/local_client.hpp"
#include "agent/cli/pref_flags.hpp"
#include "agent/doctor/examine.hpp"
#include "proto/control/dns.hpp"

#include <chrono>
#include <string>
#include <utility>
#include <vector>

namespace tailrace::cli {

/// What the agent answers to a GET: as JSON with this indent, or, where that is empty, as `for_people` says it.
Task<int> show_answer(LocalClient& client, std::string target, std::string json_indent,
                      Result<std::string> (*for_people)(std::string_view));

struct UpOptions {
    GivenFlags given;
    std::vector<std::pair<std::string, std::string>> other_flags; ///< name and text as given, for the suggestion
    std::string auth_key;
    std::string accepted_risks;
    bool json = false;
    bool reset = false;
    bool force_reauth = false;
    Duration timeout{}; ///< 0: for ever
};
Task<int> up(LocalClient& client, UpOptions options);
Task<int> down(LocalClient& client, std::string accepted_risks);
Task<int> set(LocalClient& client, GivenFlags given);
struct GetCommand {
    std::string name; ///< of one setting; "" or "all": every one
    bool json = false, set_flags = false;
};
Task<int> get(LocalClient& client, GetCommand command);
Result<std::string> settings_text(const Prefs& prefs, const GetCommand& command);
Task<int> logout(LocalClient& client);

struct StatusCommand {
    bool json = false;
    StatusOptions table;
};
Task<int> status(LocalClient& client, StatusCommand command);

struct IpCommand {
    bool one = false, v4 = false, v6 = false;
    std::string assert_ip, peer;
};
Task<int> ip(LocalClient& client, IpCommand command);

struct PingCommand {
    std::string target;
    std::string type = "disco"; ///< disco, TSMP, ICMP, peerapi
    int count = 10;             ///< 0: for ever
    Duration timeout = std::chrono::seconds{5};
    bool until_direct = true;
    bool verbose = false;
    int size_bytes = 0; ///< of a disco message; 0: as small as it is
};
Task<int> ping(LocalClient& client, PingCommand command);

struct NetcheckCommand {
    std::string format; ///< json, json-line, or nothing for people
    Duration every{};   ///< 0: once
    bool verbose = false;
};
Task<int> netcheck(LocalClient& client, NetcheckCommand command);
enum class NetcheckDetail { Usual, Families };
/// What it prints, from the agent's report and DERP map.
Result<std::string> netcheck_text(std::string_view report_json, std::string_view derp_map_json,
                                  NetcheckDetail detail = NetcheckDetail::Usual);
Task<int> dns_status(LocalClient& client, bool all, bool json);
Task<int> dns_query(LocalClient& client, std::string name, std::string type, bool json);
struct DnsStatus {
    Status status;
    Prefs prefs;
    wire::DnsConfig config;
    std::string os_json;    ///< of the agent
    std::string os_trouble; ///< why it is not there
};
Result<std::string> dns_status_text(const DnsStatus& facts, bool all);
Result<std::string> dns_status_json(const DnsStatus& facts);
/// What it prints, from the agent's answer.
Result<std::string> dns_query_text(const std::string& name, const std::string& type, std::string_view answer_json,
                                   bool json);
enum class AppConnectorView { Counts, Map, All, Number, Json };
Task<int> app_connector_routes(LocalClient& client, AppConnectorView view);
/// What it prints, but for the number.
std::string app_connector_text(const AppConnectorRoutes& routes, AppConnectorView view);
Task<int> whois(LocalClient& client, std::string address, std::string protocol, bool json);
Task<int> version(LocalClient& client, bool daemon, bool json);

Task<int> debug_drops(LocalClient& client, bool json);
Task<int> debug_follow_drops(LocalClient& client, bool json); ///< until somebody ends it
/// Flows and what they move, anew each second; `once`: what the first second brings.
Task<int> debug_top(LocalClient& client, bool json, bool once);
Task<int> metrics(LocalClient& client, std::string file); ///< "": prints them
/// `source`: an address or a name; `destination`: one with ":PORT" and "/PROTO" as wanted.
Task<int> debug_explain(LocalClient& client, std::string source, std::string destination, bool json);
Task<int> debug_paths(LocalClient& client, std::string peer, bool json);
Task<int> debug_peer_relay_sessions(LocalClient& client, bool json);
Task<int> debug_capture(LocalClient& client, bool json); ///< until somebody ends it
/// What they print, from the agent's JSON.
Result<std::string> explanation_text(std::string_view json);
Result<std::string> paths_text(std::string_view json);
Result<std::string> peer_relay_sessions_text(std::string_view json);
Result<std::string> flows_text(std::string_view json, std::size_t most);
Result<std::string> drop_text(std::string_view json); ///< "" for a line that says nothing
std::string bytes_text(double bytes);                 ///< "1.5kB"
Result<std::string> disco_frame_text(std::string_view line);
Task<int> debug_json(LocalClient& client, std::string target); ///< pretty-prints what a GET gives
Task<int> debug_localapi(LocalClient& client, std::string method, std::string target, std::string body);
/// A 4via6 route for a site and an IPv4 prefix, or the other way.
Result<std::string> via_text(const std::vector<std::string>& words);
Task<int> doctor(LocalClient& client, bool json); ///< 0: all is well, 1: warnings, 2: errors; needs no agent
Task<std::vector<Finding>> doctor_findings(LocalClient& client);
/// Into a file, "-" for standard output, or one with the time in its name. Needs no agent.
Task<int> bugreport(LocalClient& client, std::string output);
Task<int> config_check_command(std::string file, bool json_wanted); ///< needs no agent
Task<int> wait_until_running(LocalClient& client, Duration timeout);

int fail(std::string_view message);

} // namespace tailrace::cli
