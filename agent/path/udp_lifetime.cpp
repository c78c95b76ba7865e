#include "agent/path/udp_lifetime.hpp"

namespace tailrace {

UdpLifetime::Step UdpLifetime::look(TimePoint now, const Endpoint& path, TimePoint silent_since) {
    if (path_ != path) { // what was found out of the other one says nothing of this one
        path_ = path;
        cliff_ = 0;
        in_cycle_ = waiting_ = false;
    }
    if (waiting_ || (!in_cycle_ && begun_ && now - *begun_ < kCycleEvery)) return {};
    const TimePoint due = silent_since + kCliffs.at(cliff_) - kSlack;
    if (now < due) return {false, due};
    if (now - due > kTolerance) return {}; // too late, after the next conversation then
    if (!in_cycle_) begun_ = now;
    in_cycle_ = waiting_ = true;
    return {true, std::nullopt};
}

std::optional<UdpLifetime::Result> UdpLifetime::on_answered(TimePoint now, const Endpoint& path) {
    if (!waiting_ || path_ != path) return std::nullopt;
    waiting_ = false;
    if (++cliff_ < kCliffs.size()) return std::nullopt;
    return end(now, kCliffs.size());
}

std::optional<UdpLifetime::Result> UdpLifetime::on_lost(TimePoint now, const Endpoint& path) {
    if (!waiting_ || path_ != path) return std::nullopt;
    return end(now, cliff_);
}

std::optional<UdpLifetime::Result> UdpLifetime::end(TimePoint now, std::size_t outlived) {
    cliff_ = 0;
    in_cycle_ = waiting_ = false;
    result_ = Result{path_, outlived, now};
    return result_;
}

} // namespace tailrace
