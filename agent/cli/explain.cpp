// `tailrace debug explain`: what the packet filter in force does with a packet, and why.
#include "agent/cli/commands.hpp"
#include "agent/local/pretty_json.hpp"
#include "base/json/json.hpp"

#include <algorithm>

namespace tailrace::cli {
namespace {

constexpr const char* kPasses = "passes";

struct Asked {
    std::string host, port, protocol;
};

/// "web:443/udp", "[fd7a::1]:22", "web/icmp".
Asked split_destination(std::string_view text) {
    Asked out;
    if (auto slash = text.rfind('/'); slash != std::string_view::npos) {
        out.protocol = text.substr(slash + 1);
        text = text.substr(0, slash);
    }
    auto colon = text.rfind(':');
    bool bare_v6 = !text.starts_with('[') && colon != text.find(':');
    if (colon != std::string_view::npos && !bare_v6 && text.back() != ']') {
        out.port = text.substr(colon + 1);
        text = text.substr(0, colon);
    }
    if (text.starts_with('[') && text.ends_with(']')) text = text.substr(1, text.size() - 2);
    out.host = text;
    return out;
}

/// Of the named machine the address of a family, `text` itself where it is an address.
Result<IpAddress> address_of(const Status& status, std::string_view text, bool v4) {
    if (auto address = IpAddress::parse(text); address && address->valid()) return *address;
    auto peer = find_peer(status, text);
    if (!peer) return peer.error();
    if ((*peer)->tailscale_ips)
        for (const IpAddress& address : *(*peer)->tailscale_ips)
            if (address.is_v4() == v4) return address;
    return Error::make("{} has no {} address", text, v4 ? "IPv4" : "IPv6");
}

std::string number_text(const boost::json::object& object, const char* name) {
    const auto* member = object.if_contains(name);
    return member != nullptr && member->is_number() ? std::to_string(member->to_number<std::uint64_t>())
                                                    : std::string{};
}

} // namespace

Result<std::string> explanation_text(std::string_view json) {
    auto value = json::parse_value(json);
    if (!value) return value.error();
    const auto* passes = value->is_object() ? value->get_object().if_contains("Passes") : nullptr;
    if (passes == nullptr || !passes->is_bool()) return Error::make("debug-explain: the agent's answer has no verdict");
    const auto& answer = value->get_object();
    std::string port = number_text(answer, "Port"), rule = number_text(answer, "Rule");
    std::string out =
        fmt::format("{}: {} -> {}{}{} ({}), reason {}\n", passes->get_bool() ? kPasses : "dropped",
                    text_of(answer, "Source"), text_of(answer, "Destination"), port.empty() ? "" : " port ", port,
                    text_of(answer, "Protocol"), text_of(answer, "Reason"));
    if (!rule.empty()) {
        std::string lines = policy_lines_text(answer);
        out += lines.empty() ? "by " : fmt::format("allowed by {} of the policy, ", lines);
        out += fmt::format("rule {}: {}\n", rule, text_of(answer, "RuleText"));
    }
    const auto* misses = answer.if_contains("NearMisses");
    if (misses == nullptr || !misses->is_array() || misses->get_array().empty()) return out;
    out += "rules that come near:\n";
    for (const auto& each : misses->get_array()) {
        if (!each.is_object()) continue;
        const auto& miss = each.get_object();
        std::string lines = policy_lines_text(miss);
        out += lines.empty() ? "  " : fmt::format("  {} of the policy, rule ", lines);
        out += fmt::format("{}: {}\n     {}\n", number_text(miss, "Rule"), text_of(miss, "RuleText"),
                           text_of(miss, "Why"));
    }
    return out;
}

Task<int> debug_explain(LocalClient& client, std::string source, std::string destination, bool json_wanted) {
    auto status = co_await client.status();
    if (!status) co_return fail(status.error().message());
    Asked asked = split_destination(destination);
    // A name has an address of the other side's family.
    auto from = IpAddress::parse(source), to = IpAddress::parse(asked.host);
    bool v4 = from && from->valid() ? from->is_v4() : !(to && to->is_v6());
    from = address_of(*status, source, v4);
    if (!from) co_return fail(from.error().message());
    to = address_of(*status, asked.host, v4);
    if (!to) co_return fail(to.error().message());
    std::string target =
        fmt::format("/localapi/v0/debug-explain?src={}&dst={}&port={}&proto={}", percent_encode(from->text()),
                    percent_encode(to->text()), percent_encode(asked.port), percent_encode(asked.protocol));
    auto body = co_await client.request("GET", std::move(target), "");
    if (!body) co_return fail(body.error().message());
    auto text = explanation_text(*body);
    if (!text) co_return fail(text.error().message());
    fmt::print("{}", json_wanted ? pretty_json(*body, "\t") + "\n" : *text);
    co_return text->starts_with(kPasses) ? 0 : 1; // for scripts
}

} // namespace tailrace::cli
