#include "agent/path/net_report.hpp"
#include "base/random.hpp"

#include <algorithm>

namespace tailrace {

NetCheck::NetCheck(TimePoint now, std::vector<Server> servers) : begin_(now) {
    std::map<std::pair<int, bool>, std::vector<Server>> by_region; // and family
    for (const Server& server : servers) by_region[{server.region, server.address.address.is_v6()}].push_back(server);
    std::map<int, int> counted;
    for (const auto& [where, nodes] : by_region) {
        counted[where.first] = 1;
        for (int attempt = 0; attempt < kAttempts; ++attempt)
            planned_.push_back({now + attempt * kAttemptGap, nodes[static_cast<std::size_t>(attempt) % nodes.size()]});
    }
    regions_ = counted.size();
    std::ranges::stable_sort(planned_, [](const Planned& a, const Planned& b) { return a.at > b.at; });
}

bool NetCheck::is_useful(const Server& server) const {
    const auto& known = server.address.address.is_v6() ? report_.region_v6_latency : report_.region_v4_latency;
    return !known.contains(server.region);
}

std::vector<NetCheck::Probe> NetCheck::due(TimePoint now) {
    std::vector<Probe> out;
    while (!planned_.empty() && planned_.back().at <= now) {
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
    if (found == sent_.end()) return false;
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
        return now - begin_ >= 2 * slowest + kAttempts * kAttemptGap;
    }
    // All regions are known; a second answer over IPv4 still tells whether the mapping varies.
    bool could_compare = regions_ > 1;
    return !could_compare || report_.mapping_varies_by_destination || !report_.ipv4;
}

TimePoint NetCheck::next_look(TimePoint now) const {
    TimePoint next = std::min(begin_ + kWindow, now + kAttemptGap);
    if (!planned_.empty()) next = std::min(next, planned_.back().at);
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

int HomeChooser::choose(TimePoint now, const NetReport& report, const wire::DerpMap& map, bool heard_from_home) {
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
