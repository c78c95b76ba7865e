#include "agent/path/cloud_addresses.hpp"
#include "base/io/http1.hpp"
#include "base/io/socket.hpp"
#include "base/text.hpp"

#include <algorithm>

namespace tailrace {
namespace {

constexpr std::size_t kMostBytes = 16 << 10;
constexpr std::size_t kMostInterfaces = 32, kMostAddresses = 64;
constexpr std::size_t kMostTokenBytes = 4096;
constexpr int kNotFound = 404;
constexpr const char* kServerName = "EC2ws";

/// A connection of its own for each question, as the service may close it after any.
Task<Result<HttpResponse>> ask(Reactor& reactor, Endpoint service, std::uint32_t mark, TimePoint deadline,
                               HttpRequest request) {
    DialOptions options;
    options.timeout = deadline - reactor.now();
    options.mark = mark;
    if (options.timeout <= Duration{}) co_return Error::from_errno(ETIMEDOUT, "ask the cloud for addresses");
    auto stream = co_await dial_tcp(reactor, service.address.text(), service.port, options);
    if (!stream) co_return stream.error();
    Http1Client http{std::move(*stream)};
    Timer timer{reactor};
    timer.after(std::max<Duration>(deadline - reactor.now(), Duration{}), [&http] { http.stream().close(); });
    request.authority = service.address.text();
    request.headers.add("Connection", "close");
    co_return co_await http.request(std::move(request), kMostBytes);
}

} // namespace

bool is_amazon(std::string_view bios_vendor) {
    std::string_view name = trim(bios_vendor);
    return name == "Amazon EC2" || name.ends_with(".amazon");
}

std::vector<IpAddress> parse_cloud_addresses(std::string_view text) {
    std::vector<IpAddress> out;
    for (std::string_view line : split(text, '\n'))
        if (auto address = IpAddress::parse(trim(line)); address && address->valid() && !address->is_unspecified())
            out.push_back(*address);
    return out;
}

Task<Result<std::vector<IpAddress>>> ask_amazon(Reactor& reactor, Endpoint service, std::uint32_t mark) {
    const TimePoint deadline = reactor.now() + kCloudTime;
    HttpRequest wish;
    wish.method = "PUT";
    wish.target = "/latest/api/token";
    wish.headers.add("X-aws-ec2-metadata-token-ttl-seconds", "10");
    auto token = co_await ask(reactor, service, mark, deadline, std::move(wish));
    if (!token) co_return token.error();
    if (token->status != 200 || token->headers.get("Server") != kServerName)
        co_return Error::make("who answers at {} is not the metadata service of Amazon EC2", service.text());

    const bool is_one_word = std::ranges::all_of(token->body, [](char c) { return c > ' ' && c < 0x7f; });
    if (token->body.empty() || token->body.size() > kMostTokenBytes || !is_one_word)
        co_return Error::make("the metadata service gives a token that cannot be one");

    const std::string interfaces = "/latest/meta-data/network/interfaces/macs/";
    auto read = [&](const std::string& path) {
        HttpRequest request;
        request.target = path;
        request.headers.add("X-aws-ec2-metadata-token", token->body);
        return ask(reactor, service, mark, deadline, std::move(request));
    };
    auto list = co_await read(interfaces);
    if (!list) co_return list.error();
    if (list->status != 200 && list->status != kNotFound)
        co_return Error::make("the metadata service answers with status {}", list->status);
    std::vector<IpAddress> found;
    Result<void> outcome;
    std::size_t count = 0;
    if (list->status == 200)
        for (std::string_view line : split(list->body, '\n')) {
            const std::string mac{trim(line)};
            if (mac.empty() || ++count > kMostInterfaces) continue;
            const std::string own = interfaces + (mac.ends_with('/') ? mac : mac + "/");
            for (const char* kind : {"public-ipv4s", "ipv6s"}) {
                auto answer = co_await read(own + kind);
                if (!answer)
                    outcome = answer.error();
                else if (answer->status == 200)
                    for (const IpAddress& address : parse_cloud_addresses(answer->body)) found.push_back(address);
            }
        }
    std::ranges::sort(found);
    found.erase(std::unique(found.begin(), found.end()), found.end());
    if (found.size() > kMostAddresses) found.resize(kMostAddresses);
    if (found.empty() && !outcome) co_return outcome.error();
    co_return found;
}

} // namespace tailrace
