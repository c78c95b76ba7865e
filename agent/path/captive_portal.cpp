#include "agent/path/captive_portal.hpp"
#include "base/io/http1.hpp"
#include "base/io/socket.hpp"

#include <algorithm>

namespace tailrace {
namespace {

constexpr auto kTime = std::chrono::seconds{3};
constexpr std::size_t kMostHosts = 5;
constexpr std::size_t kMostPortalBytes = 256 << 10;

std::string challenge_for(const std::string& host) {
    return "ts_" + host;
}

/// Empty when there was no answer.
Task<std::optional<bool>> ask(Reactor& reactor, std::string host, std::uint32_t mark) {
    DialOptions options;
    options.timeout = kTime;
    options.mark = mark;
    TimePoint deadline = reactor.now() + kTime;
    auto stream = co_await dial_tcp(reactor, host, 80, options);
    if (!stream) co_return std::nullopt;
    Http1Client http{std::move(*stream)};
    Timer timer{reactor};
    timer.after(std::max<Duration>(deadline - reactor.now(), Duration{}), [&http] { http.stream().close(); });
    HttpRequest request;
    request.target = fmt::format("/generate_204?t={}", WallTime::now().seconds);
    request.authority = host;
    request.headers.add("Cache-Control", "no-cache, no-store, must-revalidate, no-transform, max-age=0");
    request.headers.add("X-Tailscale-Challenge", challenge_for(host));
    auto response =
        co_await http.request(std::move(request), kMostPortalBytes); // redirects are not followed: they tell enough
    if (!response) co_return std::nullopt;
    co_return looks_like_captive_portal(*response, host);
}

} // namespace

std::vector<std::string> captive_portal_hosts(const wire::DerpMap& map, int home) {
    std::vector<std::string> near, far;
    if (map.regions)
        for (const auto& [number, region] : *map.regions) {
            if (!region || region->avoid || region->no_measure_no_home) continue;
            for (const wire::DerpNode& node : region->nodes) {
                auto address = IpAddress::parse(node.ipv4);
                if (!node.can_port_80 || !address || !address->is_v4()) continue;
                (number == home ? near : far).push_back(node.ipv4);
            }
        }
    near.insert(near.end(), far.begin(), far.end());
    if (near.size() > kMostHosts) near.resize(kMostHosts);
    return near;
}

bool looks_like_captive_portal(const HttpResponse& response, const std::string& host) {
    if (response.status != 204) return true;
    return response.headers.get("X-Tailscale-Response") != "response " + challenge_for(host);
}

Task<std::optional<bool>> find_captive_portal(Reactor& reactor, wire::DerpMap map, int home, std::uint32_t mark) {
    struct Round {
        explicit Round(Reactor& reactor) : news(reactor) {}
        Event news;
        std::size_t pending = 0;
        std::optional<bool> found;
    };
    auto round = std::make_shared<Round>(reactor);
    auto ask_one = [](Reactor& on, std::shared_ptr<Round> of, std::string host, std::uint32_t with) -> Task<void> {
        auto captive = co_await ask(on, std::move(host), with);
        if (captive) of->found = of->found.value_or(false) || *captive;
        --of->pending;
        of->news.notify();
    };
    for (const std::string& host : captive_portal_hosts(map, home)) {
        ++round->pending;
        spawn(reactor, "captive portal", ask_one(reactor, round, host, mark));
    }
    while (round->pending > 0 && round->found != true) co_await round->news.wait();
    co_return round->found;
}

} // namespace tailrace
