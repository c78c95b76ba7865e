#include "control/cli/admin_client.hpp"

#include "base/io/http1.hpp"
#include "base/io/socket.hpp"
#include "base/json/json.hpp"
#include "control/admin/messages.hpp"

#include <cerrno>

namespace tailrace {
namespace {

Task<Result<std::string>> ask(Reactor& reactor, std::string socket_path, HttpRequest request) {
    auto stream = co_await dial_unix(reactor, socket_path);
    if (!stream && (stream.error().code() == ENOENT || stream.error().code() == ECONNREFUSED))
        co_return Error::make("no tailrace-control answers at {}; start it (systemctl start tailrace-control) or name "
                              "its socket with --socket",
                              socket_path);
    if (!stream && (stream.error().code() == EACCES || stream.error().code() == EPERM))
        co_return Error::make("{} is for root and the server's own user: use sudo", socket_path);
    if (!stream) co_return stream.error();
    Http1Client client{std::move(*stream)};
    constexpr std::size_t kMostAnswer = 256 << 20;
    auto response = co_await client.request(std::move(request), kMostAnswer);
    if (!response) co_return response.error().with("ask tailrace-control");
    if (response->status / 100 == 2) co_return response->body;
    auto failure = json::parse<admin::Failure>(response->body);
    if (failure && !failure->error.empty()) co_return Error::make("{}", failure->error);
    co_return Error::make("tailrace-control answered {}", response->status);
}

Task<void> ask_and_stop(Reactor& reactor, std::string socket_path, HttpRequest request, Result<std::string>& answer) {
    answer = co_await ask(reactor, std::move(socket_path), std::move(request));
    reactor.stop();
}

} // namespace

Result<std::string> ask_server(const std::string& socket_path, std::string method, std::string target,
                               std::string body) {
    Reactor reactor;
    HttpRequest request;
    request.method = std::move(method);
    request.target = std::move(target);
    request.authority = "tailrace-control";
    request.body = std::move(body);
    Result<std::string> answer = Error::make("tailrace-control did not answer");
    spawn(reactor, "ask", ask_and_stop(reactor, socket_path, std::move(request), answer));
    reactor.run();
    return answer;
}

} // namespace tailrace
