#include "agent/peerapi/dns_proxy.hpp"

#include "base/log.hpp"
#include "base/text.hpp"
#include "proto/dns_query.hpp"

#include <sodium.h>

namespace tailrace {
namespace {

constexpr std::size_t kMostResolvers = 3; // MAXNS of resolv.h

} // namespace

std::vector<std::string> nameservers_in(std::string_view resolv_conf) {
    constexpr std::string_view kKey = "nameserver";
    std::vector<std::string> out;
    for (std::string_view line : split(resolv_conf, '\n')) {
        line = trim(line);
        if (!line.starts_with(kKey) || line.size() <= kKey.size() + 1) continue;
        char behind = line[kKey.size()];
        if (behind == ' ' || behind == '\t') out.emplace_back(trim(line.substr(kKey.size())));
    }
    return out;
}

std::vector<Endpoint> resolvers_in(std::string_view resolv_conf) {
    std::vector<Endpoint> out;
    for (const std::string& text : nameservers_in(resolv_conf)) {
        auto address = IpAddress::parse(text);
        if (!address || !address->valid() || is_tailscale_address(*address)) continue;
        if (out.size() < kMostResolvers) out.push_back({*address, kDnsPort});
    }
    return out;
}

bool is_dns_request(const HttpRequest& request) {
    return request.path() == "/dns-query";
}

std::variant<Bytes, HttpResponse> dns_message_of(const HttpRequest& request) {
    Bytes message;
    if (request.method == "GET") {
        std::string text = request.query("dns");
        if (text.empty()) return HttpResponse::text(400, "missing 'dns' parameter\n");
        message.resize(text.size());
        std::size_t size = 0;
        if (sodium_base642bin(reinterpret_cast<unsigned char*>(message.data()), message.size(), text.data(),
                              text.size(), nullptr, &size, nullptr, sodium_base64_VARIANT_URLSAFE_NO_PADDING) != 0)
            return HttpResponse::text(400, "invalid 'dns' base64 encoding\n");
        message.resize(size);
    } else if (request.method == "POST") {
        if (request.headers.get("Content-Type") != kDnsMediaType)
            return HttpResponse::text(400, "unexpected Content-Type\n");
        message = to_bytes(as_bytes(request.body));
    } else {
        return HttpResponse::text(400, "bad HTTP method\n");
    }
    if (auto query = parse_dns_query(message); !query) return HttpResponse::text(400, query.error().message() + "\n");
    return message;
}

Task<HttpResponse> answer_dns_request(HttpRequest request, AskNames ask) {
    auto message = dns_message_of(request);
    if (auto* refusal = std::get_if<HttpResponse>(&message)) co_return std::move(*refusal);
    auto answer = co_await ask(std::move(std::get<Bytes>(message)));
    if (!answer) {
        log::debug("a peer's question about a name is not answered", {{"error", answer.error()}});
        co_return HttpResponse::text(500, "DNS forwarding error\n");
    }
    HttpResponse response;
    response.headers.add("Content-Type", kDnsMediaType);
    response.body = as_chars(*answer);
    co_return response;
}

} // namespace tailrace
