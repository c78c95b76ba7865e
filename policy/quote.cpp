// policy/quote.cpp - words for rules, ports and protocols.
#include "policy/quote.hpp"

#include "base/text.hpp"

#include <fmt/ranges.h>

#include <algorithm>

namespace tailrace {

PolicyQuotes::PolicyQuotes(const Document& document) : document_(document) {
    if (!document.text) return;
    auto tree = hujson::Tree::parse(*document.text);
    if (!tree) return; // an empty policy
    tree_ = std::move(*tree);
    for (const auto& section : tree_.root().members) {
        for (const auto& element : section.value.elements) elements_[element.begin] = &element;
    }
}

std::string PolicyQuotes::rule_at(std::uint32_t offset, std::size_t limit) const {
    const auto found = elements_.find(offset);
    if (found == elements_.end()) return {};
    auto text = hujson::minimize(tree_.text(), *found->second);
    if (text.size() <= limit) return text;
    while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xc0) == 0x80) --limit; // not inside a character
    return text.substr(0, limit) + "...";
}

std::string ports_text(const std::vector<PortRange>& ports) {
    std::vector<std::string> texts;
    for (const auto& range : ports) {
        if (range.is_all()) return "*";
        texts.push_back(range.first == range.last ? fmt::format("{}", range.first)
                                                  : fmt::format("{}-{}", range.first, range.last));
    }
    return join(texts, ", ");
}

std::string protocol_text(int protocol) {
    switch (protocol) {
    case 1:
        return "icmp";
    case 2:
        return "igmp";
    case 6:
        return "tcp";
    case 17:
        return "udp";
    case 47:
        return "gre";
    case 50:
        return "esp";
    case 51:
        return "ah";
    case 58:
        return "ipv6-icmp";
    case 132:
        return "sctp";
    default:
        return fmt::format("protocol {}", protocol);
    }
}

std::string protocols_text(const std::vector<int>& protocols) {
    if (protocols.empty()) return "tcp, udp, icmp";
    std::vector<std::string> texts;
    for (const int protocol : protocols) texts.push_back(protocol_text(protocol));
    return join(texts, ", ");
}

std::string enumerate(const std::vector<std::string>& names) {
    if (names.size() < 2) return names.empty() ? "nobody" : names.front();
    return fmt::format("{} and {}", fmt::join(names.begin(), names.end() - 1, ", "), names.back());
}

std::string some_of(const std::vector<std::string>& names, std::size_t most) {
    if (names.size() <= most) return enumerate(names);
    return fmt::format("{} and {} more",
                       fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(most), ", "),
                       names.size() - most);
}

} // namespace tailrace
