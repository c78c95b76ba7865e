#include "agent/path/disco_frame.hpp"
#include "agent/path/path_book.hpp"
#include "base/json/json.hpp"
#include "base/text.hpp"

namespace tailrace {
namespace {

const IpAddress kRelay = relay_endpoint(0).address;

std::string via_text(const Endpoint& via) {
    if (via.address != kRelay) return via.text();
    return via.port == 0 ? std::string{"relay"} : fmt::format("relay {}", via.port);
}

std::string endpoints_text(const std::vector<Endpoint>& endpoints) {
    std::string out = ",\"Endpoints\":[";
    for (std::size_t i = 0; i < endpoints.size(); ++i)
        out += fmt::format("{}\"{}\"", i == 0 ? "" : ",", endpoints[i].text());
    return out + ']';
}

std::string relay_endpoint_text(const DiscoRelayEndpoint& endpoint) {
    return fmt::format(",\"VNI\":{}", endpoint.vni) + endpoints_text(endpoint.addresses);
}

} // namespace

std::string write_disco_frame(const DiscoFrame& frame, const WallTime& now, std::string_view peer_name,
                              std::uint64_t lost) {
    std::string via = via_text(frame.via);
    if (frame.vni) via += fmt::format(":vni:{}", *frame.vni);
    std::string out = fmt::format("{{\"Time\":\"{}\",\"Direction\":\"{}\",\"Via\":\"{}\",\"Peer\":", now.text(),
                                  frame.direction == DiscoFrame::Direction::In ? "in" : "out", via);
    json::append_string(out, peer_name.empty() ? frame.peer.short_text() : std::string{peer_name});
    if (const auto* ping = std::get_if<DiscoPing>(&frame.message)) {
        out += fmt::format(",\"Type\":\"ping\",\"TxID\":\"{}\"", hex_encode(ping->tx_id));
        if (!ping->node_key.is_zero()) out += fmt::format(",\"NodeKey\":\"{}\"", ping->node_key.text());
        if (ping->padding > 0) out += fmt::format(",\"Padding\":{}", ping->padding);
    } else if (const auto* pong = std::get_if<DiscoPong>(&frame.message)) {
        out += fmt::format(",\"Type\":\"pong\",\"TxID\":\"{}\",\"SeenFrom\":\"{}\"", hex_encode(pong->tx_id),
                           via_text(pong->seen_from));
    } else if (const auto* call = std::get_if<DiscoCallMeMaybe>(&frame.message)) {
        out += ",\"Type\":\"call-me-maybe\"" + endpoints_text(call->endpoints);
    } else if (const auto* punch = std::get_if<DiscoPunch>(&frame.message)) {
        static constexpr const char* kSteps[] = {"", "ask", "ready", "go", "refuse", "stop"};
        out += fmt::format(",\"Type\":\"punch\",\"Step\":\"{}\",\"Run\":{}",
                           kSteps[static_cast<std::size_t>(punch->step)], punch->run);
        if (punch->outside.valid()) out += fmt::format(",\"Outside\":\"{}\"", punch->outside.text());
    } else if (const auto* handshake = std::get_if<DiscoRelayHandshake>(&frame.message)) {
        static constexpr const char* kHandshakeSteps[] = {"bind", "challenge", "answer"};
        auto step =
            static_cast<std::size_t>(handshake->step) - static_cast<std::size_t>(DiscoRelayHandshake::Step::Bind);
        out += fmt::format(",\"Type\":\"relay-{}\",\"Generation\":{}", kHandshakeSteps[step], handshake->generation);
    } else if (const auto* meet = std::get_if<DiscoCallMeMaybeVia>(&frame.message)) {
        out += ",\"Type\":\"call-me-maybe-via\"" + relay_endpoint_text(meet->endpoint);
    } else if (const auto* request = std::get_if<DiscoAllocateRequest>(&frame.message)) {
        out += fmt::format(",\"Type\":\"allocate-request\",\"Generation\":{}", request->generation);
    } else if (const auto* response = std::get_if<DiscoAllocateResponse>(&frame.message)) {
        out += fmt::format(",\"Type\":\"allocate-response\",\"Generation\":{}", response->generation) +
               relay_endpoint_text(response->endpoint);
    } else if (const auto* unknown = std::get_if<DiscoUnknown>(&frame.message)) {
        out += fmt::format(",\"Type\":\"type {}\"", unknown->type);
    }
    if (lost > 0) out += fmt::format(",\"LostBefore\":{}", lost);
    return out + '}';
}

} // namespace tailrace
