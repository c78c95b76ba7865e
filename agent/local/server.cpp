#include "agent/local/server.hpp"
#include "agent/engine/explanation.hpp"
#include "agent/local/prometheus.hpp"
#include "agent/version.hpp"
#include "base/json/json.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "proto/disco.hpp"

#include <cerrno>
#include <pwd.h>
#include <unistd.h>

namespace tailrace {
namespace {

HttpResponse bare(int status) {
    HttpResponse response;
    response.status = status;
    return response;
}

HttpResponse denied() {
    return HttpResponse::text(403, "access denied\n");
}

std::string error_object(std::string_view name, std::string_view text) {
    std::string out = "{";
    json::append_string(out, name);
    out += ':';
    json::append_string(out, text);
    return out + "}\n";
}

/// Of a name, or a number.
std::optional<uid_t> uid_of(const std::string& user) {
    struct passwd entry {};
    struct passwd* found = nullptr;
    char buffer[4096];
    if (::getpwnam_r(user.c_str(), &entry, buffer, sizeof buffer, &found) == 0 && found != nullptr)
        return found->pw_uid;
    if (auto number = parse_number<uid_t>(user)) return *number;
    return std::nullopt;
}

} // namespace

std::string refuse_foreign_request(const HttpRequest& request) {
    if (request.headers.has("Origin") || request.headers.has("Referer")) return "invalid localapi request\n";
    if (!request.authority.empty() && request.authority != "local-tailscaled.sock") return "invalid localapi request\n";
    return "";
}

bool LocalServer::may_write(uid_t uid) const {
    if (uid == 0 || uid == ::geteuid()) return true;
    const std::string& operator_user = backend_.prefs().operator_user;
    return !operator_user.empty() && uid_of(operator_user) == uid;
}

Task<void> LocalServer::run(Listener& listener) {
    for (;;) {
        auto stream = co_await listener.accept();
        if (!stream) co_return;
        auto who = peer_credentials((*stream)->descriptor().fd());
        if (!who) continue;
        spawn(reactor_, "local client", serve(std::move(*stream), who->uid));
    }
}

Task<void> LocalServer::serve(std::unique_ptr<Stream> stream, uid_t uid) {
    HttpHandler handler = [this, uid](HttpRequest request) { return handle(std::move(request), uid); };
    Http1ServerOptions options;
    options.body_limit_bytes = 4 << 20;
    co_await serve_http1(std::move(stream), std::move(handler), options);
}

Task<HttpResponse> LocalServer::handle(HttpRequest request, uid_t uid) {
    HttpResponse response;
    if (std::string refusal = refuse_foreign_request(request); !refusal.empty()) {
        response = HttpResponse::text(403, refusal);
    } else {
        bool write = may_write(uid);
        if (request.method != "GET" && request.method != "HEAD")
            log::debug("local request", {{"method", request.method}, {"path", request.path()}});
        if (auto why = base64_decode(request.headers.get("X-Tailscale-Reason")); write && why && !why->empty())
            log::info("somebody says why", {{"uid", uid}, {"path", request.path()}, {"reason", as_chars(*why)}});
        response = co_await route(std::move(request), write);
    }
    response.headers.add("Tailscale-Version", kVersion);
    response.headers.add("Tailscale-Cap", std::to_string(kCapabilityVersion));
    response.headers.add("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; script-src 'none'");
    response.headers.add("X-Frame-Options", "DENY");
    response.headers.add("X-Content-Type-Options", "nosniff");
    co_return response;
}

Result<void> LocalServer::check_lock(const Prefs& wanted) const {
    if (prefs_file_.empty()) return {};
    Prefs same = wanted;
    same.config = backend_.prefs().config;
    same.logged_out = backend_.prefs().logged_out;
    if (same == backend_.prefs()) return {};
    return Error::make("the settings of this node are declared in {0}: change them there, then \"systemctl reload "
                       "tailraced\"; or let the command line change them with \"locked: false\" in {0}",
                       prefs_file_);
}

Result<void> LocalServer::check_operator(const Prefs& wanted) const {
    const std::string& user = wanted.operator_user;
    if (user.empty() || user == backend_.prefs().operator_user || uid_of(user)) return {};
    return Error::make("--operator: this host has no user named \"{}\"", user);
}

HttpResponse LocalServer::watch_bus(int mask) {
    HttpResponse response;
    response.headers.add("Content-Type", "application/json");
    auto watcher = backend_.watch(mask);
    response.stream = [watcher](BodyWriter& writer) -> Task<void> {
        for (;;) {
            while (!watcher->lines.empty()) {
                std::string line = std::move(watcher->lines.front());
                watcher->lines.pop_front();
                auto written = co_await writer.write(std::move(line));
                if (!written) co_return;
            }
            if (watcher->fell_behind) co_return;
            co_await watcher->wake.wait();
        }
    };
    return response;
}

/// Lines as they come, until the client leaves. `from` has `lines` and an event `wake`.
template <typename From>
HttpResponse stream_lines(std::shared_ptr<From> from) {
    HttpResponse response;
    response.headers.add("Content-Type", "application/json");
    response.stream = [from](BodyWriter& writer) -> Task<void> {
        for (;;) {
            while (!from->lines.empty()) {
                std::string line = std::move(from->lines.front());
                from->lines.pop_front();
                auto written = co_await writer.write(std::move(line));
                if (!written) co_return;
            }
            co_await from->wake.wait();
        }
    };
    return response;
}

HttpResponse LocalServer::capture_disco() {
    return stream_lines(backend_.capture_disco());
}

HttpResponse LocalServer::watch_packets(FlowWatcher::Wants wants) {
    auto watching = backend_.watch_packets(wants);
    if (!watching) return HttpResponse::text(503, watching.error().message() + "\n");
    return stream_lines(*watching);
}

Task<HttpResponse> LocalServer::route(HttpRequest request, bool write) {
    std::string path = request.path();
    const std::string& method = request.method;
    if (path == "/") co_return HttpResponse::text(200, "tailraced\n");
    constexpr std::string_view kPrefix = "/localapi/v0/";
    if (!path.starts_with(kPrefix)) co_return HttpResponse::text(404, "404 page not found\n");
    std::string name = path.substr(kPrefix.size());
    bool get = method == "GET", post = method == "POST";

    if (name == "status") {
        if (!get) co_return HttpResponse::text(405, "want GET\n");
        co_return HttpResponse::json(200, write_status(backend_.status(request.query("peers") != "false")));
    }
    if (name == "prefs") {
        if (method == "PATCH") {
            if (!write) co_return denied();
            auto wanted = apply_masked_prefs(backend_.prefs(), request.body);
            Result<void> done = wanted ? check_lock(*wanted) : Result<void>{wanted.error()};
            if (done) done = check_operator(*wanted);
            if (done && wanted->routes() != backend_.prefs().routes()) backend_.forget_learned_routes();
            const bool stops = done && backend_.prefs().want_running && !wanted->want_running;
            if (done) done = backend_.edit_prefs(*wanted);
            if (!done) co_return HttpResponse::json(400, error_object("Error", done.error().message()));
            if (stops) done = co_await backend_.wait_until_down(); // whoever asked may look for what is left
            if (!done) co_return HttpResponse::json(500, error_object("Error", done.error().message()));
        } else if (!get) {
            co_return HttpResponse::text(405, "unsupported method\n");
        }
        co_return HttpResponse::json(200, write_prefs(backend_.prefs().without_secrets()));
    }
    if (name == "check-prefs") {
        if (!write) co_return denied();
        auto prefs = parse_prefs(request.body);
        if (!prefs) co_return HttpResponse::text(400, prefs.error().message() + "\n");
        auto checked = check_prefs(*prefs);
        if (checked) checked = check_operator(*prefs);
        co_return HttpResponse::json(200, checked ? "{}\n" : error_object("Error", checked.error().message()));
    }
    if (name == "start") {
        if (!write) co_return denied();
        if (!post) co_return HttpResponse::text(400, "want POST\n");
        auto value = json::parse_value(request.body);
        if (!value) co_return HttpResponse::text(400, value.error().message() + "\n");
        if (!value->is_object()) co_return HttpResponse::text(400, "want an object\n");
        Prefs wanted = backend_.prefs();
        std::string key;
        if (const auto* update = value->get_object().if_contains("UpdatePrefs");
            update != nullptr && update->is_object()) {
            wanted = Prefs{};
            if (auto read = json::read(*update, wanted); !read)
                co_return HttpResponse::text(400, read.error().message() + "\n");
        }
        if (const auto* text = value->get_object().if_contains("AuthKey"); text != nullptr && text->is_string())
            key = text->get_string().c_str();
        if (auto free = check_lock(wanted); !free) co_return HttpResponse::text(403, free.error().message() + "\n");
        if (auto known = check_operator(wanted); !known)
            co_return HttpResponse::text(400, known.error().message() + "\n");
        auto started = backend_.start_with(std::move(wanted), std::move(key));
        if (!started) co_return HttpResponse::text(500, started.error().message() + "\n");
        co_return bare(204);
    }
    if (name == "login-interactive") {
        if (!write) co_return denied();
        if (!post) co_return HttpResponse::text(400, "want POST\n");
        auto done = backend_.login_interactive();
        if (!done) co_return HttpResponse::text(500, done.error().message() + "\n");
        co_return bare(204);
    }
    if (name == "logout") {
        if (!write) co_return denied();
        if (!post) co_return HttpResponse::text(400, "want POST\n");
        auto done = co_await backend_.logout();
        if (!done) co_return HttpResponse::text(500, done.error().message() + "\n");
        co_return bare(204);
    }
    if (name == "whois") {
        auto found = backend_.whois(request.query("addr"));
        if (!found) {
            std::string text = found.error().message();
            if (auto end = text.rfind(": "); found.error().code() == 404 && end != std::string::npos) text.resize(end);
            co_return HttpResponse::text(found.error().code() == 404 ? 404 : 400, text + "\n");
        }
        co_return HttpResponse::json(200, *found);
    }
    if (name == "ping") {
        if (!post) co_return HttpResponse::text(400, "want POST\n");
        std::string ip = request.query("ip"), type = request.query("type");
        if (ip.empty() || type.empty()) co_return HttpResponse::text(400, "missing 'ip' or 'type' parameter\n");
        auto milliseconds = parse_number<int>(request.query("timeout_ms"));
        Duration timeout = std::chrono::seconds{5};
        if (milliseconds && *milliseconds > 0 && *milliseconds <= 60000)
            timeout = std::chrono::milliseconds{*milliseconds};
        int size_bytes = 0;
        if (std::string text = request.query("size"); !text.empty()) {
            auto given = parse_number<int>(text);
            if (!given || *given < 0) co_return HttpResponse::text(400, "invalid 'size' parameter\n");
            if (*given != 0 && type != "disco")
                co_return HttpResponse::text(400, "'size' parameter is only supported with disco pings\n");
            if (*given > kLargestDiscoPing)
                co_return HttpResponse::text(400, fmt::format("maximum value for 'size' is {}\n", kLargestDiscoPing));
            size_bytes = *given;
        }
        auto result = co_await backend_.ping(std::move(ip), std::move(type), timeout, size_bytes);
        co_return HttpResponse::json(200, write_ping_result(result));
    }
    if (name == "netcheck") {
        if (!post) co_return HttpResponse::text(400, "want POST\n");
        auto report = co_await backend_.netcheck();
        if (!report) co_return HttpResponse::text(500, report.error().message() + "\n");
        co_return HttpResponse::json(200, *report);
    }
    if (name == "watch-ipn-bus") {
        if (!get) co_return HttpResponse::text(405, "want GET\n");
        std::string text = request.query("mask");
        auto mask = text.empty() ? Result<int>{0} : parse_number<int>(text);
        if (!mask) co_return HttpResponse::text(400, "bad mask\n");
        if ((*mask & 256) != 0 && (*mask & (4096 | 8192 | 16384 | 32768)) != 0)
            co_return HttpResponse::text(400, "the rate limit does not go with peer changes\n");
        if ((*mask & 65536) != 0) co_return HttpResponse::text(400, "bad mask\n");
        co_return watch_bus(*mask);
    }
    if (name == "check-ip-forwarding") {
        std::string trouble =
            backend_.check_ip_forwarding({IpPrefix{IpAddress::v4(0), 0}, IpPrefix{IpAddress::v6({}), 0}});
        co_return HttpResponse::json(200, error_object("Warning", trouble));
    }
    if (name == "check-udp-gro-forwarding")
        co_return HttpResponse::json(200, error_object("Warning", backend_.check_udp_gro_forwarding()));
    if (name == "set-use-exit-node-enabled") {
        if (!write) co_return denied();
        if (!post) co_return HttpResponse::text(405, "use POST\n");
        std::string enabled = request.query("enabled");
        if (enabled != "true" && enabled != "false") co_return HttpResponse::text(400, "invalid 'enabled' parameter\n");
        auto wanted = with_exit_node_enabled(backend_.prefs(), enabled == "true");
        Result<void> done = wanted ? check_lock(*wanted) : Result<void>{wanted.error()};
        if (done) done = backend_.edit_prefs(*wanted);
        if (!done) co_return HttpResponse::json(400, error_object("Error", done.error().message()));
        co_return HttpResponse::json(200, write_prefs(backend_.prefs().without_secrets()));
    }
    if (name == "suggest-exit-node") {
        auto suggested = backend_.suggest_exit_node_json();
        if (!suggested) co_return HttpResponse::text(500, suggested.error().message() + "\n");
        co_return HttpResponse::json(200, *suggested);
    }
    if (name == "appc-route-info") {
        if (!get) co_return HttpResponse::text(405, "only GET allowed\n");
        co_return HttpResponse::json(200, backend_.app_connector_routes_json());
    }
    if (name == "check-accept-routes") // ours; the reference client has none
        co_return HttpResponse::json(
            200,
            error_object("Warning", join(backend_.check_accept_routes(request.query("over-lan") == "true"), "\n")));
    if (name == "dns-config") {
        if (!backend_.netmap().has_self()) co_return HttpResponse::text(503, "no network map\n");
        co_return HttpResponse::json(200, backend_.dns_config_json());
    }
    if (name == "dns-osconfig" || name == "dns-query") {
        if (!write) co_return denied();
        if (!get) co_return HttpResponse::text(405, "want GET\n");
        if (name == "dns-osconfig") co_return HttpResponse::json(200, backend_.dns_os_config_json());
        auto answer = co_await backend_.dns_query_json(request.query("name"), request.query("type"));
        if (!answer) co_return HttpResponse::text(500, answer.error().message() + "\n");
        co_return HttpResponse::json(200, *answer);
    }
    if (name == "derpmap") co_return HttpResponse::json(200, backend_.derp_map_json());
    if (name == "debug-drops") co_return HttpResponse::json(200, backend_.drops_json());
    if (name == "debug-packet-filter-rules") co_return HttpResponse::json(200, backend_.filter_json());
    if (name == "debug-explain") {
        auto question =
            parse_question(request.query("src"), request.query("dst"), request.query("port"), request.query("proto"));
        if (!question) co_return HttpResponse::text(400, question.error().message() + "\n");
        auto answer = backend_.explain_json(*question);
        if (!answer) co_return HttpResponse::text(500, answer.error().message() + "\n");
        co_return HttpResponse::json(200, *answer);
    }
    if (name == "debug-netmap") co_return HttpResponse::json(200, backend_.netmap_json());
    if (name == "debug-peer-relay-sessions") co_return HttpResponse::json(200, backend_.peer_relay_sessions_json());
    if (name == "debug-paths") {
        std::optional<NodeKey> only;
        if (std::string peer = request.query("peer"); !peer.empty()) {
            auto key = NodeKey::parse(peer);
            if (!key) co_return HttpResponse::text(400, key.error().message() + "\n");
            only = *key;
        }
        co_return HttpResponse::json(200, backend_.paths_json(only));
    }
    if (name == "usermetrics") {
        if (!get) co_return HttpResponse::text(405, "want GET\n");
        HttpResponse response;
        response.headers.add("Content-Type", kPrometheusContentType);
        response.body = backend_.metrics_text();
        co_return response;
    }
    if (name == "debug-flows" || name == "debug-follow-drops") {
        if (!write) co_return denied();
        if (!get) co_return HttpResponse::text(405, "want GET\n");
        co_return watch_packets(name == "debug-flows" ? FlowWatcher::Wants::Flows : FlowWatcher::Wants::Drops);
    }
    if (name == "debug-capture-disco") {
        if (!write) co_return denied();
        if (!get) co_return HttpResponse::text(405, "want GET\n");
        co_return capture_disco();
    }
    co_return HttpResponse::text(404, fmt::format("unknown local API path {}\n", path));
}

} // namespace tailrace
