// `tailrace debug paths`, `peer-relay-sessions` and `capture`: how peers are reached, whom we relay for, and disco as
// it happens.
#include "agent/cli/commands.hpp"
#include "base/json/json.hpp"

#include <algorithm>
#include <cstdio>

namespace tailrace::cli {
namespace {

std::string ago(const boost::json::object& object, const char* name) {
    const auto* member = object.if_contains(name);
    if (member == nullptr || !member->is_number()) return "-";
    return fmt::format("{:.1f}s ago", member->to_number<double>() / 1000);
}

std::string list_of(const boost::json::object& object, const char* name) {
    std::string out;
    if (const auto* member = object.if_contains(name); member != nullptr && member->is_array())
        for (const auto& entry : member->get_array())
            if (entry.is_string()) out += fmt::format("{}{}", out.empty() ? "" : ", ", entry.get_string().c_str());
    return out;
}

/// What became of the path when nobody spoke.
std::string lifetime_text(const boost::json::object& lifetime) {
    auto seconds = [&](const char* name) {
        const auto* member = lifetime.if_contains(name);
        return member == nullptr || !member->is_number() ? 0 : member->to_number<int>();
    };
    const int outlived = seconds("OutlivedSeconds"), lost = seconds("LostWithinSeconds");
    std::string out = fmt::format("    silence: {} ", text_of(lifetime, "Endpoint"));
    if (outlived > 0) out += fmt::format("outlived {} s of it{}", outlived, lost > 0 ? ", and " : "");
    if (lost > 0) out += fmt::format("was lost within {} s", lost);
    return out + fmt::format(" ({})\n", ago(lifetime, "AgoMs"));
}

std::string peer_text(const boost::json::object& peer) {
    std::string endpoint = text_of(peer, "Endpoint");
    std::string out =
        fmt::format("{}  {}\n    {}\n", text_of(peer, "Name"), endpoint.empty() ? "-" : endpoint, text_of(peer, "Why"));
    auto number = [&](const char* name) {
        const auto* member = peer.if_contains(name);
        return member == nullptr || !member->is_number() ? 0 : member->to_number<int>();
    };
    const auto* relayed = peer.if_contains("Relayed");
    bool is_relayed = relayed != nullptr && relayed->is_bool() && relayed->get_bool();
    if (int servers = number("RelayServers"); is_relayed && servers > 0 && text_of(peer, "PeerRelay").empty())
        out += fmt::format("    peer relay: none, of {} relay servers {} is asked now, {} handshakes go on\n", servers,
                           number("RelayQuestions"), number("RelayHandshakes"));
    if (const auto* lifetime = peer.if_contains("UDPLifetime"); lifetime != nullptr && lifetime->is_object())
        out += lifetime_text(lifetime->get_object());
    const auto* candidates = peer.if_contains("Candidates");
    if (candidates == nullptr || !candidates->is_array() || candidates->get_array().empty()) return out;
    // Only where packets of several sizes are tried.
    auto mtu_of = [](const boost::json::object& one) {
        const auto* bytes = one.if_contains("PathMTU");
        return bytes == nullptr || !bytes->is_number() ? 0 : bytes->to_number<int>();
    };
    const bool sizes = std::ranges::any_of(candidates->get_array(), [&](const auto& entry) {
        return entry.is_object() && mtu_of(entry.get_object()) != 0;
    });
    out += fmt::format("    {:<40} {:<26} {:<12} {:<12} {:<12} {:<9}{}\n", "ADDRESS", "LEARNT FROM", "PINGED", "PONG",
                       "PINGED US", "LATENCY", sizes ? " MTU" : "");
    for (const auto& entry : candidates->get_array()) {
        if (!entry.is_object()) continue;
        const auto& one = entry.get_object();
        std::string latency = "-";
        if (const auto* time = one.if_contains("RoundTripMs"); time != nullptr && time->is_number())
            latency = fmt::format("{:.1f}ms", time->to_number<double>());
        std::string address = text_of(one, "Endpoint");
        std::string mtu;
        if (sizes) mtu = mtu_of(one) == 0 ? " -" : fmt::format(" {}", mtu_of(one));
        out += fmt::format("  {} {:<40} {:<26} {:<12} {:<12} {:<12} {:<9}{}\n", address == endpoint ? "*" : " ",
                           address, list_of(one, "LearntFrom"), ago(one, "PingedAgoMs"), ago(one, "PongAgoMs"),
                           ago(one, "PingedUsAgoMs"), latency, mtu);
    }
    return out;
}

} // namespace

Result<std::string> paths_text(std::string_view json) {
    auto value = json::parse_value(json);
    if (!value) return value.error();
    const auto* peers = value->is_object() ? value->get_object().if_contains("Peers") : nullptr;
    if (peers == nullptr || !peers->is_array()) return Error::make("debug-paths: the agent's answer names no peers");
    std::string out;
    for (const auto& peer : peers->get_array())
        if (peer.is_object()) out += peer_text(peer.get_object());
    return out;
}

Result<std::string> disco_frame_text(std::string_view line) {
    auto value = json::parse_value(line);
    if (!value) return value.error();
    if (!value->is_object()) return Error::make("the agent's line is not an object");
    const auto& frame = value->get_object();
    std::string out;
    if (const auto* lost = frame.if_contains("LostBefore"); lost != nullptr && lost->is_number())
        out += fmt::format("({} frames were lost here)\n", lost->to_number<std::uint64_t>());
    std::string time = text_of(frame, "Time"), type = text_of(frame, "Type");
    if (auto at = time.find('T'); at != std::string::npos) time = time.substr(at + 1);
    out += fmt::format("{:<19} {} {:<16} {:<13} {}", time, text_of(frame, "Direction") == "in" ? '<' : '>',
                       text_of(frame, "Peer"), type, text_of(frame, "Via"));
    if (std::string id = text_of(frame, "TxID"); !id.empty()) out += " tx " + id;
    if (std::string seen = text_of(frame, "SeenFrom"); !seen.empty()) out += " seen from " + seen;
    if (type == "punch") out += " " + text_of(frame, "Step");
    if (std::string endpoints = list_of(frame, "Endpoints"); !endpoints.empty()) out += " " + endpoints;
    return out + "\n";
}

Task<int> debug_paths(LocalClient& client, std::string peer, bool json_wanted) {
    std::string target = "/localapi/v0/debug-paths";
    if (!peer.empty()) {
        auto status = co_await client.status();
        if (!status) co_return fail(status.error().message());
        auto found = find_peer(*status, peer);
        if (!found) co_return fail(found.error().message());
        target += "?peer=" + percent_encode((*found)->public_key);
    }
    co_return co_await show_answer(client, std::move(target), json_wanted ? "\t" : "", paths_text);
}

Result<std::string> peer_relay_sessions_text(std::string_view json) {
    auto value = json::parse_value(json);
    if (!value) return value.error();
    if (!value->is_object()) return Error::make("debug-peer-relay-sessions: the agent's answer is not an object");
    const auto& server = value->get_object();
    const auto* port = server.if_contains("UDPPort");
    if (port == nullptr || !port->is_number())
        return std::string{"This node does not relay for peers (\"tailrace set --relay-server-port=PORT\" lets it).\n"};
    std::string out = fmt::format("Server port: {}\n", port->to_number<int>());
    const auto* sessions = server.if_contains("Sessions");
    if (sessions == nullptr || !sessions->is_array()) return out;
    out += fmt::format("Sessions count: {}\n", sessions->get_array().size());
    for (const auto& entry : sessions->get_array()) {
        if (!entry.is_object()) continue;
        const auto& session = entry.get_object();
        auto number = [](const boost::json::object& object, const char* name) {
            const auto* member = object.if_contains(name);
            return member == nullptr || !member->is_number() ? 0 : member->to_number<std::uint64_t>();
        };
        auto who = [](const boost::json::object& client) {
            std::string name = text_of(client, "Name"), endpoint = text_of(client, "Endpoint");
            return fmt::format("{} ({})", name.empty() ? text_of(client, "ShortDisco") : name,
                               endpoint.empty() ? "no handshake yet" : endpoint);
        };
        const auto *one = session.if_contains("Client1"), *other = session.if_contains("Client2");
        if (one == nullptr || other == nullptr || !one->is_object() || !other->is_object()) continue;
        out += fmt::format("\nVNI: {}\n", number(session, "VNI"));
        for (auto [from, to] : {std::pair{one, other}, std::pair{other, one}})
            out += fmt::format("  {} --> {}, packets {}, bytes {}\n", who(from->get_object()), who(to->get_object()),
                               number(from->get_object(), "PacketsTx"), number(from->get_object(), "BytesTx"));
    }
    return out;
}

Task<int> debug_peer_relay_sessions(LocalClient& client, bool json_wanted) {
    co_return co_await show_answer(client, "/localapi/v0/debug-peer-relay-sessions", json_wanted ? "\t" : "",
                                   peer_relay_sessions_text);
}

Task<int> debug_capture(LocalClient& client, bool json_wanted) {
    auto lines = co_await client.stream("/localapi/v0/debug-capture-disco");
    if (!lines) co_return fail(lines.error().message());
    for (;;) {
        auto line = co_await (*lines)->next_line();
        if (!line) co_return fail(line.error().message());
        if (line->empty()) co_return fail("tailraced ended the capture");
        auto text = json_wanted ? Result<std::string>{*line + "\n"} : disco_frame_text(*line);
        if (!text) co_return fail(text.error().message());
        fmt::print("{}", *text);
        std::fflush(stdout);
    }
}

} // namespace tailrace::cli
