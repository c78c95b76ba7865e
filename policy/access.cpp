// policy/access.cpp - sets of ports and words.
#include "policy/access.hpp"

#include "base/text.hpp"
#include "policy/quote.hpp"

#include <algorithm>

namespace tailrace {

void Access::add_ports(const std::string& condition, int protocol, const std::vector<PortRange>& ports) {
    auto& all = ports_[{condition, protocol}];
    for (const auto& range : ports) all.emplace_back(range.first, range.last);
    std::sort(all.begin(), all.end());
    Ports joined;
    for (const auto& range : all) {
        if (!joined.empty() && range.first <= joined.back().second + 1U)
            joined.back().second = std::max(joined.back().second, range.second);
        else
            joined.push_back(range);
    }
    all = std::move(joined);
}

void Access::add(const Access& other) {
    for (const auto& [key, ports] : other.ports_) {
        std::vector<PortRange> ranges;
        for (const auto& [first, last] : ports) ranges.push_back({first, last});
        add_ports(key.first, key.second, ranges);
    }
    words_.insert(other.words_.begin(), other.words_.end());
}

Access::Ports Access::without(const Ports& ports, const Ports& taken) {
    Ports left;
    for (auto [first, last] : ports) {
        unsigned next = first;
        for (const auto& [from, to] : taken) {
            if (to < next || from > last) continue;
            if (from > next) left.emplace_back(static_cast<std::uint16_t>(next), static_cast<std::uint16_t>(from - 1));
            next = to + 1U;
        }
        if (next <= last) left.emplace_back(static_cast<std::uint16_t>(next), last);
    }
    return left;
}

Access Access::minus(const Access& other, const std::string& still) const {
    Access left;
    for (const auto& [key, ports] : ports_) {
        Ports rest = ports;
        for (const auto& condition : {key.first, std::string{}}) {
            const auto found = other.ports_.find({condition, key.second});
            if (found != other.ports_.end()) rest = without(rest, found->second);
        }
        if (key.first.empty()) {
            for (const auto& [there, conditional] : other.ports_) {
                if (there.first.empty() || there.second != key.second) continue;
                auto both = common(rest, conditional);
                if (both.empty()) continue;
                rest = without(rest, both);
                left.ports_[{still + " " + there.first, key.second}] = std::move(both);
            }
        }
        if (!rest.empty()) left.ports_[key] = std::move(rest);
    }
    for (const auto& word : words_) {
        if (other.words_.count(word) != 0 || other.words_.count({std::string{}, word.second}) != 0) continue;
        const auto conditional = std::find_if(other.words_.begin(), other.words_.end(),
                                              [&](const auto& there) { return there.second == word.second; });
        if (word.first.empty() && conditional != other.words_.end())
            left.words_.insert({still + " " + conditional->first, word.second});
        else
            left.words_.insert(word);
    }
    return left;
}

std::string Access::text() const {
    // Protocols with the same ports are said together.
    std::map<std::pair<std::string, Ports>, std::vector<int>> by_ports;
    for (const auto& [key, ports] : ports_) by_ports[{key.first, ports}].push_back(key.second);
    std::vector<std::string> parts;
    for (const auto& [key, protocols] : by_ports) {
        std::vector<PortRange> ranges;
        for (const auto& [first, last] : key.second) ranges.push_back({first, last});
        const auto ports = ports_text(ranges);
        const bool tcp_and_udp = std::find(protocols.begin(), protocols.end(), 6) != protocols.end() &&
                                 std::find(protocols.begin(), protocols.end(), 17) != protocols.end();
        std::string part = ports == "*" && tcp_and_udp && protocols.size() == 2 ? "anything"
                           : ports == "*"                                       ? protocols_text(protocols)
                                          : protocols_text(protocols) + " " + ports;
        if (!key.first.empty()) part += fmt::format(" ({})", key.first);
        parts.push_back(std::move(part));
    }
    for (const auto& [condition, word] : words_)
        parts.push_back(condition.empty() ? word : fmt::format("{} ({})", word, condition));
    return join(parts, "; ");
}

} // namespace tailrace
