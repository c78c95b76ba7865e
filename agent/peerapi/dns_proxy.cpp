#include "agent/peerapi/dns_proxy.hpp"

#include "base/file.hpp"
#include "base/io/socket.hpp"
#include "base/log.hpp"
#include "base/random.hpp"
#include "base/text.hpp"
#include "proto/dns_query.hpp"

#include <algorithm>
#include <cerrno>

namespace tailrace {
namespace {

constexpr const char* kType = "application/dns-message";
constexpr std::size_t kMostResolvers = 3;   // MAXNS of resolv.h
constexpr std::size_t kMostFile = 10 << 10; // Source: tailscale net/dns/resolver/tsdns.go
constexpr auto kEach = std::chrono::seconds{2};
constexpr std::uint16_t kPort = 53;

/// What is closed when the time is up; the coroutine that waits then ends.
template <typename Closable>
Timer deadline(Reactor& reactor, Closable& what, Duration patience) {
    Timer timer{reactor};
    timer.after(std::max<Duration>(patience, Duration{}), [&what] { what.close(); });
    return timer;
}

Task<Result<Bytes>> ask_by_udp(Reactor& reactor, Endpoint resolver, Bytes query, Duration patience) {
    auto bound = UdpSocket::bind(reactor, {resolver.address.is_v6() ? IpAddress::v6({}) : IpAddress::v4(0), 0}, {});
    if (!bound) co_return bound.error();
    UdpSocket socket = std::move(*bound);
    if (auto sent = socket.send(resolver, query); !sent) co_return sent.error();
    Timer timer = deadline(reactor, socket, patience);
    for (;;) {
        auto datagram = co_await socket.receive();
        if (!datagram && datagram.error().code() == ECANCELED) co_return Error::from_errno(ETIMEDOUT, "UDP");
        if (!datagram) co_return datagram.error();
        if (Endpoint{datagram->from.address.unmapped(), datagram->from.port} != resolver) continue;
        if (is_dns_answer(query, datagram->data)) co_return std::move(datagram->data);
    }
}

Task<Result<Bytes>> ask_by_tcp(Reactor& reactor, Endpoint resolver, Bytes query, Duration patience) {
    TimePoint end = reactor.now() + patience;
    DialOptions options;
    options.timeout = patience;
    auto stream = co_await dial_tcp(reactor, resolver.address.text(), resolver.port, options);
    if (!stream) co_return stream.error();
    Timer timer = deadline(reactor, **stream, end - reactor.now());
    Writer out; // RFC 1035 4.2.2: the length goes ahead
    out.be16(static_cast<std::uint16_t>(query.size()));
    out.bytes(query);
    if (auto sent = co_await (*stream)->write_all(out.view()); !sent) co_return sent.error();
    std::array<std::byte, 2> head{};
    if (auto read = co_await (*stream)->read_exactly(head); !read) co_return read.error();
    Bytes answer(Reader{head}.be16());
    if (auto read = co_await (*stream)->read_exactly(answer); !read) co_return read.error();
    if (!is_dns_answer(query, answer)) co_return Error::make("the answer belongs to another question");
    co_return answer;
}

Task<Result<Bytes>> ask_one(Reactor& reactor, Endpoint resolver, Bytes query, Duration patience) {
    TimePoint end = reactor.now() + patience;
    auto answer = co_await ask_by_udp(reactor, resolver, query, patience);
    if (!answer || !is_dns_truncated(*answer)) co_return answer;
    auto whole = co_await ask_by_tcp(reactor, resolver, std::move(query), end - reactor.now());
    if (whole) co_return whole;
    co_return answer; // the client can see that something is missing
}

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
        if (out.size() < kMostResolvers) out.push_back({*address, kPort});
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
        if (request.headers.get("Content-Type") != kType) return HttpResponse::text(400, "unexpected Content-Type\n");
        message = to_bytes(as_bytes(request.body));
    } else {
        return HttpResponse::text(400, "bad HTTP method\n");
    }
    if (auto query = parse_dns_query(message); !query) return HttpResponse::text(400, query.error().message() + "\n");
    return message;
}

Task<Result<Bytes>> ask_resolvers(Reactor& reactor, std::vector<Endpoint> resolvers, Bytes query, Duration patience) {
    TimePoint end = reactor.now() + patience;
    auto query_id = parse_dns_query(query);
    if (!query_id) co_return query_id.error();
    Result<Bytes> answer = Error::make("{} names no resolver that can be asked", kResolvConf);
    for (const Endpoint& resolver : resolvers) {
        Duration left = end - reactor.now();
        if (left <= Duration{}) break;
        // Clients of DNS over HTTP send 0 (RFC 8484 4.1), which anybody could guess.
        set_dns_id(query, static_cast<std::uint16_t>(random_below(0x10000)));
        answer = co_await ask_one(reactor, resolver, query, std::min<Duration>(left, kEach));
        if (answer) {
            set_dns_id(*answer, query_id->id);
            break;
        }
        answer = answer.error().with("ask {}", resolver.text());
    }
    co_return answer;
}

Task<HttpResponse> answer_dns_request(Reactor& reactor, HttpRequest request, std::string resolv_conf) {
    auto message = dns_message_of(request);
    if (auto* refusal = std::get_if<HttpResponse>(&message)) co_return std::move(*refusal);
    auto file = read_file(resolv_conf, kMostFile);
    std::vector<Endpoint> resolvers = file ? resolvers_in(*file) : std::vector<Endpoint>{};
    auto answer =
        co_await ask_resolvers(reactor, std::move(resolvers), std::move(std::get<Bytes>(message)), kDnsPatience);
    if (!answer) {
        log::debug("a peer's question about a name is not answered", {{"error", answer.error()}});
        co_return HttpResponse::text(500, "DNS forwarding error\n");
    }
    HttpResponse response;
    response.headers.add("Content-Type", kType);
    response.body = as_chars(*answer);
    co_return response;
}

} // namespace tailrace
