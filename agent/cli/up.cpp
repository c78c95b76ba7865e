// Joining, leaving and changing preferences.
#include "agent/cli/commands.hpp"
#include "agent/cli/exit_node.hpp"
#include "agent/cli/risk.hpp"
#include "base/file.hpp"
#include "base/json/json.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ifaddrs.h>
#include <memory>

namespace tailrace::cli {
namespace {

/// Of a Notify object only what `up` waits for.
struct Notice {
    std::optional<std::string> error;
    std::optional<int> state;
    std::optional<std::string> url;
};

Result<Notice> parse_notice(std::string_view line) {
    auto value = json::parse_value(line);
    if (!value) return value.error();
    if (!value->is_object()) return Error::make("not an object");
    Notice notice;
    const auto& object = value->get_object();
    if (const auto* m = object.if_contains("ErrMessage"); m != nullptr && m->is_string())
        notice.error = m->get_string().c_str();
    if (const auto* m = object.if_contains("BrowseToURL"); m != nullptr && m->is_string())
        notice.url = m->get_string().c_str();
    if (const auto* m = object.if_contains("State"); m != nullptr && m->is_int64())
        notice.state = static_cast<int>(m->get_int64());
    return notice;
}

Result<std::string> read_auth_key(const std::string& given) {
    if (!given.starts_with("file:")) return given;
    auto text = read_file(given.substr(5), 64 << 10);
    if (!text) return text.error().with("--auth-key");
    std::string key{trim(*text)};
    if (key.empty()) return Error::make("--auth-key: {} is empty", given.substr(5));
    return key;
}

std::string json_answer(std::string_view state, std::string_view error) {
    std::string out = "{\n  \"BackendState\": ";
    json::append_string(out, state);
    if (!error.empty()) {
        out += ",\n  \"Error\": ";
        json::append_string(out, error);
    }
    return out + "\n}\n";
}

struct UpRun {
    LocalClient& client;
    UpOptions options;
    std::string node_key_before;
    bool printed = false;
    std::string last_url;
    std::vector<std::string> told; ///< warnings that were printed before
};

/// The same matter, whatever the details: what there is to read about it is the last line of both.
bool is_told(const std::vector<std::string>& told, const std::string& message) {
    auto page = [](const std::string& text) {
        auto at = text.rfind("\nSee ");
        return at == std::string::npos ? text : text.substr(at);
    };
    return std::ranges::any_of(told, [&](const std::string& before) {
        return page(before) == page(message) || before.find(message) != std::string::npos;
    });
}

Task<int> follow_bus(UpRun& run, Bus& bus, std::string known_url) {
    for (;;) {
        auto line = co_await bus.next_line();
        if (!line || line->empty()) {
            auto status = co_await run.client.status();
            std::string state = status ? status->backend_state : "NoState";
            std::string why =
                line || line.error().code() == ECANCELED
                    ? fmt::format(
                          "timeout waiting for the agent to enter a Running state; it is {}; see \"tailrace status\" "
                          "and the agent's log for what it waits for",
                          state)
                    : line.error().message();
            if (status && status->health && !status->health->empty()) why += " (" + status->health->front() + ")";
            if (run.options.json) fmt::print("{}", json_answer(state, why));
            co_return fail(why);
        }
        auto notice = parse_notice(*line);
        if (!notice) continue;
        if (notice->error) {
            if (run.options.json) fmt::print("{}", json_answer("NeedsLogin", *notice->error));
            co_return fail(*notice->error);
        }
        if (notice->url && !notice->url->empty() && run.options.auth_key.empty() && *notice->url != run.last_url &&
            !(run.options.force_reauth && *notice->url == known_url)) {
            run.last_url = *notice->url;
            run.printed = true;
            if (run.options.json) {
                std::string out = "{\n\t\"AuthURL\": ";
                json::append_string(out, run.last_url);
                fmt::print("{},\n\t\"BackendState\": \"NeedsLogin\"\n}}\n", out);
            } else {
                fmt::print(stderr, "\nTo authenticate, visit:\n\n\t{}\n\n", run.last_url);
            }
            std::fflush(stdout);
        }
        if (notice->state == static_cast<int>(BackendState::NeedsMachineAuth)) {
            run.printed = true;
            auto status = co_await run.client.status();
            fmt::print(stderr, "\nThis machine needs approval. {}\n\n",
                       how_to_approve(status && status->self ? *status->self : PeerStatus{}));
        }
        if (notice->state == static_cast<int>(BackendState::Running)) {
            auto status = co_await run.client.status();
            if (!status) co_return fail(status.error().message());
            if (run.options.force_reauth && status->self && status->self->public_key == run.node_key_before) continue;
            if (run.options.json)
                fmt::print("{}", json_answer("Running", ""));
            else if (run.printed)
                fmt::print(stderr, "Success.\n");
            if (!run.options.json && status->health)
                for (const std::string& message : *status->health)
                    if (!is_told(run.told, message)) fmt::print("Warning: {}\n", message);
            co_return 0;
        }
    }
}

} // namespace

int fail(std::string_view message) {
    std::fflush(stdout);
    fmt::print(stderr, "{}\n", message);
    return 1;
}

namespace {

constexpr const char* kLanAccessNeedsExitNode = "--exit-node-allow-lan-access can only be used with --exit-node";

bool allows_lan_for_nothing(const GivenFlags& given, const Prefs& wanted) {
    bool uses_exit_node =
        !wanted.exit_node_id.empty() || !wanted.exit_node_ip.empty() || !wanted.auto_exit_node.empty();
    return given.contains("exit-node-allow-lan-access") && wanted.exit_node_allow_lan_access && !uses_exit_node;
}

/// Empty, or what the agent says to a question of this kind.
Task<std::string> warning_of(LocalClient& client, std::string question) {
    auto answer = co_await client.request("GET", "/localapi/v0/" + question, "");
    if (!answer) co_return ""; // an older agent
    auto value = json::parse_value(*answer);
    if (!value || !value->is_object()) co_return "";
    const auto* warning = value->get_object().if_contains("Warning");
    co_return warning != nullptr && warning->is_string() ? warning->get_string().c_str() : "";
}

/// Whether it is about what accepted routes do to this host.
bool accepts_routes(const GivenFlags& given) {
    return given.contains("accept-routes") || given.contains("routes-over-lan");
}

/// What these preferences would do that people want to know before it is done. Gives what it printed.
Task<std::vector<std::string>> warn_about_routes(LocalClient& client, Prefs wanted, bool advertises, bool accepts) {
    std::vector<std::string> told;
    if (advertises && (!wanted.routes().empty() || wanted.app_connector.advertise)) {
        told.push_back(co_await warning_of(client, "check-ip-forwarding"));
        if (told.back().empty()) told.push_back(co_await warning_of(client, "check-udp-gro-forwarding"));
    }
    if (accepts && wanted.route_all)
        told.push_back(co_await warning_of(client, wanted.routes_over_lan ? "check-accept-routes?over-lan=true"
                                                                          : "check-accept-routes"));
    std::erase(told, "");
    for (const std::string& warning : told) fmt::print("Warning: {}\n", warning);
    std::fflush(stdout);
    co_return told;
}

} // namespace

Task<int> up(LocalClient& client, UpOptions options) {
    auto status = co_await client.status();
    if (!status) co_return fail(status.error().message());
    auto current = co_await client.prefs();
    if (!current) co_return fail(current.error().message());

    if (const char* user = std::getenv("USER");
        !options.reset && user != nullptr && !options.given.contains("operator") && current->operator_user == user)
        options.given["operator"] = user;
    auto wanted = prefs_of_up(options.given, *current);
    if (!wanted) co_return fail(wanted.error().message());
    if (options.given.contains("exit-node")) {
        auto chosen = choose_exit_node(*wanted, options.given["exit-node"], *status);
        if (!chosen) co_return fail(chosen.error().message());
    }
    if (allows_lan_for_nothing(options.given, *wanted)) co_return fail(kLanAccessNeedsExitNode);

    if (wanted->netfilter_mode != static_cast<int>(NetfilterMode::On) && options.given.contains("netfilter-mode"))
        fmt::print("Warning: netfilter={}; the forwarding rules are yours to add.\n", options.given["netfilter-mode"]);
    if (wanted->advertises_exit_node() && wanted->no_snat)
        fmt::print("Warning: --snat-subnet-routes=false with --advertise-exit-node: the internet does not know tailnet "
                   "addresses.\n");

    auto told = co_await warn_about_routes(client, *wanted, true, accepts_routes(options.given));

    bool running = status->backend_state == "Running";
    bool only_default = options.given.empty() && options.auth_key.empty() && !options.reset && !options.force_reauth;
    bool simple =
        only_default && status->have_node_key && status->backend_state != "NeedsLogin" && !current->control_url.empty();
    if (!options.reset && !simple) {
        std::string missing =
            missing_flags_text(options.given, options.other_flags, with_exit_node_shown(*current, *status),
                               with_exit_node_shown(*wanted, *status));
        if (!missing.empty()) co_return fail(scrub_auth_keys(missing));
    }
    if (wanted->control_url.empty())
        co_return fail("no coordination server is known yet; name it with --login-server=https://HOST");
    bool same_server = wanted->control_url == current->control_url;
    if (running && !same_server && !options.force_reauth)
        co_return fail("can't change --login-server without --force-reauth");
    if (running && options.force_reauth && !may_cut_ssh(options.accepted_risks)) co_return 1;

    bool same_tags = wanted->tags() == current->tags();
    if (running && !options.force_reauth && options.auth_key.empty() && same_server && same_tags) {
        std::vector<std::string> names = options.reset ? changed_prefs(*current, *wanted) : prefs_named(options.given);
        std::erase_if(names, [](const std::string& name) { return name == "Config"; });
        names.emplace_back("WantRunning");
        auto done = co_await client.edit_prefs(masked_prefs(*wanted, names));
        if (!done) co_return fail(done.error().message());
        if (options.json) fmt::print("{}", json_answer("Running", ""));
        co_return 0;
    }

    auto key = read_auth_key(options.auth_key);
    if (!key) co_return fail(key.error().message());
    auto bus = co_await client.watch(0);
    if (!bus) co_return fail(bus.error().message());
    Timer deadline{client.reactor()};
    if (options.timeout > Duration{}) deadline.after(options.timeout, [&bus] { (*bus)->close(); });

    if (simple) {
        auto done = co_await client.edit_prefs(R"({"WantRunning":true,"WantRunningSet":true})");
        if (!done) co_return fail(done.error().message());
    } else {
        auto checked = co_await client.request("POST", "/localapi/v0/check-prefs", write_prefs(*wanted));
        if (!checked) co_return fail(checked.error().message());
        if (auto answer = json::parse_value(*checked); answer && answer->is_object())
            if (const auto* error = answer->get_object().if_contains("Error");
                error != nullptr && error->is_string() && !error->get_string().empty())
                co_return fail(error->get_string().c_str());
        std::string body = "{\"AuthKey\":";
        json::append_string(body, *key);
        body += ",\"UpdatePrefs\":" + write_prefs(*wanted) + "}";
        auto started = co_await client.request("POST", "/localapi/v0/start", body);
        if (!started) co_return fail(started.error().message());
    }
    if (options.force_reauth || !status->have_node_key) {
        auto login = co_await client.request("POST", "/localapi/v0/login-interactive", "");
        if (!login) co_return fail(login.error().message());
    }
    UpRun run{client, options, status->self ? status->self->public_key : "", false, "", std::move(told)};
    int outcome = co_await follow_bus(run, **bus, status->auth_url);
    deadline.cancel();
    co_return outcome;
}

Task<int> down(LocalClient& client, std::string accepted_risks) {
    auto status = co_await client.status();
    if (!status) co_return fail(status.error().message());
    if (status->backend_state == "Stopped") {
        fmt::print(stderr, "Tailrace was already stopped.\n");
        co_return 0;
    }
    if (!may_cut_ssh(accepted_risks)) co_return 1;
    auto done = co_await client.edit_prefs(R"({"WantRunning":false,"WantRunningSet":true})");
    if (!done) co_return fail(done.error().message());
    co_return 0;
}

Task<int> set(LocalClient& client, GivenFlags given) {
    auto current = co_await client.prefs();
    if (!current) co_return fail(current.error().message());
    auto wanted = prefs_of_set(given, *current);
    if (!wanted) co_return fail(wanted.error().message());
    if (given.contains("exit-node")) {
        auto status = co_await client.status();
        if (!status) co_return fail(status.error().message());
        auto chosen = choose_exit_node(*wanted, given["exit-node"], *status);
        if (!chosen) co_return fail(chosen.error().message());
    }
    if (allows_lan_for_nothing(given, *wanted)) co_return fail(kLanAccessNeedsExitNode);
    bool advertises = given.contains("advertise-routes") || given.contains("advertise-exit-node") ||
                      given.contains("advertise-connector");
    co_await warn_about_routes(client, *wanted, advertises, accepts_routes(given));
    auto done = co_await client.edit_prefs(masked_prefs(*wanted, prefs_named(given)));
    if (!done) co_return fail(done.error().message());
    co_return 0;
}

Task<int> logout(LocalClient& client) {
    auto done = co_await client.request("POST", "/localapi/v0/logout", "");
    if (!done) co_return fail(done.error().message());
    co_return 0;
}

namespace {

/// Programs can bind to them then.
bool has_one_of(const std::vector<IpAddress>& addresses) {
    ifaddrs* all = nullptr;
    if (::getifaddrs(&all) != 0) return false;
    std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owner{all, ::freeifaddrs};
    for (const ifaddrs* one = all; one != nullptr; one = one->ifa_next)
        if (one->ifa_addr != nullptr &&
            std::ranges::find(addresses, Endpoint::from_sockaddr(one->ifa_addr).address) != addresses.end())
            return true;
    return false;
}

} // namespace

Task<int> wait_until_running(LocalClient& client, Duration timeout) {
    TimePoint end = timeout > Duration{} ? client.reactor().now() + timeout : TimePoint::max();
    for (;;) {
        auto status = co_await client.status();
        if (status && status->backend_state == "Running" && status->tailscale_ips && has_one_of(*status->tailscale_ips))
            co_return 0;
        if (client.reactor().now() >= end)
            co_return fail(status ? fmt::format("timeout; the agent's state is {}", status->backend_state)
                                  : status.error().message());
        co_await client.reactor().sleep(std::chrono::milliseconds{200});
    }
}

} // namespace tailrace::cli
