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
Task<std::optional<bool>> ask(Reactor& reactor, PortalQuestion question, std::uint32_t mark) {
    const std::string& host = question.host;
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
    if (question.to == PortalQuestion::To::Relay) request.headers.add("X-Tailscale-Challenge", challenge_for(host));
    auto response =
        co_await http.request(std::move(request), kMostPortalBytes); // redirects are not followed: they tell enough
    if (!response) co_return std::nullopt;
    co_return is_captive_portal(*response, question);
}

} // namespace

std::vector<PortalQuestion> captive_portal_questions(const wire::DerpMap& map, int home, const std::string& control) {
    std::vector<PortalQuestion> near, far;
    if (map.regions)
        for (const auto& [number, region] : *map.regions) {
            if (!region || region->avoid || region->no_measure_no_home) continue;
            for (const wire::DerpNode& node : region->nodes) {
                auto address = IpAddress::parse(node.ipv4);
                if (!node.can_port_80 || !address || !address->is_v4()) continue;
                (number == home ? near : far).push_back({node.ipv4, PortalQuestion::To::Relay});
            }
        }
    near.insert(near.end(), far.begin(), far.end());
    if (near.size() > kMostHosts) near.resize(kMostHosts);
    if (near.empty() && !control.empty()) near.push_back({control, PortalQuestion::To::Control});
    return near;
}

std::optional<bool> is_captive_portal(const HttpResponse& response, const PortalQuestion& question) {
    if (question.to == PortalQuestion::To::Relay) {
        if (response.status != 204) return true;
        return response.headers.get("X-Tailscale-Response") != "response " + challenge_for(question.host);
    }
    if (response.status == 204) return false;
    if (response.status == 511) return true;
    if (response.status < 300 || response.status >= 400) return std::nullopt;
    auto target = Url::parse(response.headers.get("Location"));
    if (!target || target->host == question.host) return std::nullopt;
    return true;
}

Task<std::optional<bool>> find_captive_portal(Reactor& reactor, std::vector<PortalQuestion> questions,
                                              std::uint32_t mark) {
    struct Round {
        explicit Round(Reactor& reactor) : news(reactor) {}
        Event news;
        std::size_t pending = 0;
        std::optional<bool> found;
    };
    auto round = std::make_shared<Round>(reactor);
    auto ask_one = [](Reactor& on, std::shared_ptr<Round> of, PortalQuestion question,
                      std::uint32_t with) -> Task<void> {
        auto captive = co_await ask(on, std::move(question), with);
        if (captive) of->found = of->found.value_or(false) || *captive;
        --of->pending;
        of->news.notify();
    };
    for (PortalQuestion& question : questions) {
        ++round->pending;
        spawn(reactor, "captive portal", ask_one(reactor, round, std::move(question), mark));
    }
    while (round->pending > 0 && round->found != true) co_await round->news.wait();
    co_return round->found;
}

} // namespace tailrace
