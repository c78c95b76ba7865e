#include "agent/cli/local_client.hpp"
#include "agent/cli/format.hpp"
#include "agent/version.hpp"
#include "base/json/json.hpp"
#include "base/text.hpp"

#include <cstdio>
#include <unistd.h>

namespace tailrace::cli {
namespace {

constexpr std::size_t kAnswerLimit = 64 << 20;

std::string error_text(const HttpResponse& response) {
    std::string text{trim(response.body)};
    if (auto value = json::parse_value(text); value && value->is_object())
        for (const char* name : {"error", "Error"})
            if (const auto* member = value->get_object().if_contains(name); member != nullptr && member->is_string())
                return std::string{member->get_string().c_str()};
    return text.empty() ? fmt::format("the agent answered {}", response.status) : text;
}

Error refusal(const HttpResponse& response) {
    std::string text = error_text(response);
    if (response.status == 403) {
        text = "Access denied: " + text;
        if (::geteuid() != 0)
            text += "\n\nUse 'sudo tailrace ...'.\nTo not require root, use 'sudo tailrace set --operator=$USER' once.";
    }
    return Error::make("{}", text);
}

HttpRequest local_request(std::string method, std::string target, std::string body) {
    HttpRequest request;
    request.method = std::move(method);
    request.target = std::move(target);
    request.authority = "local-tailscaled.sock";
    request.headers.add("Tailscale-Cap", std::to_string(kCapabilityVersion));
    request.body = std::move(body);
    return request;
}

} // namespace

Task<Result<std::string>> Bus::next_line() {
    for (;;) {
        if (auto end = arrived_.find('\n'); end != std::string::npos) {
            std::string line = arrived_.substr(0, end);
            arrived_.erase(0, end + 1);
            if (!trim(line).empty()) co_return line;
            continue;
        }
        auto more = co_await client_->read_body_some();
        if (!more) co_return more.error();
        if (more->empty()) co_return std::string{};
        arrived_ += *more;
    }
}

Task<Result<std::unique_ptr<Http1Client>>> LocalClient::connect() {
    std::string path = socket_;
    auto stream = co_await dial_unix(reactor_, path);
    if (!stream)
        co_return Error::make(
            "failed to connect to the local tailraced; it doesn't appear to be running ({}); start it with "
            "\"sudo systemctl start tailraced\"",
            stream.error().message());
    co_return std::make_unique<Http1Client>(std::move(*stream));
}

void LocalClient::look_at_version(const HttpResponse& response) {
    if (std::exchange(looked_at_version_, true)) return;
    std::string warning = version_skew_text(kVersion, response.headers.get("Tailscale-Version"));
    if (!warning.empty()) fmt::print(stderr, "{}\n", warning);
}

Task<Result<std::string>> LocalClient::request(std::string method, std::string target, std::string body) {
    auto client = co_await connect();
    if (!client) co_return client.error();
    HttpRequest request = local_request(std::move(method), std::move(target), std::move(body));
    if (!reason_.empty()) request.headers.add("X-Tailscale-Reason", base64_encode(as_bytes(reason_)));
    auto response = co_await (*client)->request(std::move(request), kAnswerLimit);
    if (!response) co_return response.error().with("talk to tailraced");
    look_at_version(*response);
    if (response->status / 100 != 2) co_return refusal(*response);
    co_return std::move(response->body);
}

Task<Result<std::unique_ptr<Bus>>> LocalClient::watch(int mask) {
    co_return co_await stream(fmt::format("/localapi/v0/watch-ipn-bus?mask={}", mask));
}

Task<Result<std::unique_ptr<Bus>>> LocalClient::stream(std::string target) {
    auto client = co_await connect();
    if (!client) co_return client.error();
    HttpRequest request = local_request("GET", std::move(target), "");
    auto head = co_await (*client)->start(std::move(request));
    if (!head) co_return head.error().with("watch tailraced");
    look_at_version(*head);
    if (head->status != 200) {
        auto body = co_await (*client)->read_body_some();
        if (body) head->body = *body;
        co_return refusal(*head);
    }
    co_return std::make_unique<Bus>(std::move(*client));
}

Task<Result<Status>> LocalClient::status() {
    auto body = co_await request("GET", "/localapi/v0/status", "");
    if (!body) co_return body.error();
    co_return parse_status(*body);
}

Task<Result<Prefs>> LocalClient::prefs() {
    auto body = co_await request("GET", "/localapi/v0/prefs", "");
    if (!body) co_return body.error();
    co_return parse_prefs(*body);
}

Task<Result<void>> LocalClient::edit_prefs(std::string masked) {
    auto body = co_await request("PATCH", "/localapi/v0/prefs", std::move(masked));
    if (!body) co_return body.error();
    co_return Result<void>{};
}

} // namespace tailrace::cli
