#include "agent/cli/pref_flags.hpp"
#include "agent/cli/format.hpp"
#include "agent/router/via6.hpp"
#include "base/text.hpp"
#include "proto/control/names.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <charconv>

namespace tailrace::cli {
namespace {

using Kind = PrefFlag::Kind;
using Where = PrefFlag::Where;

Result<bool> parse_bool(const std::string& text) {
    for (const char* yes : {"true", "1", "t", "T", "TRUE", "True"})
        if (text == yes) return true;
    for (const char* no : {"false", "0", "f", "F", "FALSE", "False"})
        if (text == no) return false;
    return Error::make("\"{}\" is neither true nor false", text);
}

Result<std::vector<IpPrefix>> parse_routes(const std::string& text) {
    std::vector<IpPrefix> routes;
    bool v4_default = false, v6_default = false;
    for (std::string_view piece : split(text, ',')) {
        piece = trim(piece);
        if (piece.empty()) continue;
        auto prefix = IpPrefix::parse(piece);
        if (!prefix) return Error::make("\"{}\" is not a valid IP address or CIDR prefix", piece);
        if (!prefix->is_masked())
            return Error::make("{} has non-address bits set; expected {}", prefix->text(), prefix->masked().text());
        if (auto good = check_via(*prefix); !good) return good.error();
        if (prefix->is_default()) (prefix->address().is_v4() ? v4_default : v6_default) = true;
        routes.push_back(*prefix);
    }
    if (v4_default != v6_default)
        return Error::make("{} advertised without its {} counterpart, please also advertise {}",
                           v4_default ? "0.0.0.0/0" : "::/0", v4_default ? "IPv6" : "IPv4",
                           v4_default ? "::/0" : "0.0.0.0/0");
    return routes;
}

void store_routes(Prefs& prefs, std::vector<IpPrefix> routes) {
    std::ranges::sort(routes, [](const IpPrefix& a, const IpPrefix& b) {
        return std::tuple{a.bits(), a.address()} < std::tuple{b.bits(), b.address()};
    });
    routes.erase(std::unique(routes.begin(), routes.end()), routes.end());
    if (routes.empty())
        prefs.advertise_routes.reset();
    else
        prefs.advertise_routes = std::move(routes);
}

std::vector<IpPrefix> subnet_routes(const Prefs& prefs) {
    auto routes = prefs.routes();
    std::erase_if(routes, [](const IpPrefix& route) { return route.is_default(); });
    return routes;
}

std::vector<IpPrefix> default_routes() {
    return {IpPrefix{IpAddress::v4(0), 0}, IpPrefix{IpAddress::v6({}), 0}};
}

std::string routes_text(const std::vector<IpPrefix>& routes) {
    std::vector<std::string> parts;
    for (const IpPrefix& route : routes) parts.push_back(route.text());
    return join(parts, ",");
}

template <bool Prefs::*Member>
Result<void> assign_bool(Prefs& prefs, const std::string& value) {
    auto parsed = parse_bool(value);
    if (!parsed) return parsed.error();
    prefs.*Member = *parsed;
    return {};
}
template <bool Prefs::*Member>
Result<void> assign_inverted(Prefs& prefs, const std::string& value) {
    auto parsed = parse_bool(value);
    if (!parsed) return parsed.error();
    prefs.*Member = !*parsed;
    return {};
}
template <std::string Prefs::*Member>
Result<void> assign_text(Prefs& prefs, const std::string& value) {
    prefs.*Member = value;
    return {};
}
template <bool Prefs::*Member>
std::string bool_value(const Prefs& prefs) {
    return prefs.*Member ? "true" : "false";
}
template <bool Prefs::*Member>
std::string inverted_value(const Prefs& prefs) {
    return prefs.*Member ? "false" : "true";
}
template <std::string Prefs::*Member>
std::string text_value(const Prefs& prefs) {
    return prefs.*Member;
}

Result<void> assign_exit_node(Prefs& prefs, const std::string& value) {
    prefs.exit_node_id.clear();
    prefs.exit_node_ip.clear();
    prefs.auto_exit_node.clear();
    if (value.empty()) return {};
    if (auto address = IpAddress::parse(value); address && address->valid())
        prefs.exit_node_ip = value;
    else
        prefs.exit_node_id = value; // a name, or auto:any; choose_exit_node() makes more of it
    return {};
}

const char* const kModes[] = {"off", "nodivert", "on"};

} // namespace

const std::vector<PrefFlag>& pref_flags() {
    static const std::vector<PrefFlag> flags = {
        {"login-server",
         Kind::Text,
         Where::UpOnly,
         {"ControlURL"},
         "base URL of the coordination server",
         [](Prefs& prefs, const std::string& value) -> Result<void> {
             std::string url = value;
             while (url.ends_with('/')) url.pop_back();
             if (!url.starts_with("http://") && !url.starts_with("https://"))
                 return Error::make("\"{}\" is not a URL that begins with http:// or https://", value);
             prefs.control_url = url;
             return {};
         },
         text_value<&Prefs::control_url>},
        {"accept-routes",
         Kind::Bool,
         Where::Both,
         {"RouteAll"},
         "accept routes that other nodes advertise",
         assign_bool<&Prefs::route_all>,
         bool_value<&Prefs::route_all>},
        {"routes-over-lan",
         Kind::Bool,
         Where::Both,
         {"RoutesOverLAN"},
         "accepted routes also win over networks that this host is attached to",
         assign_bool<&Prefs::routes_over_lan>,
         bool_value<&Prefs::routes_over_lan>},
        {"accept-dns",
         Kind::Bool,
         Where::Both,
         {"CorpDNS"},
         "look names up as the tailnet says: its own at tailraced, by /etc/resolv.conf",
         assign_bool<&Prefs::corp_dns>,
         bool_value<&Prefs::corp_dns>},
        {"exit-node",
         Kind::Text,
         Where::Both,
         {"ExitNodeID", "ExitNodeIP", "AutoExitNode"},
         "node (address or name) for internet traffic, auto:any for the best one, or empty string to not use one",
         assign_exit_node,
         [](const Prefs& prefs) {
             if (!prefs.auto_exit_node.empty()) return "auto:" + prefs.auto_exit_node;
             return prefs.exit_node_ip.empty() ? prefs.exit_node_id : prefs.exit_node_ip;
         }},
        {"exit-node-allow-lan-access",
         Kind::Bool,
         Where::Both,
         {"ExitNodeAllowLANAccess"},
         "reach the local network directly when traffic goes by an exit node",
         assign_bool<&Prefs::exit_node_allow_lan_access>,
         bool_value<&Prefs::exit_node_allow_lan_access>},
        {"shields-up",
         Kind::Bool,
         Where::Both,
         {"ShieldsUp"},
         "refuse incoming connections",
         assign_bool<&Prefs::shields_up>,
         bool_value<&Prefs::shields_up>},
        {"advertise-tags",
         Kind::Text,
         Where::UpOnly,
         {"AdvertiseTags"},
         "comma-separated tags to request; each must start with \"tag:\"",
         [](Prefs& prefs, const std::string& value) -> Result<void> {
             std::vector<std::string> tags;
             for (std::string_view piece : split(value, ',')) {
                 piece = trim(piece);
                 if (piece.empty()) continue;
                 tags.push_back(piece.find(':') == std::string_view::npos ? "tag:" + std::string{piece}
                                                                          : std::string{piece});
             }
             if (tags.empty())
                 prefs.advertise_tags.reset();
             else
                 prefs.advertise_tags = tags;
             return {};
         },
         [](const Prefs& prefs) { return join(prefs.tags(), ","); }},
        {"hostname",
         Kind::Text,
         Where::Both,
         {"Hostname"},
         "hostname to use instead of the one provided by the OS",
         assign_text<&Prefs::hostname>,
         text_value<&Prefs::hostname>},
        {"advertise-routes",
         Kind::Text,
         Where::Both,
         {"AdvertiseRoutes"},
         "routes to advertise to other nodes (comma-separated, e.g. \"10.0.0.0/8,192.168.0.0/24\")",
         [](Prefs& prefs, const std::string& value) -> Result<void> {
             auto routes = parse_routes(value);
             if (!routes) return routes.error();
             bool exit = prefs.advertises_exit_node();
             if (exit)
                 for (const IpPrefix& route : default_routes()) routes->push_back(route);
             store_routes(prefs, std::move(*routes));
             return {};
         },
         [](const Prefs& prefs) { return routes_text(subnet_routes(prefs)); }},
        {"advertise-exit-node",
         Kind::Bool,
         Where::Both,
         {"AdvertiseRoutes"},
         "offer to be an exit node for internet traffic of the tailnet",
         [](Prefs& prefs, const std::string& value) -> Result<void> {
             auto on = parse_bool(value);
             if (!on) return on.error();
             auto routes = subnet_routes(prefs);
             if (*on)
                 for (const IpPrefix& route : default_routes()) routes.push_back(route);
             store_routes(prefs, std::move(routes));
             return {};
         },
         [](const Prefs& prefs) { return std::string{prefs.advertises_exit_node() ? "true" : "false"}; }},
        {"advertise-connector",
         Kind::Bool,
         Where::Both,
         {"AppConnector"},
         "offer to be an app connector: routes to what the domains that the policy names resolve to",
         [](Prefs& prefs, const std::string& value) -> Result<void> {
             auto on = parse_bool(value);
             if (!on) return on.error();
             prefs.app_connector.advertise = *on;
             return {};
         },
         [](const Prefs& prefs) { return std::string{prefs.app_connector.advertise ? "true" : "false"}; }},
        {"advertise-services",
         Kind::Text,
         Where::Both,
         {"AdvertiseServices"},
         "services of the tailnet that programs of this host answer for (comma-separated, e.g. \"svc:web,svc:db\")",
         [](Prefs& prefs, const std::string& value) -> Result<void> {
             std::set<std::string> services;
             for (std::string_view piece : split(value, ',')) {
                 piece = trim(piece);
                 if (piece.empty()) continue;
                 std::string name{piece};
                 if (name.find(':') == std::string::npos) name.insert(0, "svc:");
                 if (auto named = check_service_name(name); !named) return named;
                 services.insert(std::move(name));
             }
             prefs.advertise_services.reset();
             if (!services.empty()) prefs.advertise_services.emplace(services.begin(), services.end());
             return {};
         },
         [](const Prefs& prefs) { return join(prefs.services(), ","); }},
        {"operator",
         Kind::Text,
         Where::Both,
         {"OperatorUser"},
         "Unix user who may operate tailraced without sudo",
         assign_text<&Prefs::operator_user>,
         text_value<&Prefs::operator_user>},
        {"snat-subnet-routes",
         Kind::Bool,
         Where::Both,
         {"NoSNAT"},
         "source NAT traffic to routes that we advertise",
         assign_inverted<&Prefs::no_snat>,
         inverted_value<&Prefs::no_snat>},
        {"hard-nat-traversal",
         Kind::Bool,
         Where::Both,
         {"HardNATTraversal"},
         "where one side's NAT is hard, open and probe many ports to get a direct path",
         assign_bool<&Prefs::hard_nat_traversal>,
         bool_value<&Prefs::hard_nat_traversal>},
        {"relay-server-port",
         Kind::Text,
         Where::SetOnly,
         {"RelayServerPort"},
         "UDP port at which this node relays for peers that no direct path joins, 0 for any, or empty string to not "
         "relay",
         [](Prefs& prefs, const std::string& value) -> Result<void> {
             prefs.relay_server_port.reset();
             if (value.empty()) return {};
             std::uint16_t port = 0;
             auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), port);
             if (error != std::errc{} || end != value.data() + value.size())
                 return Error::make("invalid value --relay-server-port={}; it is a port from 0 to 65535, or empty",
                                    value);
             prefs.relay_server_port = port;
             return {};
         },
         [](const Prefs& prefs) {
             return prefs.relay_server_port ? std::to_string(*prefs.relay_server_port) : std::string{};
         }},
        {"relay-server-static-endpoints",
         Kind::Text,
         Where::SetOnly,
         {"RelayServerStaticEndpoints"},
         "where else peers reach that port (comma-separated, e.g. \"192.0.2.1:40000,[2001:db8::1]:40000\")",
         [](Prefs& prefs, const std::string& value) -> Result<void> {
             std::vector<Endpoint> endpoints;
             for (std::string_view piece : split(value, ',')) {
                 piece = trim(piece);
                 if (piece.empty()) continue;
                 auto endpoint = Endpoint::parse(piece);
                 if (!endpoint || endpoint->port == 0)
                     return Error::make(
                         "invalid value --relay-server-static-endpoints: {} is not an address with a port", piece);
                 endpoints.push_back(*endpoint);
             }
             prefs.relay_server_static_endpoints.reset();
             if (!endpoints.empty()) prefs.relay_server_static_endpoints = std::move(endpoints);
             return {};
         },
         [](const Prefs& prefs) {
             std::string out;
             for (const Endpoint& endpoint : prefs.relay_server_static_endpoints.value_or(std::vector<Endpoint>{}))
                 out += (out.empty() ? "" : ",") + endpoint.text();
             return out;
         }},
        {"stateful-filtering",
         Kind::Bool,
         Where::Both,
         {"NoStatefulFiltering"},
         "from advertised networks into the tailnet let in only replies",
         [](Prefs& prefs, const std::string& value) -> Result<void> {
             auto parsed = parse_bool(value);
             if (!parsed) return parsed.error();
             prefs.no_stateful_filtering = !*parsed;
             return {};
         },
         [](const Prefs& prefs) { return std::string{prefs.no_stateful_filtering == false ? "true" : "false"}; }},
        {"netfilter-mode",
         Kind::Text,
         Where::Both,
         {"NetfilterMode"},
         "netfilter mode (one of on, nodivert, off)",
         [](Prefs& prefs, const std::string& value) -> Result<void> {
             for (int mode = 0; mode < 3; ++mode) {
                 if (value != kModes[mode]) continue;
                 prefs.netfilter_mode = mode;
                 return {};
             }
             return Error::make("invalid value --netfilter-mode={}; it is one of on, nodivert, off", value);
         },
         [](const Prefs& prefs) { return std::string{kModes[std::clamp(prefs.netfilter_mode, 0, 2)]}; }},
    };
    return flags;
}

void add_pref_flags(CLI::App& app, PrefFlag::Where command, GivenFlags& given) {
    for (const PrefFlag& flag : pref_flags()) {
        if (flag.where != Where::Both && flag.where != command) continue;
        std::string name = flag.name;
        if (flag.kind == Kind::Bool)
            app.add_flag_function(
                   "--" + name, [&given, name](std::int64_t value) { given[name] = value > 0 ? "true" : "false"; },
                   flag.help)
                ->check([](const std::string& value) { // CLI11 would throw what nobody catches
                    auto parsed = parse_bool(value);
                    return parsed ? std::string{} : parsed.error().message();
                });
        else
            app.add_option_function<std::string>(
                "--" + name, [&given, name](const std::string& value) { given[name] = value; }, flag.help);
    }
}

namespace {

Result<void> assign_all(const GivenFlags& given, Prefs& prefs) {
    for (const PrefFlag& flag : pref_flags()) {
        auto found = given.find(flag.name);
        if (found == given.end()) continue;
        if (auto done = flag.assign(prefs, found->second); !done) return done.error().with("--{}", flag.name);
    }
    return {};
}

} // namespace

Result<Prefs> prefs_of_up(const GivenFlags& given, const Prefs& current) {
    Prefs prefs;
    prefs.want_running = true;
    prefs.control_url = current.control_url; // the server is kept until another one is named
    prefs.profile_name = current.profile_name;
    prefs.auto_update = current.auto_update;
    if (auto done = assign_all(given, prefs); !done) return done.error();
    return prefs;
}

Result<Prefs> prefs_of_set(const GivenFlags& given, const Prefs& current) {
    Prefs prefs = current;
    if (auto done = assign_all(given, prefs); !done) return done.error();
    return prefs;
}

std::vector<std::string> prefs_named(const GivenFlags& given) {
    std::set<std::string> names;
    for (const PrefFlag& flag : pref_flags())
        if (given.contains(flag.name)) names.insert(flag.prefs.begin(), flag.prefs.end());
    return {names.begin(), names.end()};
}

std::string flag_text(const PrefFlag& flag, const std::string& value) {
    if (flag.kind == Kind::Bool) return fmt::format("--{}{}", flag.name, value == "true" ? "" : "=" + value);
    return fmt::format("--{}={}", flag.name, value.empty() ? "" : shell_quote(value));
}

std::string missing_flags_text(const GivenFlags& given,
                               const std::vector<std::pair<std::string, std::string>>& other_flags,
                               const Prefs& current, const Prefs& wanted) {
    if (current.control_url.empty()) return "";
    std::vector<std::pair<std::string, std::string>> mentioned;
    for (const auto& [name, value] : other_flags) mentioned.emplace_back(name, value);
    std::vector<std::string> missing;
    for (const PrefFlag& flag : pref_flags()) {
        if (auto found = given.find(flag.name); found != given.end()) {
            mentioned.emplace_back(flag.name, flag_text(flag, found->second));
            continue;
        }
        std::string before = flag.value(current);
        if (before != flag.value(wanted)) missing.push_back(flag_text(flag, before));
    }
    if (missing.empty()) return "";
    std::ranges::sort(mentioned);
    std::ranges::sort(missing);
    std::string command = "tailrace up";
    for (const auto& [name, text] : mentioned) command += " " + text;
    for (const std::string& text : missing) command += " " + text;
    return "Error: changing settings via 'tailrace up' requires mentioning all\n"
           "non-default flags. To proceed, either re-run your command with --reset or\n"
           "use the command below to explicitly mention the current value of\n"
           "all non-default settings:\n\n\t" +
           command + "\n";
}

} // namespace tailrace::cli
