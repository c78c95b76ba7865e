#include "control/cli/route_commands.hpp"

#include "base/io/http.hpp"
#include "base/json/json.hpp"
#include "base/text.hpp"
#include "control/admin/messages.hpp"
#include "control/cli/admin_client.hpp"
#include "control/cli/table.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>

namespace tailrace {
namespace {

using namespace admin;
using Outcome = Result<std::string>;

Result<std::vector<RouteInfo>> read(const std::string& answer) {
    return json::parse<std::vector<RouteInfo>>(answer);
}

std::string approved_text(const RouteInfo& route) {
    if (!route.problem.empty()) return "impossible";
    if (route.approved) return "by " + route.decided_by;
    return route.decided_by.empty() ? "no" : "revoked";
}

Outcome list_routes(const RouteWords& words) {
    std::string target = words.node.empty() ? "/v1/routes" : "/v1/nodes/" + percent_encode(words.node) + "/routes";
    auto answer = ask_server(*words.socket, "GET", target, "");
    if (!answer || words.json) return answer;
    auto routes = read(*answer);
    if (!routes) return routes.error();
    std::vector<std::vector<std::string>> rows{
        {"NODE", "ROUTE", "OFFERED", "APPROVED", "PRIMARY", "CARRIES FOR", "ROUTER"}};
    for (const RouteInfo& route : *routes)
        rows.push_back({route.name, route.route.text(), route.offered ? "yes" : "no", approved_text(route),
                        route.route.is_default() ? "-"
                        : route.primary          ? "yes"
                                                 : "no",
                        route.carries_for.empty() ? "-" : join(route.carries_for, ", "), route.health});
    return render_table(rows);
}

/// Whether the command was about this route, said or meant.
bool is_meant(const RouteWords& words, const RouteInfo& route) {
    if (words.all) return true;
    auto texts = route.route.is_default() ? std::vector<std::string>{"0.0.0.0/0", "::/0"}
                                          : std::vector<std::string>{route.route.text()};
    return std::any_of(words.routes.begin(), words.routes.end(), [&](const std::string& word) {
        return std::find(texts.begin(), texts.end(), trim(word)) != texts.end();
    });
}

Outcome change_routes(const RouteWords& words, const char* verb, bool approved) {
    ChangeRoutes wish{words.routes, words.all};
    std::string target = fmt::format("/v1/nodes/{}/{}", percent_encode(words.node), verb);
    auto answer = ask_server(*words.socket, "POST", target, json::write(wish));
    if (!answer || words.json) return answer;
    auto routes = read(*answer);
    if (!routes) return routes.error();
    std::string out;
    for (const RouteInfo& route : *routes) {
        if (!is_meant(words, route) || route.approved != approved) continue;
        if (!approved && route.decided_by.empty()) continue; // was never approved
        if (!approved)
            out += fmt::format("{} of {} is revoked\n", route.route.text(), route.name);
        else if (route.offered)
            out += fmt::format("{} of {} is approved\n", route.route.text(), route.name);
        else
            out += fmt::format("{0} of {1} is approved; {1} does not offer it yet\n", route.route.text(), route.name);
    }
    return out.empty() ? fmt::format("nothing to {}", approved ? "approve" : "revoke") : out;
}

Outcome approve_routes(const RouteWords& words) {
    return change_routes(words, "approve-routes", true);
}
Outcome revoke_routes(const RouteWords& words) {
    return change_routes(words, "revoke-routes", false);
}

} // namespace

void declare_route_commands(CLI::App& nodes, RouteWords& words, RouteCommand& chosen) {
    auto* group = nodes.add_subcommand("routes", "the routes that nodes offer to others");
    group->require_subcommand(1);
    group->fallthrough();
    auto command = [&](const char* name, const char* text, Outcome (*run)(const RouteWords&)) {
        auto* made = group->add_subcommand(name, text);
        made->fallthrough();
        made->add_flag("--json", words.json, "print JSON");
        made->callback([&words, &chosen, run] { chosen = [&words, run] { return run(words); }; });
        return made;
    };
    constexpr const char* kWhich = "an id, a name, an address or a node key";
    command("list", "list the routes of all nodes, or of one", list_routes)->add_option("NODE", words.node, kWhich);
    for (auto* made : {command("approve", "let nodes use routes; 0.0.0.0/0 or ::/0 makes an exit node", approve_routes),
                       command("revoke", "stop that; autoApprovers do not bring it back", revoke_routes)}) {
        made->add_option("NODE", words.node, kWhich)->required();
        auto* routes = made->add_option("ROUTE", words.routes, "10.0.0.0/8, or several");
        made->add_flag("--all", words.all, "whatever it offers, or has approved")->excludes(routes);
    }
}

} // namespace tailrace
