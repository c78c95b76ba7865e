#include "agent/local/metrics_server.hpp"

#include "agent/local/prometheus.hpp"

namespace tailrace {

Task<void> MetricsServer::run(Listener& listener) {
    for (;;) {
        auto stream = co_await listener.accept();
        if (!stream) co_return;
        if (connections_ >= kMostConnections) continue;
        spawn(reactor_, "metrics client", serve(std::move(*stream)));
    }
}

Task<void> MetricsServer::serve(std::unique_ptr<Stream> stream) {
    ++connections_;
    HttpHandler handler = [this](HttpRequest request) { return handle(std::move(request)); };
    Http1ServerOptions options;
    options.body_limit_bytes = 0;
    options.request_timeout = std::chrono::seconds{10};
    co_await serve_http1(std::move(stream), std::move(handler), options);
    --connections_;
}

Task<HttpResponse> MetricsServer::handle(HttpRequest request) {
    if (request.headers.has("Origin")) co_return HttpResponse::text(403, "not for browsers\n");
    if (request.path() != "/metrics") co_return HttpResponse::text(404, "try /metrics\n");
    if (request.method != "GET" && request.method != "HEAD") co_return HttpResponse::text(405, "want GET\n");
    HttpResponse response;
    response.headers.add("Content-Type", kPrometheusContentType);
    response.body = backend_.metrics_text();
    co_return response;
}

} // namespace tailrace
