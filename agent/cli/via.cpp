// 4via6 routes, both ways.
#include "agent/cli/commands.hpp"
#include "agent/router/via6.hpp"
#include "base/text.hpp"

#include <charconv>

namespace tailrace::cli {

Result<std::string> via_text(const std::vector<std::string>& words) {
    if (words.size() == 1) {
        auto prefix = IpPrefix::parse(words[0]);
        if (!prefix) return prefix.error();
        if (!prefix->address().is_v6()) return Error::make("with one argument, expect an IPv6 CIDR");
        if (!via_range().contains(prefix->address())) return Error::make("not a via route");
        if (prefix->bits() < 96) return Error::make("short length, want /96 or more");
        auto route = from_via(*prefix);
        if (!route) return route.error();
        return fmt::format("site {0} (0x{0:x}), {1}\n", route->site, route->prefix.text());
    }
    if (words.size() != 2) return Error::make("expect either <site-id> <v4-cidr> or <v6-route>");
    const bool hex = words[0].starts_with("0x") || words[0].starts_with("0X");
    std::uint32_t site = 0;
    const char* begin = words[0].data() + (hex ? 2 : 0);
    const char* end = words[0].data() + words[0].size();
    auto [stopped, error] = std::from_chars(begin, end, site, hex ? 16 : 10);
    if (error != std::errc{} || stopped != end || begin == end)
        return Error::make("invalid site-id \"{}\"; must be decimal or hex with 0x prefix", words[0]);
    auto prefix = IpPrefix::parse(words[1]);
    if (!prefix) return prefix.error();
    auto via = to_via({site, *prefix});
    if (!via) return via.error();
    return via->text() + "\n";
}

} // namespace tailrace::cli
