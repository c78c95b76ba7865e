#include "agent/engine/known_rule.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace tailrace {

std::vector<std::uint32_t> policy_lines(const KnownRule& rule) {
    return policy_lines(rule, {});
}

std::vector<std::uint32_t> policy_lines(const KnownRule& rule, const std::vector<std::size_t>& destinations) {
    std::vector<std::uint32_t> lines;
    std::uint64_t begin = 0;
    for (const wire::LineSpan& span : rule.lines) {
        std::uint64_t end = span.count == 0 ? UINT64_MAX : begin + span.count;
        auto first = std::lower_bound(destinations.begin(), destinations.end(), begin);
        bool concerned = destinations.empty() || (first != destinations.end() && *first < end);
        if (concerned && span.line != 0) lines.push_back(span.line);
        if (span.count == 0) break;
        begin = end;
    }
    std::sort(lines.begin(), lines.end());
    lines.erase(std::unique(lines.begin(), lines.end()), lines.end());
    return lines;
}

std::string policy_lines_member(const std::vector<std::uint32_t>& lines) {
    return lines.empty() ? "" : fmt::format("\"PolicyLines\":[{}],", fmt::join(lines, ","));
}

} // namespace tailrace
