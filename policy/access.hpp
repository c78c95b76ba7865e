// policy/access.hpp - what one party may do with another, as a set that can be subtracted. Internal to policy/.
#pragma once
#include "policy/filter_rule.hpp"

#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

namespace tailrace {

/// Ports by protocol and capabilities, each under a condition ("" or such as "if posture:x"). Pings are not counted:
/// they pass wherever anything passes.
class Access {
public:
    void add_ports(const std::string& condition, int protocol, const std::vector<PortRange>& ports);
    void add_word(const std::string& condition, std::string word) { words_.insert({condition, std::move(word)}); }

    void add(const Access& other);

    bool empty() const { return ports_.empty() && words_.empty(); }
    /// What is here and not there; what is there without a condition covers all conditions here. What is here without a
    /// condition and there under one is under "`still` if posture:x".
    Access minus(const Access& other, const std::string& still) const;
    /// "tcp 22, 80-90; udp 53", "anything (if posture:x)"
    std::string text() const;

    auto operator<=>(const Access& other) const {
        return std::tie(words_, ports_) <=> std::tie(other.words_, other.ports_);
    }
    bool operator==(const Access& other) const { return (*this <=> other) == 0; }

private:
    using Ports = std::vector<std::pair<std::uint16_t, std::uint16_t>>; ///< disjoint, in order, not touching

    static Ports common(const Ports& a, const Ports& b) { return without(a, without(a, b)); }
    static Ports without(const Ports& ports, const Ports& taken);

    std::map<std::pair<std::string, int>, Ports> ports_;
    std::set<std::pair<std::string, std::string>> words_;
};

} // namespace tailrace
