#include "control/server/noise_api.hpp"

#include "base/io/sealed_stream.hpp"
#include "base/json/json.hpp"

namespace tailrace {

namespace {

/// One request of one machine.
struct Call {
    Coordinator& coordinator;
    MachineKey machine;
    std::shared_ptr<Http2Exchange> exchange;

    const HttpRequest& request() const { return exchange->request(); }
};

HttpResponse plain(int status, std::string_view text) {
    HttpResponse response;
    response.status = status;
    response.headers.add("content-type", "text/plain; charset=utf-8");
    response.body = std::string{text} + "\n";
    return response;
}

HttpResponse json_answer(std::string body) {
    HttpResponse response;
    response.headers.add("content-type", "application/json; charset=utf-8");
    response.body = std::move(body) + "\n";
    return response;
}

HttpResponse too_old(int version) {
    return plain(400, fmt::format("unsupported client version: capability version {} is below {}, upgrade the client",
                                  version, kMinimumClientVersion));
}

Task<void> answer(Call call, HttpResponse response) {
    (void)co_await call.exchange->respond(std::move(response)); // the client may have gone
}

Task<void> on_register(Call call) {
    auto request = wire::parse_register_request(call.request().body);
    if (!request) {
        HttpResponse bad = plain(400, fmt::format("bad register request: {}", request.error().message()));
        co_return co_await answer(call, std::move(bad));
    }
    if (request->version < kMinimumClientVersion) {
        HttpResponse old = too_old(request->version);
        co_return co_await answer(call, std::move(old));
    }
    auto response = co_await call.coordinator.register_machine(call.machine, std::move(*request), call.exchange);
    HttpResponse done = json_answer(wire::write_register_response(response));
    co_await answer(call, std::move(done));
}

Task<void> on_map(Call call) {
    auto request = wire::parse_map_request(call.request().body);
    if (!request) {
        HttpResponse bad = plain(400, fmt::format("bad map request: {}", request.error().message()));
        co_return co_await answer(call, std::move(bad));
    }
    if (request->version < kMinimumClientVersion) {
        HttpResponse old = too_old(request->version);
        co_return co_await answer(call, std::move(old));
    }
    NodePtr node = call.coordinator.authenticated(call.machine, request->node_key);
    if (!node) {
        HttpResponse unknown = plain(404, "node not found: this node key is not registered for this machine");
        co_return co_await answer(call, std::move(unknown));
    }
    if (request->stream) co_return co_await call.coordinator.stream_map(node->id(), std::move(*request), call.exchange);
    if (!request->read_only) co_await call.coordinator.lite_update(node->id(), *request);
    HttpResponse done;
    if (request->is_lite_update()) co_return co_await answer(call, std::move(done));
    auto compression = request->compress == "zstd" ? MapCompression::Zstd : MapCompression::None;
    auto pieces = co_await call.coordinator.map_once(node->id(), compression);
    for (const SharedText& piece : pieces) done.body += *piece;
    co_await answer(call, std::move(done));
}

/// The NodeKey of any request body, checked against the machine.
template <typename Request>
bool may_ask(const Call& call, const Result<Request>& request) {
    return request && call.coordinator.authenticated(call.machine, request->node_key) != nullptr;
}

Task<void> on_set_dns(Call call) {
    auto request = wire::parse_set_dns_request(call.request().body);
    HttpResponse response = may_ask(call, request)
                                ? plain(501, "this server does not publish DNS records for certificates")
                                : plain(401, "the node key does not belong to this machine");
    co_await answer(call, std::move(response));
}

Task<void> dispatch(Call call) {
    std::string path = call.request().path();
    const std::string& method = call.request().method;
    auto is = [&](std::string_view wanted_method, std::string_view wanted) {
        return path == wanted && method == wanted_method;
    };
    if (is("POST", "/machine/register")) co_return co_await on_register(call);
    if (is("POST", "/machine/map")) co_return co_await on_map(call);
    if (is("POST", "/machine/set-dns")) co_return co_await on_set_dns(call);
    HttpResponse response;
    if (path == "/machine/ping-response" && (method == "HEAD" || method == "POST")) {
        call.coordinator.on_answer(call.machine, call.request().query("id"), call.request().body);
        co_return co_await answer(call, std::move(response));
    }
    if (is("GET", "/machine/whoami"))
        response = plain(200, fmt::format("machine {}", call.machine.text()));
    else if (is("POST", "/machine/update-health"))
        response = plain(200, "ok"); // historic: clients no longer send it
    else if (is("PATCH", "/machine/set-device-attr") || is("POST", "/machine/audit-log") ||
             is("POST", "/machine/id-token") || is("POST", "/machine/feature/query"))
        response = plain(501, "not implemented by this server");
    else if (path.starts_with("/machine/tka/"))
        response = plain(404, "tailnet lock is not enabled");
    else if (path.starts_with("/machine/webclient/"))
        response = plain(404, "web client sessions are not offered");
    else
        response = plain(404, "no such path");
    co_await answer(call, std::move(response));
}

} // namespace

Task<void> serve_noise(Coordinator& coordinator, const NoiseServer& noise, std::unique_ptr<Stream> stream,
                       Bytes initiation) {
    auto accepted = noise.accept(initiation);
    if (!accepted) {
        log::debug("Noise handshake refused", {{"peer", stream->peer()}, {"error", accepted.error()}});
        co_return; // closing says enough (control-protocol.md 2.2)
    }
    auto greeted = co_await stream->write_all(accepted->response);
    if (!greeted) co_return;
    MachineKey machine = accepted->client;
    auto sealed = std::make_unique<SealedStream>(std::move(stream), std::move(accepted->session));
    Http2Handler handler = [&coordinator, machine](std::shared_ptr<Http2Exchange> exchange) {
        return dispatch(Call{coordinator, machine, std::move(exchange)});
    };
    Http2Options options;
    auto ended = co_await serve_http2(std::move(sealed), std::move(handler), options);
    if (!ended) log::debug("client connection ended", {{"machine", machine.short_text()}, {"error", ended.error()}});
}

} // namespace tailrace
