#include "proto/control/map.hpp"

#include "base/json/json.hpp"

namespace tailrace::wire {

Result<MapRequest> parse_map_request(std::string_view text) {
    return json::parse<MapRequest>(text);
}
std::string write_map_request(const MapRequest& request) {
    return json::write(request);
}
Result<MapResponse> parse_map_response(std::string_view text) {
    return json::parse<MapResponse>(text);
}
std::string write_map_response(const MapResponse& response) {
    return json::write(response);
}
std::string write_map_response(const SplicedMapResponse& response) {
    std::size_t spliced = 0;
    auto count = [&spliced](const std::vector<RawJsonView>& nodes) {
        for (const RawJsonView& node : nodes) spliced += node.text.size() + 1;
    };
    if (response.peers) count(*response.peers);
    count(response.peers_changed);
    std::string out;
    out.reserve(spliced + 4096);
    json::append(out, response);
    return out;
}
Result<PingResponse> parse_ping_response(std::string_view text) {
    return json::parse<PingResponse>(text);
}
std::string write_ping_response(const PingResponse& response) {
    return json::write(response);
}
std::string write_peer_change(const PeerChange& change) {
    return json::write(change);
}

std::vector<Endpoint> usable_endpoints(const MapRequest& request, std::size_t limit) {
    std::vector<Endpoint> usable;
    for (const Endpoint& endpoint : request.endpoints) {
        const IpAddress& address = endpoint.address;
        bool useless = !endpoint.valid() || endpoint.port == 0 || address.is_unspecified() || address.is_multicast() ||
                       (address.is_v6() && address.is_link_local());
        if (!useless && usable.size() < limit) usable.push_back(endpoint);
    }
    return usable;
}

} // namespace tailrace::wire
