#include "agent/engine/explanation.hpp"

#include "base/json/json.hpp"
#include "base/text.hpp"
#include "policy/rule_address.hpp"

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

constexpr std::string_view kCapability = "cap:";

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

/// Numbers of the destinations of a rule: those with the packet's address, and those with its port too.
struct Fitting {
    std::vector<std::size_t> address, port;
};
Fitting fitting(const PacketQuestion& question, const FilterRule& rule) {
    Fitting out;
    for (std::size_t i = 0; i < rule.dst_ports.size(); ++i) {
        const FilterDestination& destination = rule.dst_ports[i];
        if (!names_address(destination.ip, question.destination)) continue;
        out.address.push_back(i);
        if (!has_ports(question.protocol) || destination.ports.contains(question.port)) out.port.push_back(i);
    }
    return out;
}

bool is_source(std::string_view text, const PacketQuestion& question, const std::vector<std::string>& source_caps) {
    if (!text.starts_with(kCapability)) return names_address(text, question.source);
    return std::ranges::find(source_caps, text.substr(kCapability.size())) != source_caps.end();
}

std::string other_sources(const FilterRule& rule) {
    std::vector<std::string> caps;
    for (const std::string& text : rule.src_ips)
        if (text.starts_with(kCapability)) caps.push_back(text.substr(kCapability.size()));
    auto wanted = listed(caps, [](const std::string& cap) { return cap; });
    if (caps.empty()) return "for other sources";
    return (caps.size() == rule.src_ips.size() ? "for peers with the capability "
                                               : "for other sources, and peers with the capability ") +
           wanted;
}

/// Without its index. Nothing: nothing is missing, or more than one thing.
std::optional<NearMiss> what_is_missing(const PacketQuestion& question, const std::vector<std::string>& source_caps,
                                        const KnownRule& known) {
    const FilterRule& rule = known.rule;
    Fitting here = fitting(question, rule);
    if (here.address.empty()) return std::nullopt;
    bool source =
        std::ranges::any_of(rule.src_ips, [&](const auto& text) { return is_source(text, question, source_caps); });
    bool protocol = lists_protocol(rule, question.protocol);
    bool port = !here.port.empty();
    if (!source + !protocol + !port != 1) return std::nullopt;
    NearMiss miss;
    miss.lines = policy_lines(known, port ? here.port : here.address);
    if (!source)
        miss.why = other_sources(rule);
    else if (!protocol)
        miss.why = "for another protocol: " +
                   (rule.ip_proto.empty() ? std::string{"tcp, udp and icmp"} : listed(rule.ip_proto, protocol_name));
    else
        miss.why = "for another port: " +
                   listed(here.address, [&](std::size_t one) { return ports_text(rule.dst_ports[one].ports); });
    return miss;
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

std::vector<NearMiss> near_misses(const PacketQuestion& question, const std::vector<std::string>& source_caps,
                                  const std::vector<KnownRule>& rules, std::size_t limit) {
    std::vector<NearMiss> out;
    for (std::size_t index = 0; index < rules.size() && out.size() < limit; ++index)
        if (auto miss = what_is_missing(question, source_caps, rules[index])) {
            miss->index = index;
            out.push_back(std::move(*miss));
        }
    return out;
}

std::vector<std::uint32_t> deciding_lines(const PacketQuestion& question, const KnownRule& rule) {
    return policy_lines(rule, fitting(question, rule.rule).port);
}

std::string write_explanation(const PacketQuestion& question, const PacketAnswer& answer,
                              std::optional<std::size_t> index, const std::vector<std::string>& source_caps,
                              const std::vector<KnownRule>& rules) {
    std::string out = fmt::format(
        R"({{"Source":"{}","Destination":"{}","Protocol":"{}","Port":{},"Passes":{},"Reason":"{}","Rule":{},)",
        question.source.text(), question.destination.text(), protocol_name(question.protocol),
        has_ports(question.protocol) ? std::to_string(question.port) : "null", answer.passes, answer.reason,
        index ? std::to_string(*index) : "null");
    bool is_known = index && *index < rules.size();
    append_member(out, "RuleText", is_known ? rule_text(rules[*index].rule) : "");
    out += ',';
    if (is_known) out += policy_lines_member(deciding_lines(question, rules[*index]));
    out += "\"NearMisses\":[";
    if (!answer.passes) {
        bool first = true;
        for (const NearMiss& miss : near_misses(question, source_caps, rules)) {
            out += fmt::format("{}{{\"Rule\":{},", first ? "" : ",", miss.index);
            first = false;
            append_member(out, "RuleText", rule_text(rules[miss.index].rule));
            out += ',' + policy_lines_member(miss.lines);
            append_member(out, "Why", miss.why);
            out += '}';
        }
    }
    return out + "]}";
}

} // namespace tailrace
