// tailrace - the command line of the agent.
#include "agent/cli/commands.hpp"
#include "agent/cli/exit_node.hpp"
#include "agent/config/config.hpp"
#include "base/cli/docs.hpp"
#include "base/cli/mistakes.hpp"
#include "base/io/reactor.hpp"
#include "base/text.hpp"
#include "proto/disco.hpp"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <set>

namespace {

using namespace tailrace;
using namespace tailrace::cli;

/// Go's flag spelling: -flag for --flag, and two old names.
std::vector<std::string> rewrite(int argc, char** argv) {
    std::vector<std::string> out;
    bool flags = true;
    for (int i = 1; i < argc; ++i) {
        std::string argument = argv[i];
        if (argument == "--") flags = false;
        if (flags && argument.size() > 2 && argument[0] == '-' && argument[1] != '-') argument = "-" + argument;
        if (flags && argument.starts_with("--authkey") && (argument.size() == 9 || argument[9] == '='))
            argument = "--auth-key" + argument.substr(9);
        if (flags && argument.starts_with("--") && argument.ends_with('=')) { // an empty value is one, too
            out.push_back(argument.substr(0, argument.size() - 1));
            out.emplace_back();
            continue;
        }
        out.push_back(argument);
    }
    if (out.size() == 1 && (out[0] == "-V" || out[0] == "--version")) out[0] = "version";
    if (out.size() == 1 && out[0] == "help") out[0] = "--help";
    return out;
}

/// A flag given twice, or "".
std::string repeated_flag(const std::vector<std::string>& arguments) {
    std::set<std::string> seen;
    for (const std::string& argument : arguments) {
        if (argument == "--") break;
        if (!argument.starts_with('-') || argument.size() < 2) continue;
        std::string name = argument.substr(0, argument.find('='));
        if (!seen.insert(name).second) return name;
    }
    return "";
}

std::vector<std::pair<std::string, std::string>> other_flags(const CLI::App& up) {
    std::vector<std::pair<std::string, std::string>> out;
    for (const char* name : {"auth-key", "timeout", "json", "force-reauth"}) {
        const CLI::Option* option = up.get_option_no_throw("--" + std::string{name});
        if (option == nullptr || option->count() == 0) continue;
        std::string value = option->results().empty() ? "" : option->results().front();
        out.emplace_back(name, value.empty() || value == "true" ? fmt::format("--{}", name)
                                                                : fmt::format("--{}={}", name, shell_quote(value)));
    }
    return out;
}

int run(Reactor& reactor, std::function<Task<int>()> command) {
    int status = 1;
    auto body = [](std::function<Task<int>()> what, Reactor& loop, int& out) -> Task<void> {
        auto task = what();
        out = co_await std::move(task);
        loop.stop();
    };
    spawn(reactor, "command", body(std::move(command), reactor, status));
    reactor.run();
    std::fflush(stdout);
    return status;
}

} // namespace

int main(int argc, char** argv) {
    std::vector<std::string> arguments = rewrite(argc, argv);
    CLI::App app{"Drives tailraced, which joins this machine to a tailnet.", "tailrace"};
    app.require_subcommand(1);
    std::string socket = "/run/tailrace/tailraced.sock";
    if (const char* from_environment = std::getenv("TAILRACE_SOCKET")) socket = from_environment;
    app.add_option("--socket", socket, "path to tailraced's socket");

    Reactor reactor;
    std::function<Task<int>(LocalClient&)> command;

    UpOptions up_options;
    std::string timeout_text, accept_risk;
    auto* up_command = app.add_subcommand("up", "Connect to the tailnet, logging in if needed");
    add_pref_flags(*up_command, PrefFlag::Where::UpOnly, up_options.given);
    up_command->add_option("--auth-key", up_options.auth_key,
                           "node authorization key, or an OAuth client's secret that makes one; \"file:PATH\" reads "
                           "it from a file");
    up_command->add_option("--timeout", timeout_text,
                           "maximum time to wait for the agent to enter a Running state (0s: forever)");
    up_command->add_option("--accept-risk", accept_risk, "accept risk and skip confirmation");
    up_command->add_flag("--json", up_options.json, "output in JSON format");
    up_command->add_flag("--reset", up_options.reset, "reset unspecified settings to their default values");
    up_command->add_flag("--force-reauth", up_options.force_reauth, "force reauthentication");
    up_command->callback([&] {
        if (!timeout_text.empty()) {
            auto timeout = timeout_text == "0" ? Result<Duration>{Duration{}} : parse_duration(timeout_text);
            if (!timeout) throw CLI::ValidationError("--timeout", timeout.error().message());
            up_options.timeout = *timeout;
        }
        up_options.accepted_risks = accept_risk;
        up_options.other_flags = other_flags(*up_command);
        command = [&](LocalClient& client) { return up(client, up_options); };
    });

    auto* down_command = app.add_subcommand("down", "Disconnect from the tailnet");
    std::string reason;
    down_command->add_option("--reason", reason, "why, for the records");
    down_command->add_option("--accept-risk", accept_risk, "accept risk and skip confirmation");
    down_command->callback([&] { command = [&](LocalClient& client) { return down(client, accept_risk); }; });

    GivenFlags set_given;
    auto* set_command = app.add_subcommand("set", "Change specified preferences");
    add_pref_flags(*set_command, PrefFlag::Where::SetOnly, set_given);
    set_command->add_option("--accept-risk", accept_risk, "accept risk and skip confirmation");
    set_command->callback([&] {
        if (set_given.empty()) {
            fmt::print("{}", set_command->help("tailrace"));
            std::exit(0);
        }
        command = [&](LocalClient& client) { return cli::set(client, set_given); };
    });

    GetCommand get_options;
    auto* get_command = app.add_subcommand("get", "Show preferences, by the names of the flags of \"set\"");
    get_command->add_flag("--json", get_options.json, "output in JSON format");
    get_command->add_flag("--set-flags", get_options.set_flags, "output as flags of \"tailrace set\"");
    get_command->add_option("setting", get_options.name, "name of one, or all");
    get_command->callback([&] { command = [&](LocalClient& client) { return get(client, get_options); }; });

    auto* logout_command = app.add_subcommand("logout", "Disconnect from the tailnet and expire the node key");
    logout_command->add_option("--reason", reason, "why, for the records");
    logout_command->callback([&] { command = [](LocalClient& client) { return logout(client); }; });

    StatusCommand status_options;
    auto* status_command = app.add_subcommand("status", "Show the state of tailraced and its connections");
    status_command->add_flag("--json", status_options.json, "output in JSON format");
    status_command->add_flag("--active", status_options.table.active_only, "only peers with active sessions");
    status_command->add_flag("--self", status_options.table.self, "show this machine");
    status_command->add_flag("--peers", status_options.table.peers, "show peers");
    status_command->add_flag("--header", status_options.table.header, "show column headers");
    status_command->callback([&] { command = [&](LocalClient& client) { return status(client, status_options); }; });

    IpCommand ip_options;
    auto* ip_command = app.add_subcommand("ip", "Show tailnet IP addresses");
    ip_command->add_flag("-1,--1", ip_options.one, "only print one IP address");
    ip_command->add_flag("-4,--4", ip_options.v4, "only print the IPv4 address");
    ip_command->add_flag("-6,--6", ip_options.v6, "only print the IPv6 address");
    ip_command->add_option("--assert", ip_options.assert_ip, "assert that one of the node's addresses is this one");
    ip_command->add_option("peer", ip_options.peer, "of a peer, or of a service that this node may reach");
    ip_command->callback([&] { command = [&](LocalClient& client) { return ip(client, ip_options); }; });

    PingCommand ping_options;
    bool tsmp = false, icmp = false, peer_api = false;
    std::string ping_timeout;
    auto* ping_command = app.add_subcommand("ping", "Ping a host inside the tailnet and see how it is reached");
    ping_command->add_option("-c,--c", ping_options.count, "maximum number of pings (0: forever)");
    ping_command->add_option("--timeout", ping_timeout, "timeout of one ping");
    ping_command->add_flag("--until-direct", ping_options.until_direct, "stop once a direct path is established");
    ping_command->add_flag("--tsmp", tsmp, "ping through the tunnel, answered by the other agent");
    ping_command->add_flag("--icmp", icmp, "ping through the tunnel, answered by the other host");
    ping_command->add_flag("--peerapi", peer_api, "ask the other agent's peer API over HTTP");
    ping_command->add_flag("--verbose", ping_options.verbose, "say which address a name has");
    ping_command
        ->add_option("--size", ping_options.size_bytes,
                     "bytes of the message, sent in one piece: a path that carries none so large times out; not "
                     "with --tsmp, --icmp or --peerapi")
        ->check(CLI::Range(0, kLargestDiscoPing));
    ping_command->add_option("host", ping_options.target, "host name or IP address")->required();
    ping_command->callback([&] {
        if (!ping_timeout.empty()) {
            auto parsed = parse_duration(ping_timeout);
            if (!parsed) throw CLI::ValidationError("--timeout", parsed.error().message());
            ping_options.timeout = *parsed;
        }
        if (ping_options.size_bytes != 0 && (tsmp || icmp || peer_api))
            throw CLI::ValidationError("--size", "it is for pings of path discovery only");
        ping_options.type = tsmp ? "TSMP" : icmp ? "ICMP" : peer_api ? "peerapi" : "disco";
        command = [&](LocalClient& client) { return ping(client, ping_options); };
    });

    NetcheckCommand netcheck_options;
    std::string netcheck_every;
    auto* netcheck_command = app.add_subcommand("netcheck", "Analyse the network that we are in");
    netcheck_command->add_option("--format", netcheck_options.format, "json, json-line, or nothing for people")
        ->check(CLI::IsMember({"json", "json-line", ""}));
    netcheck_command->add_option("--every", netcheck_every, "again and again, at this interval");
    netcheck_command->add_flag("--verbose", netcheck_options.verbose, "also the latencies by IPv4 and by IPv6");
    netcheck_command->callback([&] {
        if (!netcheck_every.empty()) {
            auto parsed = parse_duration(netcheck_every);
            if (!parsed) throw CLI::ValidationError("--every", parsed.error().message());
            if (*parsed <= Duration{}) throw CLI::ValidationError("--every", "an interval is longer than nothing");
            netcheck_options.every = *parsed;
        }
        command = [&](LocalClient& client) { return netcheck(client, netcheck_options); };
    });

    auto* exit_node = app.add_subcommand("exit-node", "The nodes that carry others' internet traffic");
    exit_node->require_subcommand(1);
    std::string exit_node_country;
    bool exit_node_json = false;
    auto* exit_node_list_command = exit_node->add_subcommand("list", "Show exit nodes");
    exit_node_list_command->add_option("--filter", exit_node_country, "only those of a country");
    exit_node_list_command->add_flag("--json", exit_node_json, "output in JSON format");
    exit_node_list_command->callback([&] {
        command = [&](LocalClient& client) { return exit_node_list(client, exit_node_country, exit_node_json); };
    });
    auto* exit_node_suggest_command = exit_node->add_subcommand("suggest", "Suggest the best one for this node");
    exit_node_suggest_command->add_flag("--json", exit_node_json, "output in JSON format");
    exit_node_suggest_command->callback(
        [&] { command = [&](LocalClient& client) { return exit_node_suggest(client, exit_node_json); }; });

    exit_node->add_subcommand("connect", "Use the exit node again that was used last")->callback([&] {
        command = [](LocalClient& client) { return use_exit_node(client, true); };
    });
    exit_node->add_subcommand("disconnect", "Use none, and remember which it was")->callback([&] {
        command = [](LocalClient& client) { return use_exit_node(client, false); };
    });

    auto* dns = app.add_subcommand("dns", "How names are looked up");
    dns->require_subcommand(1);
    bool dns_all = false, dns_json = false;
    std::string dns_name, dns_type = "a";
    auto* dns_status_command = dns->add_subcommand("status", "Show how names are looked up, and by whom");
    dns_status_command->add_flag("--all", dns_all, "also what matters to few");
    dns_status_command->add_flag("--json", dns_json, "output in JSON format");
    dns_status_command->callback(
        [&] { command = [&](LocalClient& client) { return dns_status(client, dns_all, dns_json); }; });
    auto* dns_query_command =
        dns->add_subcommand("query", "Ask the agent for a name, as the programs of this machine do");
    dns_query_command->add_flag("--json", dns_json, "output in JSON format");
    dns_query_command->add_option("name", dns_name, "the name")->required();
    dns_query_command->add_option("type", dns_type, "of records: a, aaaa, ptr, txt, ..., type65");
    dns_query_command->callback(
        [&] { command = [&](LocalClient& client) { return dns_query(client, dns_name, dns_type, dns_json); }; });

    bool connector_all = false, connector_map = false, connector_number = false, connector_json = false;
    auto* connector_command = app.add_subcommand("appc-routes", "Show the routes of this app connector");
    connector_command->add_flag("--all", connector_all, "learned names and addresses, and the routes of the policy");
    connector_command->add_flag("--map", connector_map, "learned names and addresses, as JSON");
    connector_command->add_flag("-n,--n", connector_number,
                                "how many routes this node advertises, whatever they are for");
    connector_command->add_flag("--json", connector_json, "all of it in JSON format; null when this is no connector");
    connector_command->callback([&] {
        auto view = connector_json     ? AppConnectorView::Json
                    : connector_number ? AppConnectorView::Number
                    : connector_map    ? AppConnectorView::Map
                    : connector_all    ? AppConnectorView::All
                                       : AppConnectorView::Counts;
        command = [view](LocalClient& client) { return app_connector_routes(client, view); };
    });

    std::string whois_address, whois_protocol;
    bool whois_json = false;
    auto* whois_command = app.add_subcommand("whois", "Show the machine and user behind a tailnet IP");
    whois_command->add_flag("--json", whois_json, "output in JSON format");
    whois_command->add_option("--proto", whois_protocol, "tcp or udp");
    whois_command->add_option("address", whois_address, "ip[:port]")->required();
    whois_command->callback([&] {
        command = [&](LocalClient& client) { return whois(client, whois_address, whois_protocol, whois_json); };
    });

    bool version_daemon = false, version_json = false;
    auto* version_command = app.add_subcommand("version", "Print the version");
    version_command->add_flag("--daemon", version_daemon, "also print the agent's version");
    version_command->add_flag("--json", version_json, "output in JSON format");
    version_command->callback(
        [&] { command = [&](LocalClient& client) { return version(client, version_daemon, version_json); }; });

    std::string wait_timeout;
    auto* wait_command = app.add_subcommand("wait", "Wait until the tailnet is usable");
    wait_command->add_option("--timeout", wait_timeout, "how long (0: forever)");
    wait_command->callback([&] {
        Duration timeout{};
        if (!wait_timeout.empty() && wait_timeout != "0") {
            auto parsed = parse_duration(wait_timeout);
            if (!parsed) throw CLI::ValidationError("--timeout", parsed.error().message());
            timeout = *parsed;
        }
        command = [timeout](LocalClient& client) { return wait_until_running(client, timeout); };
    });

    std::string metrics_file;
    auto* metrics_command = app.add_subcommand("metrics", "Metrics of tailraced, as Prometheus reads them");
    metrics_command->require_subcommand(0, 1);
    metrics_command->add_subcommand("print", "Print them");
    metrics_command->add_subcommand("write", "Write them to a file, for a node exporter")
        ->add_option("file", metrics_file, "path of the file, which is replaced")
        ->required();
    metrics_command->callback(
        [&] { command = [&](LocalClient& client) { return cli::metrics(client, metrics_file); }; });
    bool doctor_json = false;
    auto* doctor_command =
        app.add_subcommand("doctor", "Look for what is wrong with this machine, and say how it is cured");
    doctor_command->add_flag("--json", doctor_json, "output in JSON format");
    doctor_command->callback([&] { command = [&](LocalClient& client) { return doctor(client, doctor_json); }; });
    std::string report_file;
    auto* report_command =
        app.add_subcommand("bugreport", "Collect what helps somebody else to find a fault, without secrets");
    report_command->add_option("--output,-o", report_file,
                               "the file to write, - for standard output; a name with host and time if none is given");
    report_command->callback([&] { command = [&](LocalClient& client) { return bugreport(client, report_file); }; });

    std::string config_file = kAgentConfigFile;
    auto* config_command = app.add_subcommand("config", "The configuration file of tailraced");
    config_command->require_subcommand(1);
    auto* config_check =
        config_command->add_subcommand("check", "Say what a configuration file declares, or what is wrong with it");
    config_check->add_option("file", config_file, "the file, /etc/tailrace/tailraced.yaml if none is named");
    bool config_json = false;
    config_check->add_flag("--json", config_json, "output in JSON format");
    config_check->callback(
        [&] { command = [&](LocalClient&) { return config_check_command(config_file, config_json); }; });

    auto* debug = app.add_subcommand("debug", "Look inside");
    debug->require_subcommand(1);
    bool drops_json = false, drops_follow = false;
    auto* drops = debug->add_subcommand("drops", "Packets passed and dropped, by reason");
    drops->add_flag("--json", drops_json, "output in JSON format");
    drops->add_flag("--follow", drops_follow, "single drops as they happen, by whom and why (a sample when many)");
    drops->callback([&] {
        command = [&](LocalClient& client) {
            return drops_follow ? debug_follow_drops(client, drops_json) : debug_drops(client, drops_json);
        };
    });
    bool top_json = false, top_once = false;
    auto* top = debug->add_subcommand("top", "The flows that move most, live");
    top->add_flag("--json", top_json, "a JSON object a line, each second");
    top->add_flag("--once", top_once, "what one second brings, then end");
    top->callback([&] { command = [&](LocalClient& client) { return debug_top(client, top_json, top_once); }; });
    std::string explain_source, explain_destination;
    bool explain_json = false;
    auto* explain =
        debug->add_subcommand("explain", "What the packet filter in force does with such a packet, and why");
    explain->add_flag("--json", explain_json, "output in JSON format");
    explain->add_option("source", explain_source, "name of a peer, or an address")->required();
    explain
        ->add_option("destination", explain_destination,
                     "name of this node, or an address here or behind us, then :PORT, /PROTO (tcp, udp, sctp, icmp)")
        ->required();
    explain->callback([&] {
        command = [&](LocalClient& client) {
            return debug_explain(client, explain_source, explain_destination, explain_json);
        };
    });
    bool always_json = true;
    auto add_json = [&](const char* name, const char* help, const char* target) {
        auto* sub = debug->add_subcommand(name, help);
        sub->add_flag("--pretty,--json", always_json, "accepted, always on");
        sub->callback(
            [&command, target] { command = [target](LocalClient& client) { return debug_json(client, target); }; });
    };
    add_json("filter", "The rules in force", "/localapi/v0/debug-packet-filter-rules");
    add_json("prefs", "The preferences", "/localapi/v0/prefs");
    add_json("netmap", "The network map", "/localapi/v0/debug-netmap");
    add_json("derp-map", "The relay map", "/localapi/v0/derpmap");
    std::string paths_peer;
    bool paths_json = false, capture_json = false, sessions_json = false;
    auto* paths = debug->add_subcommand("paths", "How each peer is reached, or one, and why");
    paths->add_option("peer", paths_peer, "host name or IP");
    paths->add_flag("--json", paths_json, "output in JSON format");
    paths->callback(
        [&] { command = [&](LocalClient& client) { return debug_paths(client, paths_peer, paths_json); }; });
    auto* sessions = debug->add_subcommand("peer-relay-sessions", "Whom this node relays UDP for");
    sessions->add_flag("--json", sessions_json, "output in JSON format");
    sessions->callback(
        [&] { command = [&](LocalClient& client) { return debug_peer_relay_sessions(client, sessions_json); }; });
    auto* capture = debug->add_subcommand("capture", "Path discovery as it happens, opened, a message a line");
    capture->add_flag("--json", capture_json, "a JSON object a line");
    capture->callback([&] { command = [&](LocalClient& client) { return debug_capture(client, capture_json); }; });
    std::vector<std::string> via_words;
    auto* via = debug->add_subcommand("via", "Convert between an IPv4 network at a site and its 4via6 route");
    via->add_option("words", via_words, "SITE-ID IPV4-CIDR, or a 4via6 route")->required();
    via->callback([&] {
        command = [&](LocalClient&) -> Task<int> {
            auto text = cli::via_text(via_words);
            if (!text) co_return fail(text.error().message());
            fmt::print("{}", *text);
            co_return 0;
        };
    });
    std::string api_method, api_target, api_body;
    auto* api = debug->add_subcommand("localapi", "Call the local API: [METHOD] PATH [BODY]");
    std::vector<std::string> api_arguments;
    api->add_option("arguments", api_arguments)->required();
    api->callback([&] {
        std::size_t at = 0;
        api_method = "GET";
        if (api_arguments.size() > 1 && api_arguments[0].find('/') == std::string::npos &&
            to_lower(api_arguments[0]) != api_arguments[0])
            api_method = api_arguments[at++];
        api_target = api_arguments[at++];
        if (at < api_arguments.size()) api_body = api_arguments[at];
        command = [&](LocalClient& client) { return debug_localapi(client, api_method, api_target, api_body); };
    });

    if (wants_command_docs(argc, argv)) {
        fmt::print("{}\n", command_docs(app));
        return 0;
    }
    if (std::string twice = repeated_flag(arguments); !twice.empty()) {
        fmt::print(stderr, "flag provided multiple times: {}\n", twice);
        return 2;
    }
    try {
        std::vector<std::string> reversed{arguments.rbegin(), arguments.rend()};
        app.parse(reversed);
    } catch (const CLI::CallForHelp& help) {
        return app.exit(help);
    } catch (const CLI::CallForAllHelp& help) {
        return app.exit(help);
    } catch (const CLI::ExtrasError& error) {
        bool unknown_flag = std::string_view{error.what()}.find(": -") != std::string_view::npos;
        fmt::print(stderr, "{}\n", scrub_auth_keys(error.what()));
        return unknown_flag ? 2 : 1;
    } catch (const CLI::RequiredError& error) {
        if (arguments.empty()) {
            fmt::print("{}", app.help());
            return 1;
        }
        std::string mistake = subcommand_mistake(app, arguments);
        fmt::print(stderr, "{}\n", scrub_auth_keys(mistake.empty() ? error.what() : mistake));
        return 1;
    } catch (const CLI::ParseError& error) {
        fmt::print(stderr, "{}\n", scrub_auth_keys(error.what()));
        return 2;
    }
    if (!command) return 1;
    LocalClient client{reactor, socket};
    client.say_why(reason);
    return run(reactor, [&] { return command(client); });
}
