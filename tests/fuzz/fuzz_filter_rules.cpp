// A packet filter as the coordination server sends it, JSON: read, turned into tables, and the tables say what the
// rules say.
#include "agent/engine/wanted.hpp"
#include "proto/control/map.hpp"
#include "tests/fuzz/filter_twins.hpp"

#include <functional>
#include <string>

using namespace tailrace;

namespace {

/// The node that the filter is for.
FilterInput a_router() {
    FilterInput input;
    input.own_addresses = {*IpAddress::parse("100.64.0.16"), *IpAddress::parse("fd7a:115c:a1e0::10")};
    for (const char* net : {"10.33.0.0/16", "2001:db8:7::/48", "169.254.169.254/32"})
        input.local_nets.push_back(*IpPrefix::parse(net));
    for (std::uint8_t number : {0x11, 0x12, 0x13}) {
        PeerFacts peer;
        peer.addresses = {IpAddress::v4(0x64400000u + number)};
        peer.allowed_ips = {IpPrefix::single(peer.addresses[0])};
        if (number != 0x11) peer.caps = {number == 0x12 ? "foo" : "bar"};
        peer.unsigned_peer_api_only = number == 0x13;
        input.peers.push_back(std::move(peer));
    }
    return input;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
    std::string_view text{reinterpret_cast<const char*>(data), size};
    auto response = wire::parse_map_response("{\"PacketFilter\":" + std::string{text} + "}");
    if (!response || !response->packet_filter) return 0;
    static const FilterInput router = a_router();
    FilterInput input = router;
    for (const wire::FilterRule& rule : *response->packet_filter) input.rules.push_back(to_policy(rule));
    test::Dice dice{std::hash<std::string_view>{}(text)};
    TableNumbers numbers;
    test::compare_twins(input, compile_tables(input, numbers), dice, test::Agreement::Exact);
    return 0;
}
