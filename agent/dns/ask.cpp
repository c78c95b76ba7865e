#include "agent/dns/ask.hpp"

#include "base/io/http1.hpp"
#include "base/io/socket.hpp"
#include "base/random.hpp"
#include "proto/dns_query.hpp"

#include <algorithm>
#include <cerrno>

namespace tailrace {
namespace {

constexpr auto kUdpAlone = std::chrono::seconds{2}; // then TCP is tried, too. Source: dns.md 4.3
constexpr std::uint16_t kMostUdp = 4095;            // what we offer to servers. Source: dns.md 4.3

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
    if (auto connected = socket.connect(resolver); !connected) co_return connected.error();
    if (auto sent = socket.send(resolver, query); !sent) co_return sent.error();
    Timer timer = deadline(reactor, socket, patience);
    for (;;) {
        auto datagram = co_await socket.receive();
        if (!datagram && datagram.error().code() == ECANCELED) co_return Error::from_errno(ETIMEDOUT, "UDP");
        if (!datagram) co_return datagram.error();
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

/// RFC 8484 4.1
Task<Result<Bytes>> ask_by_http(Reactor& reactor, DnsUpstream upstream, Bytes query, Duration patience) {
    TimePoint end = reactor.now() + patience;
    DialOptions options;
    options.timeout = patience;
    auto stream = co_await dial_tcp(reactor, upstream.at.address.text(), upstream.at.port, options);
    if (!stream) co_return stream.error();
    Http1Client http{std::move(*stream)};
    Timer timer = deadline(reactor, http.stream(), end - reactor.now());
    HttpRequest request;
    request.method = "POST";
    request.target = upstream.path;
    request.authority = upstream.at.text();
    request.headers.add("Content-Type", kDnsMediaType);
    request.headers.add("Accept", kDnsMediaType);
    request.body = as_chars(query);
    auto response = co_await http.request(std::move(request), kMostDnsMessage);
    if (!response) co_return response.error();
    if (response->status != 200)
        co_return Error::make("HTTP status {} {}", response->status, status_reason(response->status));
    if (response->headers.get("Content-Type") != kDnsMediaType)
        co_return Error::make("the answer over HTTP is no DNS message");
    Bytes answer = to_bytes(as_bytes(response->body));
    if (!is_dns_answer(query, answer)) co_return Error::make("the answer belongs to another question");
    co_return answer;
}

bool is_good(const Result<Bytes>& answer) {
    return answer && !is_dns_failure(*answer);
}

Task<Result<Bytes>> ask_one(Reactor& reactor, DnsUpstream upstream, Bytes query, DnsTransport transport,
                            Duration patience) {
    TimePoint end = reactor.now() + patience;
    // Everybody could guess the ID of who asks us, and 0, which clients of DNS over HTTP send.
    set_dns_id(query, static_cast<std::uint16_t>(random_below(0x10000)));
    if (!upstream.path.empty()) co_return co_await ask_by_http(reactor, upstream, std::move(query), patience);
    Result<Bytes> first = Error::make("not asked");
    if (transport == DnsTransport::Udp)
        first = co_await ask_by_udp(reactor, upstream.at, query, std::min<Duration>(patience, kUdpAlone));
    if (is_good(first)) co_return first; // cut or not: who asked can see it, and ask by TCP
    Result<Bytes> second = Error::from_errno(ETIMEDOUT, "TCP");
    if (Duration left = end - reactor.now(); left > Duration{})
        second = co_await ask_by_tcp(reactor, upstream.at, query, left);
    if (is_good(second)) co_return second;
    if (transport == DnsTransport::Tcp && !second)
        if (Duration left = end - reactor.now(); left > Duration{})
            co_return co_await ask_by_udp(reactor, upstream.at, std::move(query), left);
    if (first) co_return first;
    co_return second;
}

struct Race {
    explicit Race(Reactor& reactor) : over(reactor) {}
    Event over;
    std::size_t running = 0;
    Result<Bytes> best = Error::make("there is nobody to ask");
    bool won = false;
};

Task<void> run(Reactor& reactor, std::shared_ptr<Race> race, DnsUpstream upstream, Bytes query, DnsTransport transport,
               Duration patience) {
    std::string who = upstream.text();
    auto answer = co_await ask_one(reactor, std::move(upstream), std::move(query), transport, patience);
    --race->running;
    if (!race->won) {
        race->won = is_good(answer);
        if (race->won || !race->best)
            race->best = answer ? std::move(answer) : Result<Bytes>{answer.error().with("ask {}", who)};
    }
    if (race->won || race->running == 0) race->over.notify();
}

} // namespace

Task<Result<Bytes>> ask_upstreams(Reactor& reactor, std::vector<DnsUpstream> upstreams, Bytes query,
                                  DnsTransport transport, Duration patience) {
    auto question = parse_dns_query(query);
    if (!question) co_return question.error();
    limit_dns_udp_size(query, kMostUdp);
    auto race = std::make_shared<Race>(reactor);
    race->running = upstreams.size();
    if (!upstreams.empty()) race->best = Error::from_errno(ETIMEDOUT, "ask {}", upstreams.front().text());
    for (DnsUpstream& upstream : upstreams)
        spawn(reactor, "ask a resolver", run(reactor, race, std::move(upstream), query, transport, patience));
    if (race->running > 0 && !race->won) (void)co_await race->over.wait_for(patience);
    if (!race->best) co_return race->best.error();
    Bytes answer = *race->best;
    set_dns_id(answer, question->id);
    co_return answer;
}

Task<Result<Bytes>> ask_in_turn(Reactor& reactor, std::vector<DnsUpstream> upstreams, Bytes query, Duration patience) {
    TimePoint end = reactor.now() + patience;
    Result<Bytes> answer = Error::make("there is nobody to ask");
    for (const DnsUpstream& upstream : upstreams) {
        Duration left = end - reactor.now();
        if (left <= Duration{}) break;
        std::vector<DnsUpstream> one{upstream};
        answer = co_await ask_upstreams(reactor, std::move(one), query, DnsTransport::Udp,
                                        std::min<Duration>(left, kUdpAlone));
        if (!answer || !is_dns_truncated(*answer)) {
            if (answer) break;
            continue;
        }
        one = {upstream};
        left = end - reactor.now();
        if (left <= Duration{}) break;
        auto whole = co_await ask_upstreams(reactor, std::move(one), query, DnsTransport::Tcp, left);
        if (whole) answer = std::move(whole); // else the client can see that something is missing
        break;
    }
    co_return answer;
}

} // namespace tailrace
