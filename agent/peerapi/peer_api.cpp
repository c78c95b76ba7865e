#include "agent/peerapi/peer_api.hpp"
#include "base/io/html.hpp"
#include "base/log.hpp"

#include <boost/crc.hpp>

#include <algorithm>
#include <cerrno>

namespace tailrace {
namespace {

constexpr int kAttempts = 5; // at the ports that follow from the address; then any
constexpr std::size_t kMostBody = 64 << 10;

/// A browser that was led here by somebody else's page, or by a name that is not ours (DNS rebinding), is refused.
bool is_foreign(const HttpRequest& request, const std::vector<IpAddress>& own) {
    if (request.headers.has("Referer") || request.headers.has("Origin")) return true;
    if (request.authority == "peer") return false;
    auto host = Endpoint::parse(request.authority);
    return !host || std::ranges::find(own, host->address) == own.end();
}

} // namespace

std::uint16_t peer_api_port(const IpAddress& address, int attempt) {
    auto bytes = address.bytes();
    std::array<unsigned char, 3> last{};
    for (std::size_t i = 0; i < last.size(); ++i)
        last[i] = static_cast<unsigned char>(bytes[bytes.size() - last.size() + i]);
    last[0] = static_cast<unsigned char>(last[0] + attempt);
    boost::crc_32_type crc;
    crc.process_bytes(last.data(), last.size());
    return static_cast<std::uint16_t>(32768u | (crc.checksum() & 0xffffu));
}

HttpResponse answer_peer(const HttpRequest& request, const PeerApiCaller& caller, const std::vector<IpAddress>& own) {
    if (is_foreign(request, own)) return HttpResponse::text(403, "invalid peerapi request\n");
    if (request.path() != "/") return HttpResponse::text(404, "unsupported peerapi path\n");
    HttpResponse response;
    response.headers.add("Content-Type", "text/html; charset=utf-8");
    response.headers.add("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'");
    response.headers.add("X-Content-Type-Options", "nosniff");
    response.body = fmt::format("<!doctype html>\n<title>tailrace</title>\n<p>Hello {}, you come from {}.</p>\n",
                                html_escaped(caller.user), html_escaped(caller.name));
    return response;
}

PeerApi::PeerApi(Reactor& reactor, Who who, MayAskNames may_ask_names, AskNames ask_names)
    : reactor_(reactor), who_(std::move(who)), may_ask_names_(std::move(may_ask_names)),
      ask_names_(std::move(ask_names)) {}

PeerApi::~PeerApi() {
    *alive_ = false;
    for (auto& [address, listener] : listeners_) listener->close();
}

std::unique_ptr<Listener> PeerApi::listen(const IpAddress& address) {
    for (int attempt = 0; attempt <= kAttempts; ++attempt) {
        std::uint16_t port = attempt < kAttempts ? peer_api_port(address, attempt) : std::uint16_t{0};
        auto opened = Listener::tcp(reactor_, {address, port});
        if (opened) return std::make_unique<Listener>(std::move(*opened));
        if (opened.error().code() != EADDRINUSE) {
            log::debug("no peer API", {{"address", address.text()}, {"error", opened.error()}});
            return nullptr;
        }
    }
    return nullptr;
}

bool PeerApi::set_addresses(const std::vector<IpAddress>& addresses) {
    std::uint16_t before4 = port4(), before6 = port6();
    own_ = addresses;
    std::erase_if(listeners_, [&](auto& entry) {
        bool gone = std::ranges::find(addresses, entry.first) == addresses.end();
        if (gone) entry.second->close();
        return gone;
    });
    for (const IpAddress& address : addresses) {
        if (listeners_.contains(address)) continue;
        std::shared_ptr<Listener> listener = listen(address);
        if (!listener) continue;
        listeners_[address] = listener;
        spawn(reactor_, "peer API", accept(alive_, this, listener));
    }
    return port4() != before4 || port6() != before6;
}

std::uint16_t PeerApi::port_of(bool v6) const {
    for (const auto& [address, listener] : listeners_)
        if (address.is_v6() == v6) return listener->local().port;
    return 0;
}

Task<void> PeerApi::accept(std::shared_ptr<bool> alive, PeerApi* self, std::shared_ptr<Listener> listener) {
    for (;;) {
        auto stream = co_await listener->accept();
        if (!*alive || !stream) co_return;
        auto caller = self->who_((*stream)->peer().address.unmapped());
        if (!caller || self->connections_ >= kMostConnections) continue; // closed without a word
        ++self->connections_;
        spawn(self->reactor_, "a peer's request", serve(alive, self, std::move(*stream), std::move(*caller)));
    }
}

Task<void> PeerApi::serve(std::shared_ptr<bool> alive, PeerApi* self, std::unique_ptr<Stream> stream,
                          PeerApiCaller caller) {
    HttpHandler handler = [alive, self, caller](HttpRequest request) -> Task<HttpResponse> {
        if (!*alive) co_return HttpResponse::text(503, "stopping\n");
        if (is_foreign(request, self->own_) || !is_dns_request(request))
            co_return answer_peer(request, caller, self->own_);
        if (!self->may_ask_names_(caller.address)) co_return HttpResponse::text(403, "DNS access denied\n");
        co_return co_await answer_dns_request(std::move(request), self->ask_names_);
    };
    Http1ServerOptions options;
    options.body_limit_bytes = kMostBody;
    co_await serve_http1(std::move(stream), std::move(handler), options);
    if (*alive) --self->connections_;
}

Task<Result<Duration>> ask_peer_api(Reactor& reactor, Endpoint at, Duration timeout) {
    TimePoint begin = reactor.now();
    DialOptions options;
    options.timeout = timeout;
    auto stream = co_await dial_tcp(reactor, at.address.text(), at.port, options);
    if (!stream) co_return stream.error();
    Http1Client http{std::move(*stream)};
    Timer timer{reactor};
    bool late = false;
    timer.after(std::max<Duration>(timeout - (reactor.now() - begin), Duration{}), [&] {
        late = true;
        http.stream().close();
    });
    HttpRequest request;
    request.method = "HEAD";
    request.authority = at.text();
    auto response = co_await http.request(std::move(request), kMostBody);
    if (late) co_return Error::from_errno(ETIMEDOUT, "ask {}", at.text());
    if (!response) co_return response.error();
    if (response->status != 200)
        co_return Error::make("HTTP status {} {}", response->status, status_reason(response->status));
    co_return reactor.now() - begin;
}

} // namespace tailrace
