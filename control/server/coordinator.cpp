// control/server/coordinator.cpp - decisions to disk, policy and time. The streams: map_streams.cpp; routes:
// routes.cpp; services: services.cpp.
#include "control/server/coordinator.hpp"

#include "control/map/wire_json.hpp"
#include "control/server/policy_input.hpp"

#include <algorithm>

namespace tailrace {

namespace {

constexpr auto kReportDelay = std::chrono::seconds{2};

TagOwners owners_in(const std::shared_ptr<const Document>& policy) {
    return {
        [&policy](const User& user, const std::string& tag) { return may_tag(*policy, policy_user(user), tag); },
        [&policy](const std::vector<std::string>& tags, const std::string& tag) { return may_tag(*policy, tags, tag); },
        [&policy](const std::string& tag) { return policy->tag_owners.contains(tag); }};
}

TailnetState::Settings settings_of(const ControlConfig& config) {
    TailnetState::Settings settings;
    settings.server_url = config.server_url;
    settings.base_domain = config.base_domain;
    settings.prefix_v4 = config.prefix_v4;
    settings.prefix_v6 = config.prefix_v6;
    settings.ephemeral_timeout = config.ephemeral_timeout;
    settings.device_approval = config.device_approval;
    return settings;
}

Journal::Runner runner_on(Reactor& reactor, WorkerThread& thread) {
    return [&reactor, &thread](Journal::Work work, std::function<void(Journal::Outcome)> finished) {
        thread.run([&reactor, work = std::move(work), finished = std::move(finished)] {
            auto outcome = work();
            reactor.post([finished, outcome] { finished(outcome); });
        });
    };
}

} // namespace

Coordinator::Coordinator(Reactor& reactor, ControlConfig config, std::unique_ptr<Store> store, StoredTailnet stored,
                         std::shared_ptr<const Document> policy, MapComposer::Fixed fixed)
    : reactor_(reactor), config_(std::move(config)), policy_(std::move(policy)), store_(std::move(store)),
      tailnet_(settings_of(config_), std::move(stored), owners_in(policy_), WallTime::now()),
      composer_(tailnet_, std::move(fixed)), flush_timer_(reactor), tailnet_timer_(reactor), report_timer_(reactor),
      policy_done_(reactor), registrations_(reactor), started_(reactor.now()),
      route_watch_(reactor, route_watch_server()), services_timer_(reactor), region_timer_(reactor),
      journal_(*store_, runner_on(reactor, writer_)) {
    for (const auto& [id, node] : tailnet_.nodes()) note_region({id, nullptr, node});
    follow_regions();
    composer_.set_policy(compile_for(policy_, tailnet_.snapshot(), nullptr, router_standings(), regions()));
    settle_routes();
    arm_timer();
}

Coordinator::~Coordinator() = default;

Task<Result<void>> Coordinator::commit() {
    Changes changes = tailnet_.take_changes();
    if (!changes.needs_commit()) {
        publish(std::move(changes));
        co_return Result<void>{};
    }
    struct Waiting {
        explicit Waiting(Reactor& reactor) : done(reactor) {}
        Event done;
        Result<void> outcome;
    };
    auto waiting = std::make_shared<Waiting>(reactor_);
    StoreOperations operations = std::move(changes.operations);
    auto held = std::make_shared<Changes>(std::move(changes));
    auto undo = [held] {
        for (auto step = held->undo.rbegin(); step != held->undo.rend(); ++step) (*step)();
    };
    auto done = [this, held, waiting](const Result<void>& outcome) {
        healthy_ = static_cast<bool>(outcome);
        if (outcome)
            publish(std::move(*held));
        else
            publish(tailnet_.take_changes()); // what undoing did
        waiting->outcome = outcome;
        waiting->done.notify();
    };
    journal_.append(std::move(operations), std::move(undo), std::move(done));
    co_await waiting->done.wait();
    if (!waiting->outcome) log::error("a change was not written and is undone", {{"error", waiting->outcome.error()}});
    co_return waiting->outcome;
}

Task<Result<void>> Coordinator::commit_and_wake() {
    auto outcome = co_await commit();
    registrations_.notify();
    co_return outcome;
}

void Coordinator::publish(Changes changes) {
    for (NodePtr& node : changes.reports) journal_.note_report(std::move(node));
    if (journal_.has_reports() && !report_timer_runs_) {
        report_timer_runs_ = true;
        report_timer_.after(kReportDelay, [this] {
            report_timer_runs_ = false;
            journal_.flush_reports();
        });
    }
    bool stale = changes.users_changed || changes.services_changed;
    for (const NodeEvent& event : changes.events) {
        stale = stale || concerns_policy(event) || (has_rivals_ && concerns_routers(event));
        note_region(event);
        composer_.on_node_event(event);
        tell(event);
        ask_for_services(event.id);
    }
    if (stale) policy_is_stale();
    follow_regions();
    arm_timer();
}

void Coordinator::arm_timer() {
    auto next = tailnet_.next_timer();
    if (!next || stopping_) {
        tailnet_timer_.cancel();
        return;
    }
    auto wait = std::max(next->minus(WallTime::now()), Duration{std::chrono::milliseconds{1}});
    wait = std::min(wait, Duration{std::chrono::hours{1}});
    tailnet_timer_.after(wait, [this] { on_timer(); });
}

void Coordinator::on_timer() {
    tailnet_.on_timer(WallTime::now());
    auto task = [](Coordinator* self) -> Task<void> { (void)co_await self->commit(); }; // it has logged
    spawn(reactor_, "timer", task(this));
}

// ---- policy

void Coordinator::policy_is_stale() {
    policy_stale_ = true;
    if (compiling_ || stopping_) return;
    compiling_ = true;
    spawn(reactor_, "policy", compile_policy());
}

Task<void> Coordinator::compile_policy() {
    while (policy_stale_ && !stopping_) {
        // Many changes, one compilation: at most a quarter of the time goes into it.
        auto pause = std::max(3 * last_compile_, Duration{std::chrono::milliseconds{2}});
        co_await reactor_.sleep(pause);
        policy_stale_ = false;
        auto work = [document = policy_, snapshot = tailnet_.snapshot(), before = composer_.policy(),
                     standings = router_standings(),
                     regions = regions()] { return compile_for(document, snapshot, before, standings, regions); };
        TimePoint begin = reactor_.now();
        auto compiled = co_await reactor_.worker(std::move(work));
        last_compile_ = reactor_.now() - begin;
        ++compiles_total_;
        composer_.set_policy(std::move(compiled));
        settle_routes();
        policy_done_.notify();
        wake_all();
    }
    compiling_ = false;
}

Task<Result<void>> Coordinator::set_policy(std::string text) {
    if (!config_.policy_file.empty())
        co_return Error::make("the policy lives in {}: edit that file and reload the service", config_.policy_file);
    auto parse = [text, snapshot = tailnet_.snapshot()] { return check_policy(text, *snapshot); };
    auto document = co_await reactor_.worker(std::move(parse));
    if (!document) co_return Error::make("{}; correct it there: the policy in force stays", document.error().message());
    auto before = policy_;
    policy_ = std::make_shared<const Document>(std::move(*document));
    tailnet_.set_policy_text(std::move(text));
    auto stored = co_await commit();
    if (!stored) {
        policy_ = before;
        co_return stored.error();
    }
    policy_is_stale();
    while (&composer_.policy()->document() != policy_.get() && !stopping_)
        (void)co_await policy_done_.wait_for(std::chrono::milliseconds{100}); // looks again anyway
    co_return Result<void>{};
}

Task<void> Coordinator::reload_policy_file() {
    if (config_.policy_file.empty()) co_return;
    auto read = [file = config_.policy_file, snapshot = tailnet_.snapshot()]() -> Result<Document> {
        auto text = read_policy_file(file);
        if (!text) return text.error();
        return check_policy(*text, *snapshot);
    };
    auto document = co_await reactor_.worker(std::move(read));
    if (!document) {
        log::error("the policy file is not in order: the policy in force stays",
                   {{"file", config_.policy_file}, {"error", document.error()}});
        co_return;
    }
    policy_ = std::make_shared<const Document>(std::move(*document));
    policy_is_stale();
    log::info("policy file reloaded", {{"file", config_.policy_file}});
}

void Coordinator::set_dns(const DnsSettings& dns) {
    if (dns == config_.dns) return;
    config_.dns = dns;
    composer_.set_dns(dns_config(config_.base_domain, config_.dns));
    policy_is_stale(); // what nodes see is composed anew
    log::info("DNS settings reloaded");
}

Result<void> Coordinator::check_policy_in_force() {
    return check_again(*policy_, *tailnet_.snapshot());
}

// ---- registration

NodePtr Coordinator::authenticated(const MachineKey& machine, const NodeKey& key) const {
    NodePtr node = tailnet_.node_by_key(key);
    return node && node->record.machine_key == machine ? node : nullptr;
}

Task<wire::RegisterResponse> Coordinator::register_machine(MachineKey machine, wire::RegisterRequest request,
                                                           std::shared_ptr<Http2Exchange> exchange) {
    for (;;) {
        RegisterDecision decision = tailnet_.on_register(WallTime::now(), machine, request);
        if (!decision.wait_for.empty()) {
            if (exchange->closed()) co_return decision.response;
            (void)co_await registrations_.wait_for(std::chrono::seconds{1}); // looks again anyway
            continue;
        }
        auto stored = co_await commit();
        if (!stored) {
            decision.response = {};
            decision.response.error = "the server could not store the registration: try again later";
            log::error("registration not stored", {{"error", stored.error()}});
        } else if (decision.response.error.empty() && decision.response.auth_url.empty()) {
            ++registrations_total_;
        }
        co_return decision.response;
    }
}

std::string Coordinator::metrics() const {
    std::size_t online = 0;
    for (const auto& [id, node] : tailnet_.nodes()) online += node->report.online;
    const auto& counted = composer_.counters();
    std::string out;
    auto gauge = [&](std::string_view name, std::string_view help, std::uint64_t value) {
        out += fmt::format("# HELP {0} {1}\n# TYPE {0} gauge\n{0} {2}\n", name, help, value);
    };
    auto counter = [&](std::string_view name, std::string_view help, std::uint64_t value) {
        out += fmt::format("# HELP {0} {1}\n# TYPE {0} counter\n{0} {2}\n", name, help, value);
    };
    gauge("tailrace_control_nodes", "Nodes in the tailnet.", tailnet_.nodes().size());
    gauge("tailrace_control_nodes_online", "Nodes that are online.", online);
    gauge("tailrace_control_users", "Users in the tailnet.", tailnet_.users().size());
    gauge("tailrace_control_map_streams", "Open map streams.", streams_.size());
    counter("tailrace_control_route_questions_total", "Times a router or a peer of it was asked whether it is there.",
            route_watch_.questions());
    gauge("tailrace_control_pending_registrations", "Machines that wait for approval.", tailnet_.pending_count());
    counter("tailrace_control_registrations_total", "Successful register requests.", registrations_total_);
    counter("tailrace_control_map_streams_total", "Map streams ever opened.", streams_total_);
    counter("tailrace_control_map_frames_total", "Map frames sent, keep-alives included.", frames_total_);
    counter("tailrace_control_nodes_serialised_total", "Times a node was written as JSON.", counted.nodes_serialised);
    counter("tailrace_control_chunks_compressed_total", "Chunks of peers compressed.", counted.chunks_compressed);
    counter("tailrace_control_frames_compressed_total", "Update frames compressed.", counted.frames_compressed);
    counter("tailrace_control_frames_shared_total", "Update frames taken from another stream.", counted.frames_shared);
    counter("tailrace_control_policy_compilations_total", "Times the policy was compiled.", compiles_total_);
    counter("tailrace_control_store_transactions_total", "Transactions of the store.", journal_.transactions());
    return out;
}

} // namespace tailrace
