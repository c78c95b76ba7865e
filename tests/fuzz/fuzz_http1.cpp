// What a stranger sends to our HTTP server, the upgrade of /ts2021 included, and whole responses.
#include "base/io/http1.hpp"

#include <sys/socket.h>

#include <cstdint>
#include <cstdlib>

using namespace tailrace;

namespace {

Task<HttpResponse> answer(HttpRequest request) {
    if (!request.headers.has("upgrade")) {
        auto response = HttpResponse::text(200, request.path() + request.query("v") + request.body);
        co_return response;
    }
    HttpResponse response;
    response.status = 101;
    response.upgrade = [](std::unique_ptr<Stream> stream) -> Task<void> {
        std::byte first[101];
        (void)co_await stream->read_exactly(first); // a short initiation is an error, no more
    };
    co_return response;
}

Task<void> serve(Reactor& reactor, std::unique_ptr<Stream> stream) {
    co_await serve_http1(std::move(stream), answer, Http1ServerOptions{});
    reactor.stop();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    constexpr std::size_t kMost = 64 * 1024; // what a socket buffer takes at once
    if (size > kMost) return 0;
    if (auto response = parse_http1_response({reinterpret_cast<const char*>(data), size});
        response && response->body.size() > size)
        std::abort();
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) return 0;
    Reactor reactor;
    Fd client{ends[0]};
    spawn(reactor, "server", serve(reactor, std::make_unique<SocketStream>(reactor, Fd{ends[1]})));
    (void)!::send(client.get(), data, size, MSG_NOSIGNAL);
    ::shutdown(client.get(), SHUT_WR);
    reactor.run();
    return 0;
}
