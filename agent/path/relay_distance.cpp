#include "agent/path/relay_distance.hpp"
#include "agent/path/echo.hpp"
#include "agent/relay/relay_dial.hpp"
#include "base/io/http1.hpp"

#include <algorithm>
#include <optional>

namespace tailrace {
namespace {

constexpr auto kEchoTime = std::chrono::seconds{1};
constexpr auto kHttpsTime = std::chrono::seconds{5};
constexpr auto kPatience = std::chrono::seconds{1}; // with the others, after the first answer
constexpr std::size_t kMostAnswerBytes = 8 << 10;

struct Round {
    Round(Reactor& reactor, NetReport first) : report(std::move(first)), news(reactor) {}
    NetReport report;
    Event news;
    std::size_t pending = 0;
    std::optional<TimePoint> first_answer;

    void note(TimePoint now, int region, Duration latency) {
        if (!first_answer) first_answer = now;
        auto [at, fresh] = report.region_latency.emplace(region, latency);
        if (!fresh) at->second = std::min(at->second, latency);
    }
    void ended() {
        --pending;
        news.notify();
    }
};

Task<void> ask_by_echo(Reactor& reactor, std::shared_ptr<Round> round, int region, IpAddress to, std::uint32_t mark) {
    auto latency = co_await measure_echo(reactor, to, mark, kEchoTime);
    if (latency) {
        round->note(reactor.now(), region, *latency);
        round->report.ipv4 = round->report.icmp_v4 = true;
    }
    round->ended();
}

struct HttpsAnswer {
    Duration latency{};
    bool v6 = false;
};

/// The time of one small request on a connection that stands: dialling and TLS take longer for other reasons.
Task<Result<HttpsAnswer>> ask_node(Reactor& reactor, wire::DerpNode node, std::uint32_t mark, TimePoint deadline) {
    auto stream = co_await dial_relay_node(reactor, node, mark);
    if (!stream) co_return stream.error();
    HttpsAnswer answer;
    answer.v6 = (*stream)->peer().address.unmapped().is_v6();
    Http1Client http{std::move(*stream)};
    Timer timer{reactor};
    timer.after(std::max<Duration>(deadline - reactor.now(), Duration{}), [&http] { http.stream().close(); });
    HttpRequest request;
    request.target = "/derp/latency-check";
    request.authority = node.host_name;
    TimePoint begin = reactor.now();
    auto response = co_await http.request(std::move(request), kMostAnswerBytes);
    if (!response) co_return response.error();
    if (response->status > 299) co_return Error::make("{} answered {}", node.host_name, response->status);
    answer.latency = reactor.now() - begin;
    co_return answer;
}

Task<void> ask_by_https(Reactor& reactor, std::shared_ptr<Round> round, wire::DerpRegion region, int number,
                        std::uint32_t mark) {
    TimePoint deadline = reactor.now() + kHttpsTime;
    for (const wire::DerpNode& node : region.nodes) {
        if (node.stun_only) continue;
        if (reactor.now() >= deadline) break;
        auto answer = co_await ask_node(reactor, node, mark, deadline);
        if (!answer) continue; // another node of the region
        round->note(reactor.now(), number, answer->latency);
        (answer->v6 ? round->report.ipv6 : round->report.ipv4) = true;
        break;
    }
    round->ended();
}

} // namespace

Task<NetReport> measure_relay_distance(Reactor& reactor, wire::DerpMap map, std::uint32_t mark, NetReport report,
                                       RelayEcho echo) {
    auto round = std::make_shared<Round>(reactor, std::move(report));
    TimePoint end = reactor.now() + kHttpsTime;
    if (map.regions)
        for (const auto& [number, region] : *map.regions) {
            if (!region || region->no_measure_no_home || region->avoid || region->nodes.empty()) continue;
            ++round->pending;
            spawn(reactor, "HTTPS latency", ask_by_https(reactor, round, *region, number, mark));
            auto address = IpAddress::parse(region->nodes.front().ipv4);
            if (echo == RelayEcho::No || !address || !address->is_v4()) continue;
            ++round->pending;
            spawn(reactor, "ICMP latency", ask_by_echo(reactor, round, number, *address, mark));
        }
    while (round->pending > 0) {
        TimePoint now = reactor.now();
        TimePoint until = round->first_answer ? std::min<TimePoint>(end, *round->first_answer + kPatience) : end;
        if (now >= until) break;
        (void)co_await round->news.wait_for(until - now); // an answer, or time
    }
    co_return round->report;
}

} // namespace tailrace
