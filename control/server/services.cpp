// control/server/services.cpp - the coordinator's part in services: asking nodes what they host, and approving hosts as
// the policy says. The rules themselves: tailnet/services.cpp, policy/.
#include "control/server/coordinator.hpp"

#include "base/io/http1.hpp"
#include "base/random.hpp"
#include "base/text.hpp"
#include "control/tailnet/services.hpp"

#include <algorithm>

namespace tailrace {

namespace {

/// Stock clients take up to a minute in the worst case; an answer usually comes at once.
constexpr auto kAskAgainAfter = std::chrono::seconds{10};
constexpr int kMostTimes = 6; ///< until something new happens
constexpr std::size_t kMostAnswer = 256 * 1024;
constexpr std::string_view kRequest = "GET /vip-services HTTP/1.1\r\nHost: control\r\n\r\n";

} // namespace

/// When its hash says that they have changed. Source: control-protocol.md 5.7, 6.4.
void Coordinator::ask_for_services(NodeId id) {
    const NodePtr& node = tailnet_.node(id);
    if (!node || node->report.services_hash.empty() || node->report.services_hash == node->report.announced.hash) {
        services_asked_.erase(id);
        return;
    }
    auto stream = streams_.find(id);
    if (stopping_ || stream == streams_.end() || !stream->second->viewer.started) return; // when it is back
    ServicesQuestion& asked = services_asked_[id];
    if (asked.hash == node->report.services_hash && asked.times > 0) return; // the timer asks again
    asked = {"", node->report.services_hash, 0};
    ask_for_services_again();
}

void Coordinator::ask_for_services_again() {
    std::string_view authority = config_.server_url;
    if (auto scheme = authority.find("://"); scheme != std::string_view::npos) authority.remove_prefix(scheme + 3);
    bool is_time = !services_timer_runs_;
    for (auto& [id, asked] : services_asked_) {
        if (asked.times >= kMostTimes || (asked.times > 0 && !is_time)) continue;
        ++asked.times;
        asked.token = hex_encode(random_array<12>());
        wire::PingRequest question;
        question.url = fmt::format("https://{}/machine/ping-response?id={}", authority, asked.token);
        question.url_is_noise = true;
        question.types = "c2n";
        auto request = as_bytes(kRequest);
        question.payload.assign(request.begin(), request.end());
        put_question(id, question);
    }
    if (services_timer_runs_ || services_asked_.empty() || stopping_) return;
    services_timer_runs_ = true;
    services_timer_.after(kAskAgainAfter, [this] {
        services_timer_runs_ = false;
        std::erase_if(services_asked_, [this](const auto& entry) {
            return entry.second.times >= kMostTimes || !streams_.contains(entry.first);
        });
        ask_for_services_again();
    });
}

/// Whether the answer was to such a question.
bool Coordinator::take_services(NodeId from, const std::string& token, const std::string& body) {
    auto at = services_asked_.find(from);
    if (at == services_asked_.end() || at->second.token != token) return false;
    auto response = body.size() <= kMostAnswer
                        ? parse_http1_response(body)
                        : Result<HttpResponse>{Error::make("{} bytes are too many", body.size())};
    auto told = !response                 ? Result<wire::VipServices>{response.error()}
                : response->status != 200 ? Result<wire::VipServices>{Error::make("it answered {}", response->status)}
                                          : wire::parse_vip_services(response->body);
    if (!told) {
        log::warn("a node does not say which services it hosts", {{"node", from}, {"error", told.error()}});
        return true;
    }
    if (told->hash == at->second.hash) services_asked_.erase(at); // else they have changed meanwhile: ask again
    tailnet_.on_services_told(from, std::move(*told));
    commit_later("services");
    return true;
}

bool Coordinator::approve_hosts_by_policy() {
    if (policy_->auto_approvers.services.empty()) return false;
    std::vector<std::pair<std::string, NodeId>> hosts;
    for (const auto& [name, service] : tailnet_.services())
        for (const auto& [id, node] : tailnet_.nodes())
            if (!node->report.announced.services.empty() && host_state(*service, *node) == HostState::Unapproved &&
                composer_.policy()->approves_service(id, name, service->tags))
                hosts.emplace_back(name, id);
    bool changed = false;
    for (const auto& [name, id] : hosts) {
        auto approved = tailnet_.approve_host(WallTime::now(), name, id, Approval::Policy);
        if (!approved) log::warn("a host that the policy approves is not approved", {{"error", approved.error()}});
        changed = changed || approved;
    }
    return changed;
}

} // namespace tailrace
