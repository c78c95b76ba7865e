#include "control/cli/service_commands.hpp"

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

/// "a,b" and "a b" are two.
std::vector<std::string> listed(const std::vector<std::string>& texts) {
    std::vector<std::string> out;
    for (const std::string& text : texts)
        for (auto piece : split(text, ','))
            if (!trim(piece).empty()) out.emplace_back(trim(piece));
    return out;
}

std::string addresses_text(const ServiceInfo& service) {
    std::vector<std::string> texts;
    for (const IpAddress& address : service.addresses) texts.push_back(address.text());
    return join(texts, ",");
}

std::string hosts_text(const ServiceInfo& service) {
    std::vector<std::string> texts;
    for (const ServiceHostInfo& host : service.hosts)
        texts.push_back(fmt::format("{} ({}{}{})", host.name, host.primary ? "primary, " : "", host.state,
                                    host.online ? "" : ", offline"));
    return texts.empty() ? "-" : join(texts, ", ");
}

Outcome create_service(const ServiceWords& words) {
    CreateService wish{words.name, listed(words.tags), listed(words.ports)};
    auto answer = ask_server(*words.socket, "POST", "/v1/services", json::write(wish));
    if (!answer || words.json) return answer;
    auto made = json::parse<ServiceInfo>(*answer);
    if (!made) return made.error();
    return fmt::format("{} has the addresses {}{}", made->name, addresses_text(*made),
                       made->dns_name.empty() ? "" : " and the name " + made->dns_name);
}

Outcome list_services(const ServiceWords& words) {
    auto answer = ask_server(*words.socket, "GET", "/v1/services", "");
    if (!answer || words.json) return answer;
    auto all = json::parse<std::vector<ServiceInfo>>(*answer);
    if (!all) return all.error();
    std::vector<std::vector<std::string>> rows{{"SERVICE", "ADDRESSES", "PORTS", "HOSTS HAVE", "HOSTS"}};
    for (const ServiceInfo& one : *all)
        rows.push_back({one.name, addresses_text(one), join(one.ports, ","), join(one.tags, " or "), hosts_text(one)});
    return render_table(rows);
}

Outcome delete_service(const ServiceWords& words) {
    auto answer = ask_server(*words.socket, "DELETE", "/v1/services/" + percent_encode(words.name), "");
    if (!answer || words.json) return answer;
    return fmt::format("deleted {}", words.name);
}

Outcome change_host(const ServiceWords& words, const char* verb) {
    std::string target = fmt::format("/v1/services/{}/{}", percent_encode(words.name), verb);
    return ask_server(*words.socket, "POST", target, json::write(ServiceHostWish{words.node}));
}

Outcome approve_host(const ServiceWords& words) {
    auto answer = change_host(words, "approve");
    if (!answer || words.json) return answer;
    return fmt::format("{} may host {}", words.node, words.name);
}

Outcome revoke_host(const ServiceWords& words) {
    auto answer = change_host(words, "revoke");
    if (!answer || words.json) return answer;
    return fmt::format("{} may not host {}", words.node, words.name);
}

} // namespace

void declare_service_commands(CLI::App& app, ServiceWords& words, ServiceCommand& chosen) {
    auto* group = app.add_subcommand("services", "names with addresses of their own, hosted by nodes");
    group->require_subcommand(1);
    group->fallthrough();
    auto command = [&](const char* name, const char* text, Outcome (*run)(const ServiceWords&)) {
        auto* made = group->add_subcommand(name, text);
        made->fallthrough();
        made->add_flag("--json", words.json, "print JSON");
        made->callback([&words, &chosen, run] { chosen = [&words, run] { return run(words); }; });
        return made;
    };
    auto* create = command("create", "create a service and give it addresses", create_service);
    create->add_option("SERVICE", words.name, "its name: svc:web")->required();
    create->add_option("--tags", words.tags, "nodes with one of these tags may host it: tag:a,tag:b")->required();
    create->add_option("--ports", words.ports,
                       "that it has: tcp:443,tcp:8000-8010 (default: any); hosts must serve them all");
    command("list", "list all services and who hosts them", list_services);
    command("delete", "delete a service", delete_service)
        ->add_option("SERVICE", words.name, "its name: svc:web")
        ->required();
    for (auto* made : {command("approve", "let a node host a service", approve_host),
                       command("revoke", "stop that; autoApprovers do not bring it back", revoke_host)}) {
        made->add_option("SERVICE", words.name, "its name: svc:web")->required();
        made->add_option("NODE", words.node, "an id, a name, an address or a node key")->required();
    }
}

} // namespace tailrace
