// control/tailnet/services.cpp - services, and who hosts them.
#include "control/tailnet/services.hpp"

#include "base/json/json.hpp"
#include "control/tailnet/tags.hpp"
#include "control/tailnet/tailnet_state.hpp"
#include "policy/words.hpp"
#include "proto/control/names.hpp"

#include <algorithm>

namespace tailrace {

namespace {

constexpr std::string_view kPrefix = "svc:";
constexpr std::string_view kAnyPort = "do-not-validate";
constexpr int kTcp = 6;
constexpr std::size_t kMostServices = 1024;
constexpr std::size_t kMostPorts = 64;

/// What a client serves of TCP: "tcp:443", "443" and "*" count, what is not understood does not.
std::vector<PortRange> tcp_ports(const wire::VipService& announced) {
    std::vector<PortRange> out;
    for (const std::string& text : announced.ports) {
        std::string_view ports = text;
        if (auto colon = ports.find(':'); colon != std::string_view::npos) {
            auto protocol = parse_protocol(ports.substr(0, colon));
            if (!protocol || (*protocol != kTcp && *protocol != 0)) continue;
            ports.remove_prefix(colon + 1);
        }
        if (auto range = parse_port_range(ports)) out.push_back(*range);
    }
    std::sort(out.begin(), out.end(), [](const PortRange& a, const PortRange& b) { return a.first < b.first; });
    return out;
}

/// `there` is in order.
bool covers(const std::vector<PortRange>& there, const PortRange& wanted) {
    unsigned next = wanted.first;
    for (const PortRange& range : there)
        if (range.first <= next && range.last >= next) next = range.last + 1U;
    return next > wanted.last;
}

bool has_tag_of(const Service& service, const Node& node) {
    return std::any_of(service.tags.begin(), service.tags.end(), [&](const std::string& tag) {
        return std::binary_search(node.record.tags.begin(), node.record.tags.end(), tag);
    });
}

struct StoredHosting {
    std::string service, approval;
};
constexpr std::pair<HostApproval, std::string_view> kApprovals[] = {
    {HostApproval::Person, "person"}, {HostApproval::Policy, "policy"}, {HostApproval::Revoked, "revoked"}};

} // namespace

template <>
struct JsonFields<StoredHosting> {
    static constexpr auto fields =
        field_table(field("service", &StoredHosting::service), field("approval", &StoredHosting::approval));
};

HostState host_state(const Service& service, const Node& node) {
    const auto& announced = node.report.announced.services;
    auto said = std::find_if(announced.begin(), announced.end(),
                             [&](const wire::VipService& one) { return one.name == service.name; });
    auto approval = node.record.hosting.find(service.name);
    bool is_decided = approval != node.record.hosting.end();
    if (said == announced.end())
        return !is_decided                                 ? HostState::Stranger
               : approval->second == HostApproval::Revoked ? HostState::Revoked
                                                           : HostState::Silent;
    if (!has_tag_of(service, node)) return HostState::Untagged;
    if (!is_decided) return HostState::Unapproved;
    if (approval->second == HostApproval::Revoked) return HostState::Revoked;
    if (!said->active) return HostState::Drained;
    auto there = tcp_ports(*said);
    bool all = std::all_of(service.ports.begin(), service.ports.end(),
                           [&](const PortRange& range) { return covers(there, range); });
    return all ? HostState::Serves : HostState::PortsLack;
}

std::string_view host_state_text(HostState state) {
    switch (state) {
    case HostState::Serves:
        return "serves";
    case HostState::Stranger:
        return "no host";
    case HostState::Silent:
        return "approved, does not serve it";
    case HostState::Drained:
        return "drained";
    case HostState::Untagged:
        return "lacks the tag";
    case HostState::PortsLack:
        return "lacks a port";
    case HostState::Unapproved:
        return "waits for approval";
    case HostState::Revoked:
        return "revoked";
    }
    return "";
}

Result<std::vector<PortRange>> parse_service_ports(const std::vector<std::string>& texts) {
    std::vector<PortRange> ports;
    if (texts.size() == 1 && texts.front() == kAnyPort) return ports;
    if (texts.size() > kMostPorts) return Error::make("a service can have {} ports", kMostPorts);
    for (const std::string& text : texts) {
        auto range = text.starts_with("tcp:") ? parse_port_range(std::string_view{text}.substr(4))
                                              : Result<PortRange>{Error::make("services have ports of TCP alone")};
        if (!range || range->first == 0)
            return Error::make("\"{}\" is no port of a service: write tcp:443, tcp:8000-8010, or {} for any", text,
                               kAnyPort);
        ports.push_back(*range);
    }
    return ports;
}

std::vector<std::string> service_ports_text(const std::vector<PortRange>& ports) {
    std::vector<std::string> out;
    for (const PortRange& range : ports)
        out.push_back(range.first == range.last ? fmt::format("tcp:{}", range.first)
                                                : fmt::format("tcp:{}-{}", range.first, range.last));
    if (out.empty()) out.emplace_back(kAnyPort);
    return out;
}

std::string_view service_label(std::string_view name) {
    return name.substr(std::min(kPrefix.size(), name.size()));
}

std::string write_hosting(const Hosting& hosting) {
    std::vector<StoredHosting> stored;
    for (const auto& [service, approval] : hosting)
        for (const auto& [known, word] : kApprovals)
            if (known == approval) stored.push_back({service, std::string{word}});
    return json::write(stored);
}

Result<Hosting> read_hosting(std::string_view text) {
    auto stored = json::parse<std::vector<StoredHosting>>(text);
    if (!stored) return stored.error();
    Hosting out;
    for (const StoredHosting& one : *stored) {
        auto known = std::find_if(std::begin(kApprovals), std::end(kApprovals),
                                  [&](const auto& entry) { return entry.second == one.approval; });
        if (known == std::end(kApprovals)) return Error::make("{}: {} is no approval", one.service, one.approval);
        out[one.service] = known->first;
    }
    return out;
}

// ---- decisions

ServicePtr TailnetState::service(std::string_view name) const {
    auto at = services_.find(name);
    return at == services_.end() ? nullptr : at->second;
}

void TailnetState::put_service(const std::string& name, ServicePtr service) {
    ServicePtr before = this->service(name);
    auto set = [this, name](const ServicePtr& value) {
        if (auto now = this->service(name)) addresses_.release(now->v4, now->v6);
        if (value) {
            services_[name] = value;
            addresses_.mark_used(value->v4, value->v6);
        } else {
            services_.erase(name);
        }
        snapshot_.reset();
        changes_.services_changed = true;
    };
    set(service);
    if (service)
        changes_.operations.push_back(PutService{service});
    else
        changes_.operations.push_back(DeleteService{name});
    changes_.undo.push_back([set, before] { set(before); });
}

Result<ServicePtr> TailnetState::create_service(WallTime now, const ServiceWish& wish) {
    if (auto named = check_service_name(wish.name); !named) return named.error();
    if (service(wish.name)) return Error::make("there is already a service {}", wish.name);
    if (services_.size() >= kMostServices) return Error::make("there can be {} services", kMostServices);
    if (auto at = by_name_.find(service_label(wish.name)); at != by_name_.end())
        return Error::make("node {} is already named {}: services and nodes share their names", at->second, at->first);
    auto tags = checked_tags(wish.tags);
    if (!tags) return tags.error();
    if (tags->empty()) return Error::make("{} needs a tag: the nodes that may host it have it", wish.name);
    auto ports = parse_service_ports(wish.ports);
    if (!ports) return ports.error();
    auto pair = addresses_.take();
    if (!pair) return Error::make("all addresses of {} are in use", settings_.prefix_v4.text());
    auto made = std::make_shared<const Service>(
        Service{wish.name, pair->first, pair->second, std::move(*tags), std::move(*ports), now});
    put_service(made->name, made);
    return ServicePtr{made};
}

Result<void> TailnetState::delete_service(std::string_view name) {
    ServicePtr gone = service(name);
    if (!gone) return Error::make("there is no service {}: \"services list\" shows them", name);
    std::vector<Node> hosts;
    for (const auto& [id, node] : nodes_)
        if (node->record.hosting.contains(gone->name)) hosts.push_back(*node);
    for (Node& host : hosts) {
        host.record.hosting.erase(gone->name);
        put_node(std::move(host), true);
    }
    put_service(gone->name, nullptr);
    return {};
}

Result<void> TailnetState::approve_host(WallTime now, std::string_view name, NodeId id, Approval by) {
    ServicePtr wanted = service(name);
    if (!wanted) return Error::make("there is no service {}: \"services list\" shows them", name);
    NodePtr before = node(id);
    if (!before) return Error::make("there is no node {}", id);
    auto decided = before->record.hosting.find(wanted->name);
    if (by == Approval::Policy && decided != before->record.hosting.end()) return {};
    if (!has_tag_of(*wanted, *before))
        return Error::make("{} has none of the tags of hosts of {}: give it {} first", before->record.given_name, name,
                           join(wanted->tags, " or "));
    Node after = *before;
    if (after.record.hosting.empty() && after.record.approved_routes.empty()) after.record.router_since = now;
    after.record.hosting[wanted->name] = by == Approval::Policy ? HostApproval::Policy : HostApproval::Person;
    if (after.record != before->record) put_node(std::move(after), true);
    return {};
}

Result<void> TailnetState::revoke_host(std::string_view name, NodeId id) {
    ServicePtr wanted = service(name);
    if (!wanted) return Error::make("there is no service {}: \"services list\" shows them", name);
    NodePtr before = node(id);
    if (!before) return Error::make("there is no node {}", id);
    Node after = *before;
    after.record.hosting[wanted->name] = HostApproval::Revoked;
    if (after.record != before->record) put_node(std::move(after), true);
    return {};
}

void TailnetState::on_services_told(NodeId id, wire::VipServices announced) {
    NodePtr before = node(id);
    if (!before) return;
    Node after = *before;
    after.report.announced = std::move(announced);
    if (after != *before) put_node(std::move(after), false);
}

} // namespace tailrace
