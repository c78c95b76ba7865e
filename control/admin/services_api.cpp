#include "control/admin/services_api.hpp"

#include "base/json/json.hpp"
#include "control/admin/failure.hpp"
#include "control/admin/messages.hpp"
#include "control/routes/route_rules.hpp"
#include "control/tailnet/services.hpp"

namespace tailrace {

using namespace admin;

namespace {

std::string approval_text(const Node& node, const std::string& service) {
    auto at = node.record.hosting.find(service);
    if (at == node.record.hosting.end()) return "";
    return at->second == HostApproval::Policy ? "policy" : "hand";
}

ServiceInfo describe_service(const TailnetState& tailnet, const Service& service) {
    ServiceInfo info;
    info.name = service.name;
    info.addresses = {service.v4, service.v6};
    info.ports = service_ports_text(service.ports);
    info.tags = service.tags;
    info.created = service.created;
    if (!tailnet.settings().base_domain.empty())
        info.dns_name = fmt::format("{}.{}", service_label(service.name), tailnet.settings().base_domain);
    for (const auto& [id, node] : tailnet.nodes()) {
        HostState state = host_state(service, *node);
        if (state == HostState::Stranger) continue;
        ServiceHostInfo& host = info.hosts.emplace_back();
        host.node = id;
        host.name = node->record.given_name;
        host.state = host_state_text(state);
        host.online = node->report.online;
        host.decided_by = approval_text(*node, service.name);
        host.primary =
            state == HostState::Serves && contains_route(node->record.primary_routes, IpPrefix::single(service.v4));
    }
    return info;
}

HttpResponse described(const TailnetState& tailnet, const std::string& name) {
    ServicePtr service = tailnet.service(name);
    if (!service) return failed(404, fmt::format("{} has been deleted meanwhile", name));
    return HttpResponse::json(200, json::write(describe_service(tailnet, *service)));
}

/// The change is in the tailnet but not yet committed.
Result<void> change(TailnetState& tailnet, const HttpRequest& request, const std::string& name,
                    const std::string& verb) {
    if (request.method == "DELETE") return tailnet.delete_service(name);
    auto wish = json::parse<ServiceHostWish>(request.body);
    if (!wish) return wish.error();
    auto node = tailnet.find_node(wish->node);
    if (!node) return node.error();
    if (verb == "revoke") return tailnet.revoke_host(name, (*node)->id());
    return tailnet.approve_host(WallTime::now(), name, (*node)->id(), Approval::Person);
}

} // namespace

Task<HttpResponse> answer_services(AdminBackend& backend, HttpRequest request, std::string name, std::string verb) {
    TailnetState& tailnet = backend.tailnet();
    if (name.empty() && request.method == "GET") {
        std::vector<ServiceInfo> all;
        for (const auto& [known, service] : tailnet.services()) all.push_back(describe_service(tailnet, *service));
        co_return HttpResponse::json(200, json::write(all));
    }
    bool creates = name.empty() && request.method == "POST";
    bool changes = !name.empty() && ((verb.empty() && request.method == "DELETE") ||
                                     ((verb == "approve" || verb == "revoke") && request.method == "POST"));
    if (!creates && !changes) co_return failed(405, "this method is not for services");
    if (creates) {
        auto wish = json::parse<CreateService>(request.body);
        if (!wish) co_return failed(wish.error());
        auto made = tailnet.create_service(WallTime::now(), {wish->name, wish->tags, wish->ports});
        if (!made) co_return failed(made.error());
        name = (*made)->name;
    } else if (auto changed = change(tailnet, request, name, verb); !changed) {
        co_return failed(tailnet.service(name) ? 400 : 404, changed.error().message());
    }
    auto committed = co_await backend.commit();
    if (!committed) co_return failed(500, committed.error().message());
    co_await backend.settled();
    if (request.method == "DELETE") co_return HttpResponse::json(200, "{}");
    co_return described(tailnet, name);
}

} // namespace tailrace
