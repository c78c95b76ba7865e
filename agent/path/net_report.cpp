#include "agent/path/net_report.hpp"
#include "base/random.hpp"

#include <algorithm>
#include <array>
#include <set>

namespace tailrace {

namespace {

/// Of each region: its servers over IPv4, and those over IPv6.
using Families = std::array<std::vector<NetCheck::Server>, 2>;

std::map<int, Families> by_region(std::vector<NetCheck::Server> servers) {
    std::map<int, Families> out;
    for (NetCheck::Server& server : servers) {
        auto& family = out[server.region][server.address.address.is_v6() ? 1 : 0];
        family.push_back(std::move(server));
    }
    return out;
}

const NetCheck::Server& take_turns(const std::vector<NetCheck::Server>& nodes, int attempt) {
    return nodes[static_cast<std::size_t>(attempt) % nodes.size()];
}

} // namespace

NetCheck::Plan NetCheck::full_plan(std::vector<Server> servers) {
    Plan out;
    for (const auto& [region, families] : by_region(std::move(servers)))
        for (const auto& nodes : families)
            for (int attempt = 0; attempt < kAttempts && !nodes.empty(); ++attempt)
                out.probes.push_back({attempt * kAttemptGap, take_turns(nodes, attempt)});
    return out;
}

NetCheck::Plan NetCheck::short_plan(std::vector<Server> servers, const NetReport& last, int home) {
    constexpr Duration kUnknown = std::chrono::milliseconds{200};
    constexpr Duration kLaterGap = std::chrono::milliseconds{50};
    if (last.region_latency.empty()) return full_plan(std::move(servers));
    std::erase_if(servers, [&](const Server& server) { return server.avoid && server.region != home; });
    auto latency_of = [&](int region) {
        auto found = last.region_latency.find(region);
        return found == last.region_latency.end() ? Duration::max() : found->second;
    };
    auto regions = by_region(std::move(servers));
    std::vector<int> nearest;
    for (const auto& [region, families] : regions) nearest.push_back(region);
    std::ranges::stable_sort(nearest, {}, latency_of);
    Plan out;
    out.full = false;
    for (int rank = 0; rank < static_cast<int>(nearest.size()); ++rank) {
        int region = nearest[static_cast<std::size_t>(rank)];
        bool is_home = region == home, is_fastest = rank < 2;
        if (rank >= kNearest && !is_home) continue;
        int attempts = is_home ? kHomeAttempts : is_fastest ? 2 : 1;
        Duration latency = latency_of(region);
        Duration gap = latency == Duration::max() ? kUnknown : latency * 6 / 5;
        bool alternate = last.ipv4 && last.ipv6 && !is_fastest; // both families work: one is enough
        for (int v6 : {0, 1}) {
            const auto& nodes = regions[region][static_cast<std::size_t>(v6)];
            if (nodes.empty() || (alternate && rank % 2 != v6)) continue;
            int most = attempts;
            if (v6 == 1 && !last.ipv6) most = is_home || is_fastest ? 1 : 0; // has it come back?
            for (int attempt = 0; attempt < most; ++attempt) {
                Duration delay = attempt * gap + (attempt > 1 ? attempt * kLaterGap : Duration{});
                out.probes.push_back({delay, take_turns(nodes, attempt)});
            }
        }
    }
    return out;
}

NetCheck::NetCheck(TimePoint now, Plan plan) : begin_(now), planned_(std::move(plan.probes)), full_(plan.full) {
    std::set<int> regions;
    for (const Planned& one : planned_) regions.insert(one.server.region);
    regions_ = regions.size();
    std::ranges::stable_sort(planned_, [](const Planned& a, const Planned& b) { return a.delay > b.delay; });
}

/// What it would tell is not known yet: the region's latency, our address in this family, whether it varies.
bool NetCheck::is_useful(const Server& server) const {
    bool v6 = server.address.address.is_v6();
    const auto& known = v6 ? report_.region_v6_latency : report_.region_v4_latency;
    if (known.contains(server.region)) return false;
    bool seen = v6 ? report_.ipv6 : report_.mapping_varies_by_destination.has_value();
    return full_ || !seen || !report_.region_latency.contains(server.region);
}

std::vector<NetCheck::Probe> NetCheck::due(TimePoint now) {
    std::vector<Probe> out;
    while (!planned_.empty() && begin_ + planned_.back().delay <= now) {
        Server server = planned_.back().server;
        planned_.pop_back();
        if (!is_useful(server)) continue;
        Probe probe{server.address, random_array<12>()};
        sent_[probe.id] = {server, now};
        out.push_back(probe);
    }
    return out;
}

void NetCheck::on_sent(const Probe& probe, bool sent) {
    bool& can = probe.to.address.is_v6() ? report_.ipv6_can_send : report_.ipv4_can_send;
    can = can || sent;
    if (!sent) sent_.erase(probe.id);
}

bool NetCheck::on_answer(TimePoint now, const stun::Response& response) {
    auto found = sent_.find(response.id);
    const Endpoint& seen = response.seen_from;
    if (found == sent_.end() || !seen.valid() || seen.port == 0 || seen.address.is_unspecified() ||
        seen.address.is_multicast())
        return false;
    Sent sent = found->second;
    sent_.erase(found);
    Duration latency = now - sent.at;
    bool v6 = response.seen_from.address.is_v6();
    report_.udp = true;
    (v6 ? report_.ipv6 : report_.ipv4) = true;
    auto note = [&](std::map<int, Duration>& latencies) {
        auto [at, fresh] = latencies.emplace(sent.server.region, latency);
        if (!fresh) at->second = std::min(at->second, latency);
    };
    note(report_.region_latency);
    note(v6 ? report_.region_v6_latency : report_.region_v4_latency);
    if (v6) {
        report_.global_v6 = response.seen_from; // the last answer
        ++report_.seen_v6[response.seen_from];
    } else {
        if (!report_.global_v4)
            report_.global_v4 = response.seen_from; // the first answer
        else if (*report_.global_v4 != response.seen_from)
            report_.mapping_varies_by_destination = true;
        else if (!report_.mapping_varies_by_destination)
            report_.mapping_varies_by_destination = false;
        ++report_.seen_v4[response.seen_from];
    }
    return true;
}

bool NetCheck::is_done(TimePoint now) const {
    if (now - begin_ >= kWindow) return true;
    if (sent_.empty() && planned_.empty()) return true;
    if (report_.region_latency.size() < regions_) {
        if (report_.region_latency.size() < 3) return false;
        Duration slowest{};
        for (const auto& [region, latency] : report_.region_latency) slowest = std::max(slowest, latency);
        return now - begin_ >= (full_ ? 2 : 1) * slowest + kAttempts * kAttemptGap;
    }
    // All regions are known; a second answer over IPv4 still tells whether the mapping varies.
    bool could_compare = regions_ > 1;
    return !could_compare || report_.mapping_varies_by_destination || !report_.ipv4;
}

TimePoint NetCheck::next_look(TimePoint now) const {
    TimePoint next = std::min(begin_ + kWindow, now + kAttemptGap);
    if (!planned_.empty()) next = std::min(next, begin_ + planned_.back().delay);
    return next;
}

NetReport NetCheck::report() const {
    NetReport out = report_;
    for (const auto* seen : {&report_.seen_v4, &report_.seen_v6})
        for (const auto& [endpoint, times] : *seen)
            if (times > 1 && endpoint != out.global_v4 && endpoint != out.global_v6)
                out.other_globals.push_back(endpoint);
    return out;
}

int HomeChooser::choose(TimePoint now, const NetReport& report, const wire::DerpMap& map, bool heard_from_home,
                        bool may_move) {
    if (!report.region_latency.empty()) reports_.emplace_back(now, report.region_latency);
    while (!reports_.empty() && now - reports_.front().first > kMemory) reports_.pop_front();
    auto exists = [&](int number, bool as_home) {
        if (!map.regions) return false;
        auto found = map.regions->find(number);
        if (found == map.regions->end() || !found->second) return false;
        return !as_home || !found->second->no_measure_no_home;
    };
    std::map<int, double> scored; // seconds
    for (const auto& [when, latencies] : reports_)
        for (const auto& [region, latency] : latencies) {
            if (!exists(region, true)) continue;
            double seconds = std::chrono::duration<double>(latency).count();
            if (map.home_params && map.home_params->region_score)
                if (auto score = map.home_params->region_score->find(region);
                    score != map.home_params->region_score->end() && score->second > 0)
                    seconds *= score->second;
            auto [at, fresh] = scored.emplace(region, seconds);
            if (!fresh) at->second = std::min(at->second, seconds);
        }
    bool keep_possible = home_ != 0 && exists(home_, false);
    if (keep_possible && !may_move) return home_;
    auto candidates = scored; // who does not answer now is none, however good it was
    std::erase_if(candidates, [&](const auto& entry) { return !report.region_latency.contains(entry.first); });
    if (candidates.empty()) {
        if (keep_possible) return home_; // nothing better is known
        home_ = 0;
        if (map.regions) // any region is better than none
            for (const auto& [number, region] : *map.regions)
                if (region && !region->no_measure_no_home && !region->nodes.empty()) return home_ = number;
        return home_;
    }
    auto best = std::ranges::min_element(candidates, {}, [](const auto& entry) { return entry.second; });
    if (keep_possible && best->first != home_) {
        bool reachable = report.region_latency.contains(home_) || heard_from_home;
        auto old = scored.find(home_);
        if (reachable && old != scored.end()) {
            double gain = old->second - best->second;
            if (gain < std::chrono::duration<double>(kSmallGain).count() || best->second > old->second * 2 / 3)
                return home_;
        }
    }
    return home_ = best->first;
}

} // namespace tailrace
