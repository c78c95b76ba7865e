#include "agent/exit_node/choice.hpp"

#include "agent/dns/effective.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace tailrace {
namespace {

constexpr double kEarthRadiusMetres = 6'371'000;
constexpr double kAsNearMetres = 100'000; // about a millisecond there and back: as good as the nearest

double distance_metres(double latitude_a, double longitude_a, double latitude_b, double longitude_b) {
    auto radians = [](double degrees) { return degrees * std::numbers::pi / 180; };
    const double half_latitude = std::sin(radians(latitude_b - latitude_a) / 2);
    const double half_longitude = std::sin(radians(longitude_b - longitude_a) / 2);
    const double a = half_latitude * half_latitude +
                     std::cos(radians(latitude_a)) * std::cos(radians(latitude_b)) * half_longitude * half_longitude;
    return 2 * kEarthRadiusMetres * std::asin(std::min(1.0, std::sqrt(a)));
}

bool is_candidate(const wire::Node& node) {
    return node.online.value_or(false) && !node.expired && node.has_cap("suggest-exit-node") && offers_exit_node(node);
}

const wire::Node* one_of(const std::vector<const wire::Node*>& nodes, const ExitNodeQuestion& question) {
    for (const wire::Node* node : nodes)
        if (node->stable_id == question.previous) return node;
    return nodes[question.spread % nodes.size()];
}

int nearest_region(const std::map<int, std::vector<const wire::Node*>>& by_region, const ExitNodeQuestion& question) {
    int best = 0;
    Duration least{};
    for (const auto& [region, nodes] : by_region) {
        auto measured = question.region_latency.find(region);
        if (measured == question.region_latency.end()) continue;
        if (best != 0 && measured->second >= least) continue;
        best = region;
        least = measured->second;
    }
    if (best != 0) return best;
    auto any = by_region.begin();
    std::advance(any, static_cast<std::ptrdiff_t>(question.spread % by_region.size()));
    return any->first;
}

/// Those without a home relay say where they are.
const wire::Node* nearest_by_place(const std::vector<const wire::Node*>& candidates, const wire::DerpRegion& home,
                                   const ExitNodeQuestion& question) {
    std::vector<std::pair<double, const wire::Node*>> placed;
    double least = std::numeric_limits<double>::max();
    for (const wire::Node* node : candidates) {
        const auto& place = node->hostinfo.value.location;
        if (!place) continue;
        double metres = distance_metres(home.latitude, home.longitude, place->latitude, place->longitude);
        least = std::min(least, metres);
        placed.emplace_back(metres, node);
    }
    std::vector<const wire::Node*> best;
    int priority = 0;
    for (const auto& [metres, node] : placed) {
        if (metres > least + kAsNearMetres) continue;
        const int own = node->hostinfo.value.location->priority;
        if (!best.empty() && own < priority) continue;
        if (!best.empty() && own > priority) best.clear();
        priority = own;
        best.push_back(node);
    }
    return one_of(best.empty() ? candidates : best, question);
}

} // namespace

bool offers_exit_node(const wire::Node& node) {
    bool v4 = false, v6 = false;
    for (const IpPrefix& prefix : node.routes_to())
        if (prefix.is_default()) (prefix.address().is_v4() ? v4 : v6) = true;
    return v4 && v6;
}

Result<const wire::Node*> suggest_exit_node(const ExitNodeQuestion& question) {
    const wire::DerpRegion* home = nullptr;
    if (question.relays != nullptr && question.relays->regions)
        if (auto found = question.relays->regions->find(question.home_region);
            found != question.relays->regions->end() && found->second)
            home = &*found->second;
    if (home == nullptr) return Error::make("no preferred DERP, try again later");
    std::vector<const wire::Node*> candidates;
    for (const wire::Node* peer : question.peers)
        if (is_candidate(*peer)) candidates.push_back(peer);
    if (candidates.empty()) return nullptr;
    std::ranges::sort(candidates, {}, [](const wire::Node* node) { return node->id; });
    std::map<int, std::vector<const wire::Node*>> by_region;
    for (const wire::Node* node : candidates)
        if (int region = node->home_region(); region != 0) by_region[region].push_back(node);
    if (by_region.empty()) return nearest_by_place(candidates, *home, question);
    return one_of(by_region[nearest_region(by_region, question)], question);
}

namespace {

/// The one peer that has this name, whole or without the tailnet's part; null when there is none, or another like it.
const wire::Node* peer_named(const std::vector<const wire::Node*>& peers, const std::string& name) {
    const wire::Node* found = nullptr;
    const std::string wanted = plain_dns_name(name);
    for (const wire::Node* peer : peers) {
        const std::string whole = plain_dns_name(peer->name);
        if (whole == wanted) return peer;
        if (whole.substr(0, whole.find('.')) != wanted) continue;
        if (found != nullptr) return nullptr;
        found = peer;
    }
    return found;
}

} // namespace

std::optional<Prefs> resolve_exit_node(const Prefs& prefs, const ExitNodeQuestion& question, int chosen_at_home) {
    if (prefs.auto_exit_node.empty() && !prefs.exit_node_id.empty()) {
        for (const wire::Node* peer : question.peers)
            if (peer->stable_id == prefs.exit_node_id) return std::nullopt;
        const wire::Node* named = peer_named(question.peers, prefs.exit_node_id); // as a configuration says it
        if (named == nullptr) return std::nullopt;
        Prefs out = prefs;
        out.exit_node_id = named->stable_id;
        return out;
    }
    if (prefs.auto_exit_node.empty()) {
        auto address = IpAddress::parse(prefs.exit_node_ip);
        if (!address || !address->valid()) return std::nullopt;
        for (const wire::Node* peer : question.peers)
            for (const IpPrefix& own : peer->addresses)
                if (own.address() == *address) {
                    Prefs out = prefs;
                    out.exit_node_id = peer->stable_id;
                    out.exit_node_ip.clear();
                    return out;
                }
        return std::nullopt;
    }
    if (question.home_region == chosen_at_home)
        for (const wire::Node* peer : question.peers)
            if (peer->stable_id == prefs.exit_node_id && is_candidate(*peer)) return std::nullopt;
    auto suggested = suggest_exit_node(question);
    std::string id = prefs.exit_node_id.empty() ? kUnresolvedExitNode : prefs.exit_node_id;
    if (suggested && *suggested != nullptr) id = (*suggested)->stable_id;
    if (id == prefs.exit_node_id) return std::nullopt;
    Prefs out = prefs;
    out.exit_node_id = id;
    out.exit_node_ip.clear();
    return out;
}

namespace {

/// "" where none is chosen.
std::string exit_node_text(const Prefs& prefs) {
    if (!prefs.auto_exit_node.empty()) return "auto:" + prefs.auto_exit_node;
    return prefs.exit_node_id.empty() ? prefs.exit_node_ip : prefs.exit_node_id;
}

} // namespace

void remember_exit_node(const Prefs& before, Prefs& wanted) {
    std::string used = exit_node_text(before);
    if (!used.empty() && exit_node_text(wanted).empty())
        wanted.internal_exit_node_prior = used;
    else if (wanted.internal_exit_node_prior.empty())
        wanted.internal_exit_node_prior = before.internal_exit_node_prior;
}

Result<Prefs> with_exit_node_enabled(const Prefs& prefs, bool enabled) {
    if (exit_node_text(prefs).empty() != enabled) return prefs;
    Prefs out = prefs;
    out.exit_node_id.clear();
    out.exit_node_ip.clear();
    out.auto_exit_node.clear();
    if (!enabled) return out;
    const std::string& prior = prefs.internal_exit_node_prior;
    if (prior.empty())
        return Error::make("no exit node was used before; choose one with \"tailrace set --exit-node=NAME\"");
    auto address = IpAddress::parse(prior);
    if (prior.starts_with("auto:")) {
        out.auto_exit_node = prior.substr(5);
        out.exit_node_id = kUnresolvedExitNode;
    } else if (address && address->valid()) {
        out.exit_node_ip = prior;
    } else {
        out.exit_node_id = prior;
    }
    return out;
}

} // namespace tailrace
