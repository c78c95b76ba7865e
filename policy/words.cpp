// policy/words.cpp - the small languages inside policy strings.
#include "policy/words.hpp"

#include "base/text.hpp"

#include <algorithm>
#include <cctype>
#include <limits>
#include <optional>

namespace tailrace {
namespace {

struct ProtocolName {
    std::string_view name;
    int number;
};

// Source: tailscale types/ipproto/ipproto.go; the aliases are the service's.
constexpr ProtocolName kProtocols[] = {
    {"icmp", 1}, {"icmpv4", 1},     {"igmp", 2},    {"ipv4", 4},  {"ip-in-ip", 4}, {"tcp", 6},
    {"egp", 8},  {"igp", 9},        {"udp", 17},    {"dccp", 33}, {"gre", 47},     {"esp", 50},
    {"ah", 51},  {"ipv6-icmp", 58}, {"icmpv6", 58}, {"tsmp", 99}, {"sctp", 132},   {"fc", 133},
};

/// A port, or nothing when it is not a number that fits.
std::optional<std::uint16_t> parse_port(std::string_view text) {
    auto number = parse_number<std::uint16_t>(text);
    if (!number) return std::nullopt;
    return *number;
}

bool is_ascii_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool is_ascii_digit(char c) {
    return c >= '0' && c <= '9';
}

struct DurationUnit {
    std::string_view name;
    double nanoseconds;
};
constexpr DurationUnit kUnits[] = {{"ns", 1},   {"us", 1e3}, {"\u00b5s", 1e3}, {"\u03bcs", 1e3},
                                   {"ms", 1e6}, {"s", 1e9},  {"m", 60e9},      {"h", 3600e9}};

} // namespace

namespace {

/// What helps, where the text is a number: the service's own words do not say why it is not one.
const char* port_cure(std::string_view text) {
    const bool number = !text.empty() && std::all_of(text.begin(), text.end(), is_ascii_digit);
    return number ? ": ports are 1-65535" : "";
}

} // namespace

Result<PortRange> parse_port_range(std::string_view text) {
    if (text == "*") return PortRange::all();
    const auto dash = text.find('-');
    const auto first = parse_port(text.substr(0, dash));
    if (!first)
        return Error::make("port range {}: invalid first integer{}", quoted(text), port_cure(text.substr(0, dash)));
    auto last = first;
    if (dash != std::string_view::npos) last = parse_port(text.substr(dash + 1));
    if (!last)
        return Error::make("port range {}: invalid last integer{}", quoted(text), port_cure(text.substr(dash + 1)));
    if (*first == 0) return Error::make("port range {}: first port must be >0, or use '*' for wildcard", quoted(text));
    if (*first > *last) return Error::make("port range {}: first port must be <= last port", quoted(text));
    return PortRange{*first, *last};
}

Result<std::vector<PortRange>> parse_port_list(std::string_view text) {
    std::vector<PortRange> ranges;
    for (const auto item : split(text, ',')) {
        auto range = parse_port_range(trim(item));
        if (!range) return range.error();
        ranges.push_back(*range);
    }
    return ranges;
}

Result<int> parse_protocol(std::string_view text) {
    const auto lower = to_lower(text);
    for (const auto& known : kProtocols) {
        if (known.name == lower) return known.number;
    }
    const bool digits = !text.empty() && std::all_of(text.begin(), text.end(), is_ascii_digit);
    if (digits) {
        if (auto number = parse_number<int>(text); number && *number <= 255) return *number;
    }
    return Error::make("proto name {} not known; use protocol number 0-255", quoted(text));
}

bool has_ports(int protocol) {
    return protocol == 6 || protocol == 17 || protocol == 132;
}

Result<std::chrono::nanoseconds> parse_go_duration(std::string_view text) {
    const auto invalid = [&] { return Error::make("time: invalid duration {}", quoted(text)); };
    std::string_view rest = text;
    const bool negative = !rest.empty() && rest.front() == '-';
    if (!rest.empty() && (rest.front() == '-' || rest.front() == '+')) rest.remove_prefix(1);
    if (rest == "0") return std::chrono::nanoseconds{0};
    if (rest.empty()) return invalid();
    double total = 0;
    while (!rest.empty()) {
        const auto number_size = std::min(rest.find_first_not_of("0123456789."), rest.size());
        const auto number = rest.substr(0, number_size);
        if (std::none_of(number.begin(), number.end(), is_ascii_digit) ||
            std::count(number.begin(), number.end(), '.') > 1)
            return invalid();
        double value = 0;
        double scale = 0; // 0 before the point, then 1/10, 1/100, ...
        for (const char c : number) {
            if (c == '.') {
                scale = 1;
            } else if (scale == 0) {
                value = value * 10 + (c - '0');
            } else {
                scale /= 10;
                value += scale * (c - '0');
            }
        }
        rest.remove_prefix(number_size);
        const auto unit_size = std::min(rest.find_first_of("0123456789."), rest.size());
        const auto unit_name = rest.substr(0, unit_size);
        if (unit_name.empty()) return Error::make("time: missing unit in duration {}", quoted(text));
        const auto unit = std::find_if(std::begin(kUnits), std::end(kUnits),
                                       [&](const DurationUnit& known) { return known.name == unit_name; });
        if (unit == std::end(kUnits))
            return Error::make("time: unknown unit {} in duration {}", quoted(unit_name), quoted(text));
        total += value * unit->nanoseconds;
        rest.remove_prefix(unit_size);
    }
    if (total >= static_cast<double>(std::numeric_limits<std::int64_t>::max())) return invalid();
    const auto count = static_cast<std::int64_t>(total);
    return std::chrono::nanoseconds{negative ? -count : count};
}

std::string duration_text(std::chrono::nanoseconds duration) {
    if (duration.count() == 0) return "0s";
    const auto count = duration.count();
    const std::uint64_t size = count < 0 ? 0 - static_cast<std::uint64_t>(count) : static_cast<std::uint64_t>(count);
    const char* sign = count < 0 ? "-" : "";
    const auto fraction = [](std::uint64_t value, std::uint64_t unit) {
        auto text = fmt::format("{}", static_cast<double>(value) / static_cast<double>(unit));
        return text.ends_with(".0") ? text.substr(0, text.size() - 2) : text;
    };
    if (size < 1'000) return fmt::format("{}{}ns", sign, size);
    if (size < 1'000'000) return fmt::format("{}{}\u00b5s", sign, fraction(size, 1'000));
    if (size < 1'000'000'000) return fmt::format("{}{}ms", sign, fraction(size, 1'000'000));
    const auto whole_seconds = size / 1'000'000'000;
    const auto seconds = fraction(size - whole_seconds / 60 * 60 * 1'000'000'000, 1'000'000'000);
    if (whole_seconds < 60) return fmt::format("{}{}s", sign, seconds);
    if (whole_seconds < 3600) return fmt::format("{}{}m{}s", sign, whole_seconds / 60, seconds);
    return fmt::format("{}{}h{}m{}s", sign, whole_seconds / 3600, whole_seconds / 60 % 60, seconds);
}

Result<void> check_tag_name(std::string_view tag) {
    if (!tag.starts_with("tag:")) return Error::make("tags must start with 'tag:'");
    const auto name = tag.substr(4);
    if (name.empty()) return Error::make("tag names must not be empty");
    if (!is_ascii_letter(name.front())) return Error::make("tag names must start with a letter, after 'tag:'");
    for (const char c : name) {
        if (!is_ascii_letter(c) && !is_ascii_digit(c) && c != '-')
            return Error::make("tag names can only contain numbers, letters, or dashes");
    }
    return {};
}

Result<IpPrefix> parse_address_or_prefix(std::string_view text) {
    // An IPv4 address in the clothes of an IPv6 one would match no packet: nobody sends from or to it.
    const auto is_disguised = [](const IpAddress& address) { return address.is_v6() && address.unmapped().is_v4(); };
    if (text.find('/') != std::string_view::npos) {
        auto prefix = IpPrefix::parse(text);
        if (!prefix) return prefix.error();
        if (!prefix->valid() || is_disguised(prefix->address())) return Error::make("{}: invalid prefix", quoted(text));
        return prefix->masked();
    }
    auto address = IpAddress::parse(text);
    if (!address) return address.error();
    if (!address->valid() || is_disguised(*address)) return Error::make("{}: invalid address", quoted(text));
    return IpPrefix::single(*address);
}

std::string address_cure(std::string_view text) {
    const auto slash = text.rfind('/');
    const auto address = text.substr(0, slash);
    const auto parsed = IpAddress::parse(address);
    if (parsed && parsed->is_v6() && parsed->unmapped().is_v4())
        return fmt::format(": IPv4 addresses are written as {}, prefixes of them as 192.0.2.0/24",
                           parsed->unmapped().text());
    if (slash == std::string_view::npos) return {};
    const bool zeros = !address.empty() && address.find_first_not_of("0.:") == std::string_view::npos &&
                       text.substr(slash + 1).find_first_not_of('0') == std::string_view::npos;
    if (zeros) return ": write 0.0.0.0/0, ::/0 or *";
    const bool like_one =
        !address.empty() && address.find_first_not_of("0123456789abcdefABCDEF.:") == std::string_view::npos;
    return like_one ? ": write prefixes as 192.0.2.0/24 or 2001:db8::/32" : "";
}

std::string quoted(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (c == '\n') {
            out += "\\n";
        } else if (c == '\t') {
            out += "\\t";
        } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
            out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
        } else {
            out += c;
        }
    }
    return out + "\"";
}

} // namespace tailrace
