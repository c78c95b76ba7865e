#include "control/routes/region_choice.hpp"

#include "base/text.hpp"

#include <algorithm>
#include <tuple>

namespace tailrace {

namespace {

constexpr std::size_t kMostRegions = 1024;
constexpr double kMostSeconds = 60;

using Routers = std::vector<const RegionRouter*>;

template <typename Condition>
Routers those(const Routers& routers, Condition condition) {
    Routers out;
    std::copy_if(routers.begin(), routers.end(), std::back_inserter(out), condition);
    return out;
}

NodeId first_in_rank(const Routers& routers, NodeId has_it) {
    auto rank = [&](const RegionRouter* router) { // the least wins
        return std::tuple{router->id != has_it, !router->primary, router->since, router->id};
    };
    return (*std::min_element(routers.begin(), routers.end(),
                              [&](const auto* a, const auto* b) { return rank(a) < rank(b); }))
        ->id;
}

bool is_clearly_nearer(Duration a, Duration b) {
    return b - a >= kNearerBy && 3 * a <= 2 * b;
}

} // namespace

NodeId choose_router(int region, const std::vector<RegionRouter>& routers, NodeId has_it) {
    Routers all;
    for (const RegionRouter& router : routers) all.push_back(&router);
    Routers there = those(all, [](const auto* router) { return router->online; });
    if (there.empty()) return first_in_rank(all, has_it);
    if (Routers trusted = those(there, [&](const auto* router) { return router->steady || router->id == has_it; });
        !trusted.empty())
        there = std::move(trusted);
    if (Routers local = those(there, [&](const auto* router) { return router->region == region; }); !local.empty())
        return first_in_rank(local, has_it);

    const RegionRouter* nearest = nullptr;
    const RegionRouter* present = nullptr;
    auto way = [&](const RegionRouter* router) { return router->latencies->at(region); };
    for (const RegionRouter* router : there) {
        if (!router->latencies->contains(region)) {
            if (router->id == has_it) return has_it; // nothing to compare it with
            continue;
        }
        if (router->id == has_it) present = router;
        if (!nearest || way(router) < way(nearest)) nearest = router;
    }
    if (!nearest) return first_in_rank(there, has_it);
    if (present && !is_clearly_nearer(way(nearest), way(present))) return has_it;
    Routers equals = those(there, [&](const auto* router) {
        return router->latencies->contains(region) && !is_clearly_nearer(way(nearest), way(router));
    });
    return first_in_rank(equals, 0);
}

RelayLatencies relay_latencies(const wire::NetInfo& info) {
    RelayLatencies out;
    for (const auto& [name, seconds] : info.derp_latency) {
        auto region = parse_number<int>(std::string_view{name}.substr(0, name.find('-')));
        if (!region || *region <= 0 || !(seconds >= 0 && seconds <= kMostSeconds)) continue;
        auto way = std::chrono::duration_cast<Duration>(std::chrono::duration<double>{seconds});
        auto [at, fresh] = out.try_emplace(*region, way);
        at->second = std::min(at->second, way);
        if (out.size() >= kMostRegions) break;
    }
    return out;
}

} // namespace tailrace
