#include "agent/path/path_report.hpp"
#include "base/json/json.hpp"

#include <algorithm>

namespace tailrace {
namespace {

double milliseconds(Duration time) {
    return std::chrono::duration<double, std::milli>(time).count();
}

std::string or_null(const std::optional<Duration>& time) {
    return time ? fmt::format("{:.3f}", milliseconds(*time)) : "null";
}

std::string or_null(int bytes) {
    return bytes > 0 ? fmt::format("{}", bytes) : "null";
}

std::string lifetime_json(TimePoint now, const std::optional<UdpLifetime::Result>& result) {
    if (!result) return "null";
    const auto& cliffs = UdpLifetime::kCliffs;
    auto outlived = result->outlived == 0 ? std::chrono::seconds{0} : cliffs.at(result->outlived - 1);
    std::string lost = "null";
    if (result->outlived < cliffs.size()) lost = fmt::format("{}", cliffs.at(result->outlived).count());
    return fmt::format("{{\"Endpoint\":\"{}\",\"OutlivedSeconds\":{},\"LostWithinSeconds\":{},\"AgoMs\":{:.3f}}}",
                       result->path.text(), outlived.count(), lost, milliseconds(now - result->at));
}

std::string wireguard_only_reason(const PathBook::State& state,
                                  const std::vector<PathBook::CandidateState>& candidates) {
    auto answers = std::ranges::count_if(candidates, [](const auto& one) { return one.ponged_ago.has_value(); });
    for (const auto& one : candidates)
        if (one.endpoint == *state.endpoint && one.ponged_ago)
            return fmt::format("WireGuard only: it answers an echo there in {:.1f} ms, and {} of {} addresses answer",
                               milliseconds(one.round_trip), answers, candidates.size());
    if (state.trusted) return "WireGuard only: its packets come from there";
    if (candidates.size() == 1) return "WireGuard only: it has no other address";
    return "WireGuard only: no address is known to be better";
}

} // namespace

std::vector<std::string_view> learnt_from(const PathBook::CandidateState& candidate) {
    std::vector<std::string_view> out;
    if (candidate.from_control) out.push_back("control");
    if (candidate.from_call) out.push_back("their call");
    if (candidate.pinged_us_ago) out.push_back("their ping");
    if (candidate.from_wireguard) out.push_back("WireGuard");
    return out;
}

std::string path_reason(const PathBook::State& state, const std::vector<PathBook::CandidateState>& candidates,
                        const PeerRelays::State& via) {
    if (state.relayed && via.route)
        return fmt::format("peer relay: {} answered in {:.1f} ms, and no direct address does", via.route->text(),
                           milliseconds(via.round_trip));
    if (state.relayed) {
        if (!state.active) return "relayed: nobody talks, and the next packet is noticed here";
        auto pinged = std::ranges::count_if(candidates, [](const auto& one) { return one.pinged_ago.has_value(); });
        if (candidates.empty()) return "relayed: no direct address is known";
        auto refused = std::ranges::count_if(candidates, [](const auto& one) { return one.refused; });
        if (refused == std::ssize(candidates)) return "relayed: a setting forbids the direct addresses that are known";
        return fmt::format("relayed: of {} direct addresses that were pinged, none answers", pinged);
    }
    if (!state.endpoint) return "none: nothing is known of where it is";
    if (state.wireguard_only) return wireguard_only_reason(state, candidates);
    if (!state.trusted) return "direct without proof: there is no relay to fall back to";
    auto is_alive = [](const PathBook::CandidateState& one) {
        return one.ponged_ago && *one.ponged_ago < PathBook::kTrustFor;
    };
    auto alive = std::ranges::count_if(candidates, is_alive);
    for (const auto& one : candidates) {
        if (one.endpoint != *state.endpoint || !is_alive(one)) continue;
        std::string out =
            fmt::format("direct: it answered {:.1f} s ago in {:.1f} ms",
                        std::chrono::duration<double>(*one.ponged_ago).count(), milliseconds(one.round_trip));
        if (alive > 1) out += fmt::format(", the best of {} addresses that answer", alive);
        return out;
    }
    return "direct: the peer's packets come from there, and it says nothing elsewhere";
}

std::string write_peer_paths(TimePoint now, std::string_view name, const NodeKey& key, const PathBook::State& state,
                             const std::vector<PathBook::CandidateState>& candidates, const PeerRelays::State& via) {
    std::string out = "{\"Name\":";
    json::append_string(out, name);
    out += fmt::format(
        ",\"PublicKey\":\"{}\",\"Endpoint\":\"{}\",\"Why\":\"{}\",\"HomeRegion\":{},\"Validated\":{},"
        "\"Trusted\":{},\"Relayed\":{},\"Active\":{},\"RoundTripMs\":{:.3f},\"PeerRelay\":\"{}\","
        "\"PathMTU\":{},\"UDPLifetime\":{},\"RelayServers\":{},\"RelayQuestions\":{},\"RelayHandshakes\":{},"
        "\"Candidates\":[",
        key.text(), state.endpoint ? state.endpoint->text() : "", path_reason(state, candidates, via),
        state.home_region, state.validated, state.trusted, state.relayed, state.active,
        milliseconds(via.route && state.relayed ? via.round_trip : state.round_trip),
        via.route ? via.route->text() : "", or_null(state.packet_bytes), lifetime_json(now, state.lifetime),
        via.servers, via.questions, via.handshakes);
    for (std::size_t i = 0; i < candidates.size(); ++i) {
        const PathBook::CandidateState& one = candidates[i];
        std::string from;
        for (std::string_view source : learnt_from(one))
            from += fmt::format("{}\"{}\"", from.empty() ? "" : ",", source);
        std::optional<Duration> round_trip;
        if (one.ponged_ago) round_trip = one.round_trip;
        out += fmt::format("{}{{\"Endpoint\":\"{}\",\"LearntFrom\":[{}],\"PingedAgoMs\":{},\"PingedUsAgoMs\":{},"
                           "\"PongAgoMs\":{},\"RoundTripMs\":{},\"PathMTU\":{}}}",
                           i == 0 ? "" : ",", one.endpoint.text(), from, or_null(one.pinged_ago),
                           or_null(one.pinged_us_ago), or_null(one.ponged_ago), or_null(round_trip),
                           or_null(one.packet_bytes));
    }
    return out + "]}";
}

} // namespace tailrace
