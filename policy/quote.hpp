// policy/quote.hpp - quotes a policy's own rules back to the reader.
#pragma once
#include "policy/document.hpp"
#include "policy/hujson.hpp"

#include <cstdint>
#include <string>
#include <unordered_map>

namespace tailrace {

/// Finds the elements of acls, grants, ssh, nodeAttrs and tests by their offsets. The document outlives it.
class PolicyQuotes {
public:
    explicit PolicyQuotes(const Document& document);

    hujson::Position position_of(std::uint32_t offset) const { return document_.position_of(offset); }
    /// The element on one line, cut at `limit` bytes; empty when nothing begins there.
    std::string rule_at(std::uint32_t offset, std::size_t limit = 160) const;

private:
    const Document& document_;
    hujson::Tree tree_;
    std::unordered_map<std::uint32_t, const hujson::Value*> elements_;
};

/// "22, 80-90", "*"
std::string ports_text(const std::vector<PortRange>& ports);
/// "tcp", "47"; for none the default protocols: "tcp, udp, icmp".
std::string protocols_text(const std::vector<int>& protocols);
std::string protocol_text(int protocol);
/// "a, b and 3 more": the first `most` of a list.
std::string some_of(const std::vector<std::string>& names, std::size_t most = 5);
/// "a, b and c"
std::string enumerate(const std::vector<std::string>& names);

} // namespace tailrace
