#include "agent/engine/explanation.hpp"

#include "base/json/json.hpp"
#include "base/text.hpp"

#include <algorithm>
#include <utility>

namespace tailrace {
namespace {

constexpr std::size_t kShownEntries = 6;

constexpr std::pair<const char*, std::uint8_t> kProtocols[] = {{"tcp", 6},    {"udp", 17}, {"icmp", 1},
                                                               {"sctp", 132}, {"gre", 47}, {"ipv6-icmp", 58}};

bool has_ports(std::uint8_t protocol) {
    return protocol == 6 || protocol == 17 || protocol == 132;
}

bool contains(std::string_view text, const IpAddress& address) {
    if (text == "*") return true;
    if (auto dash = text.find('-'); dash != std::string_view::npos) {
        auto first = IpAddress::parse(text.substr(0, dash)), last = IpAddress::parse(text.substr(dash + 1));
        return first && last && IpRange{*first, *last}.contains(address);
    }
    if (text.find('/') != std::string_view::npos) {
        auto prefix = IpPrefix::parse(text);
        return prefix && prefix->contains(address);
    }
    auto single = IpAddress::parse(text);
    return single && *single == address;
}

bool lists_protocol(const FilterRule& rule, std::uint8_t protocol) {
    if (!rule.ip_proto.empty()) return std::ranges::find(rule.ip_proto, protocol) != rule.ip_proto.end();
    return protocol == 6 || protocol == 17 || protocol == 1 || protocol == 58;
}

std::string ports_text(const PortRange& ports) {
    if (ports.is_all()) return "*";
    return ports.first == ports.last ? std::to_string(ports.first) : fmt::format("{}-{}", ports.first, ports.last);
}

template <typename Entries, typename Text>
std::string listed(const Entries& entries, Text text) {
    std::string out;
    std::size_t shown = 0;
    for (const auto& entry : entries) {
        if (shown == kShownEntries) return out + fmt::format(" and {} more", entries.size() - shown);
        out += (shown++ ? ", " : "") + text(entry);
    }
    return out;
}

std::string destination_text(const FilterDestination& destination) {
    bool bracket = destination.ip.find(':') != std::string::npos;
    return fmt::format("{}{}{}:{}", bracket ? "[" : "", destination.ip, bracket ? "]" : "",
                       ports_text(destination.ports));
}

/// Empty: nothing is missing, or more than one thing.
std::string what_is_missing(const PacketQuestion& question, const FilterRule& rule) {
    bool source = std::ranges::any_of(rule.src_ips, [&](const auto& text) { return contains(text, question.source); });
    std::vector<FilterDestination> here;
    for (const FilterDestination& destination : rule.dst_ports)
        if (contains(destination.ip, question.destination)) here.push_back(destination);
    if (here.empty()) return "";
    bool protocol = lists_protocol(rule, question.protocol);
    bool port = !has_ports(question.protocol) ||
                std::ranges::any_of(here, [&](const auto& one) { return one.ports.contains(question.port); });
    if (!source + !protocol + !port != 1) return "";
    if (!source) return "for other sources";
    if (!protocol)
        return "for another protocol: " +
               (rule.ip_proto.empty() ? std::string{"tcp, udp and icmp"} : listed(rule.ip_proto, protocol_name));
    return "for another port: " + listed(here, [](const auto& one) { return ports_text(one.ports); });
}

void append_member(std::string& out, const char* name, std::string_view text) {
    out += fmt::format("\"{}\":", name);
    json::append_string(out, text);
}

} // namespace

std::string protocol_name(int number) {
    for (const auto& [name, known] : kProtocols)
        if (known == number) return name;
    return std::to_string(number);
}

Result<PacketQuestion> parse_question(std::string_view source, std::string_view destination, std::string_view port,
                                      std::string_view protocol) {
    PacketQuestion out;
    auto from = IpAddress::parse(source), to = IpAddress::parse(destination);
    if (!from || !from->valid()) return Error::make("source \"{}\": want an IP address", source);
    if (!to || !to->valid()) return Error::make("destination \"{}\": want an IP address", destination);
    if (from->is_v4() != to->is_v4())
        return Error::make("{} and {} are of different families: no packet goes from one to the other", source,
                           destination);
    out.source = *from;
    out.destination = *to;
    std::string wanted = to_lower(protocol);
    auto known = std::ranges::find_if(kProtocols, [&](const auto& one) { return one.first == wanted; });
    if (wanted.empty()) {
        out.protocol = 6;
    } else if (known != std::end(kProtocols)) {
        out.protocol = known->second == 1 && to->is_v6() ? std::uint8_t{58} : known->second;
    } else {
        auto number = parse_number<std::uint8_t>(wanted);
        if (!number) return Error::make("protocol \"{}\": want tcp, udp, sctp, icmp, gre or a number to 255", protocol);
        out.protocol = *number;
    }
    if (has_ports(out.protocol)) {
        auto number = parse_number<std::uint16_t>(port);
        if (!number) return Error::make("port \"{}\": want a number from 0 to 65535", port);
        out.port = *number;
    }
    return out;
}

std::string rule_text(const FilterRule& rule) {
    std::string out =
        listed(rule.src_ips, [](const auto& one) { return one; }) + " -> " + listed(rule.dst_ports, destination_text);
    if (!rule.ip_proto.empty()) out += " (" + listed(rule.ip_proto, protocol_name) + ")";
    return out;
}

std::vector<NearMiss> near_misses(const PacketQuestion& question, const std::vector<FilterRule>& rules,
                                  std::size_t limit) {
    std::vector<NearMiss> out;
    for (std::size_t index = 0; index < rules.size() && out.size() < limit; ++index)
        if (std::string why = what_is_missing(question, rules[index]); !why.empty())
            out.push_back({index, std::move(why)});
    return out;
}

std::string write_explanation(const PacketQuestion& question, const PacketAnswer& answer,
                              std::optional<std::size_t> index, const std::vector<FilterRule>& rules) {
    std::string out = fmt::format(
        R"({{"Source":"{}","Destination":"{}","Protocol":"{}","Port":{},"Passes":{},"Reason":"{}","Rule":{},)",
        question.source.text(), question.destination.text(), protocol_name(question.protocol),
        has_ports(question.protocol) ? std::to_string(question.port) : "null", answer.passes, answer.reason,
        index ? std::to_string(*index) : "null");
    append_member(out, "RuleText", index && *index < rules.size() ? rule_text(rules[*index]) : "");
    out += ",\"NearMisses\":[";
    if (!answer.passes) {
        bool first = true;
        for (const NearMiss& miss : near_misses(question, rules)) {
            out += fmt::format("{}{{\"Rule\":{},", first ? "" : ",", miss.index);
            first = false;
            append_member(out, "RuleText", rule_text(rules[miss.index]));
            out += ',';
            append_member(out, "Why", miss.why);
            out += '}';
        }
    }
    return out + "]}";
}

} // namespace tailrace
