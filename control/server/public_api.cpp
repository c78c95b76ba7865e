#include "control/server/public_api.hpp"

#include "base/io/html.hpp"
#include "base/io/websocket.hpp"
#include "base/json/json.hpp"
#include "control/server/noise_api.hpp"
#include "proto/control/requests.hpp"

namespace tailrace {

namespace {

constexpr std::string_view kUpgradeToken = "tailscale-control-protocol";
constexpr std::size_t kVerifyLimit = 4096;

HttpResponse text_line(int status, std::string_view text) {
    return HttpResponse::text(status, std::string{text} + "\n");
}

/// Source: control-protocol.md 1.2.
HttpResponse on_key(const HttpRequest& request, const NoiseServer& noise) {
    std::string version = request.query("v");
    if (version.empty()) return text_line(400, "capability version must be set");
    if (!parse_number<int>(version)) return text_line(400, "invalid capability version");
    wire::OverTlsPublicKeyResponse keys;
    keys.public_key = noise.public_key();
    return HttpResponse::json(200, wire::write_public_key_response(keys));
}

HttpResponse on_ts2021(const HttpRequest& request, Coordinator& coordinator, const NoiseServer& noise) {
    auto serve = [&coordinator, &noise](Bytes initiation) {
        return [&coordinator, &noise, initiation = std::move(initiation)](std::unique_ptr<Stream> stream) {
            return serve_noise(coordinator, noise, std::move(stream), initiation);
        };
    };
    if (wants_websocket(request)) {
        auto initiation = base64_decode(request.query("X-Tailscale-Handshake"));
        if (!initiation || initiation->empty())
            return text_line(400, "missing or invalid X-Tailscale-Handshake parameter");
        return accept_websocket(request, std::string{kUpgradeToken}, serve(std::move(*initiation)));
    }
    if (request.method != "POST") return text_line(405, "use POST with an upgrade, or a WebSocket");
    std::string_view wanted = request.headers.get("Upgrade");
    if (wanted.empty()) return text_line(400, "missing next protocol");
    if (!equals_ignoring_case(wanted, kUpgradeToken)) return text_line(400, "unknown next protocol");
    std::string_view header = request.headers.get("X-Tailscale-Handshake");
    if (header.empty()) return text_line(400, "missing Tailscale handshake header");
    auto initiation = base64_decode(header);
    if (!initiation) return text_line(400, "invalid tailscale handshake header");
    HttpResponse response;
    response.status = 101;
    response.headers.add("Upgrade", std::string{kUpgradeToken});
    response.headers.add("Connection", "upgrade");
    response.upgrade = serve(std::move(*initiation));
    return response;
}

/// A relay asks whether it may serve a client (control-protocol.md 8.2).
HttpResponse on_verify(const HttpRequest& request, Coordinator& coordinator) {
    if (request.body.size() > kVerifyLimit) return text_line(413, "request too large");
    auto asked = wire::parse_derp_admit_request(request.body);
    if (!asked) return text_line(400, fmt::format("bad request: {}", asked.error().message()));
    wire::DerpAdmitClientResponse answer;
    answer.allow = coordinator.tailnet().node_by_key(asked->node_public) != nullptr;
    return HttpResponse::json(200, wire::write_derp_admit_response(answer));
}

HttpResponse page(int status, std::string_view title, std::string_view body) {
    HttpResponse response;
    response.status = status;
    response.headers.add("Content-Type", "text/html; charset=utf-8");
    response.body = fmt::format("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title>"
                                "<style>body{{font:16px sans-serif;max-width:46em;margin:3em auto;padding:0 1em}}"
                                "pre{{background:#eee;padding:1em;overflow:auto}}</style></head>"
                                "<body><h1>{0}</h1>{1}</body></html>\n",
                                title, body);
    return response;
}

HttpResponse on_register_page(std::string_view id, Coordinator& coordinator) {
    if (!coordinator.tailnet().is_pending(id))
        return page(404, "Nothing waits here",
                    "<p>No machine waits for approval under this address: it was approved already, or it waited longer "
                    "than 15 minutes. Run <code>tailscale up</code> again to get a new one.</p>");
    return page(
        200, "A machine asks to join",
        fmt::format("<p>An administrator lets it in by running this on the control server, with the name of the "
                    "user it shall belong to:</p><pre>tailrace-control nodes register --user USER --key {}</pre>",
                    html_escaped(id)));
}

HttpResponse route(const HttpRequest& request, Coordinator& coordinator, const NoiseServer& noise) {
    std::string path = request.path();
    bool get = request.method == "GET" || request.method == "HEAD";
    if (path == "/ts2021") return on_ts2021(request, coordinator, noise);
    if (path == "/verify")
        return request.method == "POST" ? on_verify(request, coordinator) : text_line(405, "use POST");
    if (!get) return text_line(path.starts_with("/machine/") ? 404 : 405, "not here");
    if (path == "/key") return on_key(request, noise);
    if (path == "/health")
        return coordinator.healthy() ? HttpResponse::json(200, R"({"status":"pass"})")
                                     : HttpResponse::json(500, R"({"status":"fail"})");
    if (path == "/version") return HttpResponse::json(200, fmt::format(R"({{"version":"{}"}})", TAILRACE_VERSION));
    if (path == "/robots.txt") return text_line(200, "User-agent: *\nDisallow: /");
    if (path == "/bootstrap-dns")
        return HttpResponse::json(200, "{}"); // we run no relay whose names we could vouch for
    if (path.starts_with("/register/")) return on_register_page(std::string_view{path}.substr(10), coordinator);
    if (path == "/") return page(200, "tailrace-control", "<p>This is the coordination server of a tailnet.</p>");
    if (path == "/derp" || path.starts_with("/derp/")) return text_line(404, "this server runs no relay");
    return text_line(404, "not found");
}

Task<HttpResponse> answer_api(Coordinator& coordinator, Api& api, HttpRequest request) {
    Api::Answer answer = api.answer(coordinator.tailnet(), WallTime::now(), request);
    if (!answer.changed) co_return std::move(answer.response);
    auto stored = co_await coordinator.commit(); // it has logged
    if (!stored) co_return Api::not_stored();
    co_return std::move(answer.response);
}

} // namespace

HttpHandler verify_handler(Coordinator& coordinator) {
    return [&coordinator](HttpRequest request) -> Task<HttpResponse> {
        bool right = request.path() == "/verify" && request.method == "POST";
        co_return right ? on_verify(request, coordinator) : text_line(404, "not found");
    };
}

HttpHandler public_handler(Coordinator& coordinator, const NoiseServer& noise, Api& api, EmbeddedRelay* relay) {
    return [&coordinator, &noise, &api, relay](HttpRequest request) -> Task<HttpResponse> {
        if (relay != nullptr && EmbeddedRelay::is_for_relay(request))
            co_return co_await relay->forward(std::move(request));
        HttpResponse response;
        if (Api::is_for_api(request))
            response = co_await answer_api(coordinator, api, std::move(request));
        else
            response = route(request, coordinator, noise);
        if (response.status != 101) {
            response.headers.add("X-Content-Type-Options", "nosniff");
            response.headers.add("X-Frame-Options", "DENY");
            response.headers.add("Content-Security-Policy", "frame-ancestors 'none'");
            response.headers.add("Referrer-Policy", "no-referrer");
        }
        co_return response;
    };
}

HttpHandler metrics_handler(Coordinator& coordinator) {
    return [&coordinator](HttpRequest request) -> Task<HttpResponse> {
        std::string path = request.path();
        HttpResponse response = text_line(404, "not found: /metrics and /health are here");
        if (path == "/metrics") response = HttpResponse::text(200, coordinator.metrics());
        if (path == "/health")
            response = text_line(coordinator.healthy() ? 200 : 500, coordinator.healthy() ? "ok" : "failing");
        co_return response;
    };
}

} // namespace tailrace
