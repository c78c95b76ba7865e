// tests/fakes/scripted_control.hpp - a control server on 127.0.0.1 that answers what a test tells it to.
#pragma once
#include "base/io/http1.hpp"
#include "base/io/http2.hpp"
#include "base/io/sealed_stream.hpp"
#include "base/io/socket.hpp"
#include "base/text.hpp"
#include "proto/noise.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace tailrace {

/// The way in is real (/key, /ts2021, Noise, HTTP/2); what comes through it goes to `on_request`.
class ScriptedControl {
public:
    explicit ScriptedControl(Reactor& reactor) : reactor_(reactor), listener_(make_listener(reactor)) {
        spawn(reactor, "scripted control", accept_loop());
    }

    Url url() const { return *Url::parse(fmt::format("http://127.0.0.1:{}", listener_.local().port)); }
    const MachineKey& key() const { return noise_.public_key(); }
    void close() { listener_.close(); }

    Http2Handler on_request;
    std::string key_answer;               ///< to GET /key instead of the truth
    int links = 0;                        ///< through Noise, so far
    std::vector<std::string> plain_heads; ///< what HEAD asked for outside Noise

private:
    static Listener make_listener(Reactor& reactor) {
        auto listener = Listener::tcp(reactor, Endpoint{IpAddress::v4(0x7f000001), 0});
        EXPECT_TRUE(listener) << listener.error().message();
        return std::move(*listener);
    }
    Task<void> accept_loop() {
        for (;;) {
            auto stream = co_await listener_.accept();
            if (!stream) co_return;
            HttpHandler handler = [this](HttpRequest request) { return answer(std::move(request)); };
            spawn(reactor_, "scripted connection",
                  serve_http1(std::move(*stream), std::move(handler), Http1ServerOptions{}));
        }
    }
    Task<HttpResponse> answer(HttpRequest request) {
        if (request.path() == "/key") {
            wire::OverTlsPublicKeyResponse keys;
            keys.public_key = noise_.public_key();
            co_return HttpResponse::json(200, key_answer.empty() ? wire::write_public_key_response(keys) : key_answer);
        }
        if (request.method == "HEAD") {
            plain_heads.push_back(request.target);
            co_return HttpResponse::text(200, "");
        }
        auto initiation = base64_decode(request.headers.get("X-Tailscale-Handshake"));
        if (request.path() != "/ts2021" || !initiation) co_return HttpResponse::text(404, "not found\n");
        HttpResponse response;
        response.status = 101;
        response.headers.add("Upgrade", "tailscale-control-protocol");
        response.headers.add("Connection", "upgrade");
        response.upgrade = [this, initiation = std::move(*initiation)](std::unique_ptr<Stream> stream) {
            return serve(std::move(stream), initiation);
        };
        co_return response;
    }
    Task<void> serve(std::unique_ptr<Stream> stream, Bytes initiation) {
        auto accepted = noise_.accept(initiation);
        if (!accepted) co_return;
        auto greeted = co_await stream->write_all(accepted->response);
        if (!greeted) co_return;
        ++links;
        auto sealed = std::make_unique<SealedStream>(std::move(stream), std::move(accepted->session));
        (void)co_await serve_http2(std::move(sealed), on_request, Http2Options{}); // until the client goes
    }

    Reactor& reactor_;
    NoiseServer noise_{MachinePrivateKey::generate()};
    Listener listener_;
};

} // namespace tailrace
