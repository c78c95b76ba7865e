// Commands that look and do not change anything.
#include "agent/cli/commands.hpp"
#include "agent/local/pretty_json.hpp"
#include "agent/version.hpp"
#include "base/json/json.hpp"

#include <algorithm>
#include <cstdio>

namespace tailrace::cli {

Task<int> status(LocalClient& client, StatusCommand command) {
    auto body = co_await client.request("GET", "/localapi/v0/status", "");
    if (!body) co_return fail(body.error().message());
    auto status = parse_status(*body);
    if (!status) co_return fail(status.error().message());
    if (command.json) {
        if (command.table.active_only && status->peer)
            std::erase_if(*status->peer, [](const auto& entry) { return !entry.second.active; });
        if (!command.table.peers) status->peer.reset();
        if (!command.table.self) status->self.reset();
        fmt::print("{}", pretty_json(write_status(*status), "  "));
        co_return 0;
    }
    if (status->backend_state != "Running" && status->backend_state != "Starting") {
        fmt::print("{}", not_running_text(*status));
        if (status->health && !status->health->empty()) {
            fmt::print("\n# Health check:\n");
            for (const std::string& message : *status->health) fmt::print("#     - {}\n", message);
        }
        co_return 1;
    }
    fmt::print("{}", status_table(*status, command.table, WallTime::now()));
    co_return 0;
}

Task<int> ip(LocalClient& client, IpCommand command) {
    if (command.one + command.v4 + command.v6 > 1) co_return fail("tailrace ip -1, -4, and -6 are mutually exclusive");
    auto status = co_await client.status();
    if (!status) co_return fail(status.error().message());
    std::vector<IpAddress> addresses = status->tailscale_ips.value_or(std::vector<IpAddress>{});
    if (!command.assert_ip.empty()) {
        auto wanted = IpAddress::parse(command.assert_ip);
        if (wanted && std::ranges::find(addresses, *wanted) != addresses.end()) co_return 0;
        co_return fail(fmt::format("assertion failed: IP not found among the node's Tailscale IPs"));
    }
    if (!command.peer.empty()) {
        auto peer = find_peer(*status, command.peer);
        addresses = peer ? (*peer)->tailscale_ips.value_or(std::vector<IpAddress>{})
                         : addresses_of_service(*status, command.peer);
        if (!peer && addresses.empty()) co_return fail(peer.error().message());
    }
    if (addresses.empty()) co_return fail(fmt::format("no current Tailscale IPs; state: {}", status->backend_state));
    bool printed = false;
    for (const IpAddress& address : addresses) {
        if ((command.v4 && !address.is_v4()) || (command.v6 && !address.is_v6())) continue;
        fmt::print("{}\n", address.text());
        printed = true;
        if (command.one) break;
    }
    if (!printed) co_return fail(command.v4 ? "no Tailscale IPv4 address" : "no Tailscale IPv6 address");
    co_return 0;
}

Task<int> ping(LocalClient& client, PingCommand command) {
    auto status = co_await client.status();
    if (!status) co_return fail(status.error().message());
    if (status->backend_state != "Running" && status->backend_state != "Starting") {
        fmt::print("{}", not_running_text(*status));
        co_return 1;
    }
    auto peer = find_peer(*status, command.target);
    if (!peer) co_return fail(peer.error().message());
    auto literal = IpAddress::parse(command.target);
    std::string address = literal && literal->valid() ? command.target
                          : (*peer)->tailscale_ips && !(*peer)->tailscale_ips->empty()
                              ? (*peer)->tailscale_ips->front().text()
                              : "";
    if (status->self && *peer == &*status->self) {
        fmt::print("{} is local Tailscale IP\n", address);
        co_return 0;
    }
    if (command.verbose && address != command.target) fmt::print("lookup \"{}\" => \"{}\"\n", command.target, address);
    std::string size;
    if (command.size_bytes != 0) size = fmt::format("&size={}", command.size_bytes);
    bool any_pong = false;
    for (int sent = 0; command.count == 0 || sent < command.count; ++sent) {
        auto timeout_ms = std::chrono::duration_cast<std::chrono::milliseconds>(command.timeout).count();
        auto body = co_await client.request("POST",
                                            fmt::format("/localapi/v0/ping?ip={}&type={}&timeout_ms={}{}",
                                                        percent_encode(address), command.type, timeout_ms, size),
                                            "");
        if (!body) co_return fail(body.error().message());
        auto result = parse_ping_result(*body);
        if (!result) co_return fail(result.error().message());
        if (result->is_local_ip) {
            fmt::print("{}\n", result->err);
            co_return 0;
        }
        if (result->err.empty()) {
            any_pong = true;
            fmt::print("{}", ping_line(*result, command.type));
            std::fflush(stdout);
            if (command.type != "disco") co_return 0;
            if (!result->endpoint.empty() && command.until_direct) co_return 0;
        } else if (result->err == "timeout") {
            fmt::print("ping \"{}\" timed out\n", address);
            std::fflush(stdout);
        } else {
            co_return fail(result->err);
        }
        if (command.count == 0 || sent + 1 < command.count) co_await client.reactor().sleep(std::chrono::seconds{1});
    }
    if (!any_pong) co_return fail("no reply");
    if (command.until_direct && command.type == "disco") co_return fail("direct connection not established");
    co_return 0;
}

Task<int> show_answer(LocalClient& client, std::string target, std::string json_indent,
                      Result<std::string> (*for_people)(std::string_view)) {
    auto body = co_await client.request("GET", std::move(target), "");
    if (!body) co_return fail(body.error().message());
    if (!json_indent.empty()) {
        fmt::print("{}\n", pretty_json(*body, json_indent));
        co_return 0;
    }
    auto text = for_people(*body);
    if (!text) co_return fail(text.error().message());
    fmt::print("{}", *text);
    co_return 0;
}

Task<int> whois(LocalClient& client, std::string address, std::string protocol, bool json_wanted) {
    std::string target = "/localapi/v0/whois?addr=" + percent_encode(address);
    if (!protocol.empty()) target += "&proto=" + percent_encode(protocol);
    co_return co_await show_answer(client, std::move(target), json_wanted ? "  " : "", whois_text);
}

Task<int> version(LocalClient& client, bool daemon, bool json_wanted) {
    std::string daemon_version;
    if (daemon) {
        auto status = co_await client.status();
        if (!status) co_return fail(status.error().message());
        daemon_version = status->version;
    }
    if (json_wanted) {
        std::string out = fmt::format(R"({{"majorMinorPatch":"{0}","short":"{0}","long":"{0}","cap":{1})", kVersion,
                                      kCapabilityVersion);
        if (daemon) {
            out += ",\"daemonLong\":";
            json::append_string(out, daemon_version);
        }
        fmt::print("{}\n", pretty_json(out + "}", "\t"));
        co_return 0;
    }
    if (daemon) {
        fmt::print("Client: {}\nDaemon: {}\n", kVersion, daemon_version);
        co_return 0;
    }
    fmt::print("{}\n  long version: {}\n  capability version: {}\n", kVersion, kVersion, kCapabilityVersion);
    co_return 0;
}

Task<int> debug_drops(LocalClient& client, bool json_wanted) {
    auto body = co_await client.request("GET", "/localapi/v0/debug-drops", "");
    if (!body) co_return fail(body.error().message());
    if (json_wanted) {
        fmt::print("{}\n", pretty_json(*body, "  "));
        co_return 0;
    }
    auto value = json::parse_value(*body);
    if (!value || !value->is_object()) co_return fail("debug-drops: the agent's answer is not an object");
    const auto& object = value->get_object();
    for (const char* part : {"Reasons", "Guard"}) { // the second where there is one
        const auto* reasons = object.if_contains(part);
        if (reasons == nullptr || !reasons->is_array()) continue;
        if (part == std::string_view{"Guard"}) fmt::print("\nWireGuard's port, outside the tunnel:\n");
        fmt::print("{:<20} {:>14} {:>16}\n", "REASON", "PACKETS", "BYTES");
        for (const auto& entry : reasons->get_array()) {
            const auto& reason = entry.as_object();
            auto packets = reason.at("Packets").to_number<std::uint64_t>();
            if (packets == 0) continue;
            fmt::print("{:<20} {:>14} {:>16}\n",
                       fmt::format("{}{}", reason.at("Passes").as_bool() ? "pass " : "drop ",
                                   reason.at("Reason").as_string().c_str()),
                       packets, reason.at("Bytes").to_number<std::uint64_t>());
        }
    }
    co_return 0;
}

Task<int> debug_json(LocalClient& client, std::string target) {
    auto body = co_await client.request("GET", std::move(target), "");
    if (!body) co_return fail(body.error().message());
    fmt::print("{}\n", pretty_json(*body, "\t"));
    co_return 0;
}

Task<int> debug_localapi(LocalClient& client, std::string method, std::string target, std::string body) {
    if (!target.starts_with('/')) target = "/localapi/v0/" + target;
    auto answer = co_await client.request(std::move(method), std::move(target), std::move(body));
    if (!answer) co_return fail(answer.error().message());
    fmt::print("{}{}", *answer, answer->ends_with('\n') ? "" : "\n");
    co_return 0;
}

} // namespace tailrace::cli
