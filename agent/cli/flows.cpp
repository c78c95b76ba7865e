// `tailrace debug top` and `tailrace debug drops --follow`: packets as they come.
#include "agent/cli/commands.hpp"
#include "base/json/json.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace tailrace::cli {
namespace {

double number_of(const boost::json::object& object, const char* name) {
    const auto* member = object.if_contains(name);
    return member != nullptr && member->is_number() ? member->to_number<double>() : 0;
}

std::string rule_of(const boost::json::object& object) {
    const auto* member = object.if_contains("Rule");
    if (member == nullptr || !member->is_number()) return "-";
    std::string lines = policy_lines_text(object);
    return fmt::format("{}{}: {}", member->to_number<double>(), lines.empty() ? "" : ", " + lines,
                       text_of(object, "RuleText"));
}

std::string near_text(const boost::json::object& near) {
    std::string lines = policy_lines_text(near);
    if (!lines.empty()) lines += " of the policy, ";
    return fmt::format("; near: {}rule {:.0f}: {}, {}", lines, number_of(near, "Rule"), text_of(near, "RuleText"),
                       text_of(near, "Why"));
}

std::string flow_line(const boost::json::object& flow) {
    std::string opener = text_of(flow, "OpenedBy");
    const char* arrow = opener == "us" ? "->" : opener == "peer" ? "<-" : "<>";
    const auto* closed = flow.if_contains("Closed");
    bool is_closed = closed != nullptr && closed->is_bool() && closed->get_bool();
    return fmt::format("{:<16.16} {:<6} {:<28} {}{} {:<28} {:>9} {:>9} {:>10}  {}\n", text_of(flow, "Peer"),
                       text_of(flow, "Protocol"), text_of(flow, "Local"), arrow, is_closed ? "x" : " ",
                       text_of(flow, "Remote"), number_of(flow, "InPackets") + number_of(flow, "OutPackets"),
                       bytes_text(number_of(flow, "InBytes") + number_of(flow, "OutBytes")),
                       bytes_text(number_of(flow, "BytesPerSecond")) + "/s", rule_of(flow));
}

/// Lines of the terminal; none when what we print goes elsewhere.
std::optional<std::size_t> terminal_lines() {
    winsize size{};
    if (::isatty(STDOUT_FILENO) == 0) return std::nullopt;
    if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0) return 24;
    return size.ws_row;
}

} // namespace

std::string bytes_text(double bytes) {
    const char* units[] = {"B", "kB", "MB", "GB", "TB"};
    std::size_t unit = 0;
    while (bytes >= 1000 && unit + 1 < std::size(units)) {
        bytes /= 1000;
        ++unit;
    }
    return fmt::format("{:.{}f}{}", bytes, unit == 0 || bytes >= 100 ? 0 : 1, units[unit]);
}

Result<std::string> flows_text(std::string_view json, std::size_t most) {
    auto value = json::parse_value(json);
    if (!value) return value.error();
    const auto* flows = value->is_object() ? value->get_object().if_contains("Flows") : nullptr;
    if (flows == nullptr || !flows->is_array()) return Error::make("debug-flows: the agent's line names no flows");
    const auto& object = value->get_object();
    std::string out = fmt::format("{:.0f} flows, {}/s\n", number_of(object, "FlowCount"),
                                  bytes_text(number_of(object, "BytesPerSecond")));
    double missed = number_of(object, "PacketsUncounted") + number_of(object, "EventsLost");
    if (missed > 0 || number_of(object, "LeftOut") > 0)
        out += fmt::format(
            "(more than can be watched: {:.0f} packets, {:.0f} events and {:.0f} flows are not in here)\n",
            number_of(object, "PacketsUncounted"), number_of(object, "EventsLost"), number_of(object, "LeftOut"));
    out += fmt::format("{:<16} {:<6} {:<28}     {:<28} {:>9} {:>9} {:>10}  {}\n", "PEER", "PROTO", "HERE", "THERE",
                       "PACKETS", "BYTES", "RATE", "RULE");
    std::size_t shown = 0;
    for (const auto& flow : flows->get_array())
        if (flow.is_object() && shown++ < most) out += flow_line(flow.get_object());
    return out;
}

Result<std::string> drop_text(std::string_view json) {
    auto value = json::parse_value(json);
    if (!value) return value.error();
    if (!value->is_object()) return Error::make("the agent's line is not an object");
    const auto& drop = value->get_object();
    if (drop.contains("NotSampled")) {
        double not_sampled = number_of(drop, "NotSampled"), lost = number_of(drop, "Lost");
        if (not_sampled + lost == 0) return std::string{};
        return fmt::format("({:.0f} more drops so far that were too many to tell of)\n", not_sampled + lost);
    }
    std::string time = text_of(drop, "Time");
    if (auto at = time.find('T'); at != std::string::npos) time = time.substr(at + 1);
    std::string source = text_of(drop, "Source"), peer = text_of(drop, "Peer");
    std::string out = fmt::format("{:<19} {} {:<16} {:<18} ", time, text_of(drop, "Direction") == "in" ? '<' : '>',
                                  peer.empty() ? "-" : peer, text_of(drop, "Reason"));
    out += source.empty()
               ? "unreadable"
               : fmt::format("{} -> {} ({})", source, text_of(drop, "Destination"), text_of(drop, "Protocol"));
    out += fmt::format(", {:.0f} bytes", number_of(drop, "Bytes"));
    if (const auto* near = drop.if_contains("Near"); near != nullptr && near->is_object())
        out += near_text(near->get_object());
    return out + "\n";
}

Task<int> debug_top(LocalClient& client, bool json_wanted, bool once) {
    auto lines = co_await client.stream("/localapi/v0/debug-flows");
    if (!lines) co_return fail(lines.error().message());
    for (;;) {
        auto line = co_await (*lines)->next_line();
        if (!line) co_return fail(line.error().message());
        if (line->empty()) co_return fail("tailraced ended the watch");
        auto rows = json_wanted || once ? std::nullopt : terminal_lines();
        auto text = json_wanted ? Result<std::string>{*line + "\n"}
                                : flows_text(*line, rows ? *rows - std::min<std::size_t>(*rows, 4) : SIZE_MAX);
        if (!text) co_return fail(text.error().message());
        fmt::print("{}{}", rows ? "\x1b[H\x1b[2J" : "", *text);
        std::fflush(stdout);
        if (once) co_return 0;
    }
}

Task<int> debug_follow_drops(LocalClient& client, bool json_wanted) {
    auto lines = co_await client.stream("/localapi/v0/debug-follow-drops");
    if (!lines) co_return fail(lines.error().message());
    std::string told; // the last sum, which comes again and again
    for (;;) {
        auto line = co_await (*lines)->next_line();
        if (!line) co_return fail(line.error().message());
        if (line->empty()) co_return fail("tailraced ended the watch");
        auto text = json_wanted ? Result<std::string>{*line + "\n"} : drop_text(*line);
        if (!text) co_return fail(text.error().message());
        if (text->starts_with('(') && std::exchange(told, *text) == *text) continue;
        fmt::print("{}", *text);
        std::fflush(stdout);
    }
}

} // namespace tailrace::cli
