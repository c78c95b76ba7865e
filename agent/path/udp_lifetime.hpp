// agent/path/udp_lifetime.hpp - how long what is on the way to a peer remembers a path on which nobody speaks. Pure.
#pragma once
#include "base/net.hpp"
#include "base/time.hpp"

#include <array>
#include <chrono>
#include <optional>

namespace tailrace {

/// One peer's. After a conversation its path is pinged shortly before the times after which NATs and firewalls like to
/// forget, each time after that much silence, until a ping is lost: diagnostics, nothing is decided by it. Constants
/// are the reference client's (derp-disco-paths.md 4.8). Source: tailscale wgengine/magicsock/endpoint.go,
/// probeUDPLifetime.
class UdpLifetime {
public:
    static constexpr std::array<std::chrono::seconds, 3> kCliffs{std::chrono::seconds{10}, std::chrono::seconds{30},
                                                                 std::chrono::seconds{60}};
    static constexpr auto kSlack = std::chrono::seconds{2}; ///< so much earlier
    static constexpr auto kTolerance = std::chrono::milliseconds{250};
    static constexpr auto kCycleEvery = std::chrono::hours{24};

    struct Result {
        Endpoint path;
        std::size_t outlived = 0; ///< so many of kCliffs; the next one, if any, it did not
        TimePoint at;
    };
    struct Step {
        bool ping = false;
        std::optional<TimePoint> look; ///< again then, if nothing happens before
    };
    /// While nobody talks. `silent_since`: the last packet on this path, of whatever kind, either way.
    Step look(TimePoint now, const Endpoint& path, TimePoint silent_since);
    /// What became of the ping; a result ends the cycle.
    std::optional<Result> on_answered(TimePoint now, const Endpoint& path);
    std::optional<Result> on_lost(TimePoint now, const Endpoint& path);
    /// Of the last cycle that came to its end.
    const std::optional<Result>& result() const { return result_; }

private:
    std::optional<Result> end(TimePoint now, std::size_t outlived);

    Endpoint path_;
    std::size_t cliff_ = 0;          ///< the next one
    bool in_cycle_ = false;          ///< may last over several conversations
    bool waiting_ = false;           ///< for the pong
    std::optional<TimePoint> begun_; ///< the last cycle
    std::optional<Result> result_;
};

} // namespace tailrace
