// control/tailnet/addresses.hpp - which addresses and names are given out. Pure.
#pragma once
#include "base/net.hpp"
#include "base/text.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>

namespace tailrace {

/// Hands out pairs of addresses with the same offset in both prefixes, lowest first, each used once at a time.
/// Never 100.100.100.0/24 and fd7a:115c:a1e0::53 (services) nor 100.115.92.0/23 (ChromeOS).
/// Source: control-protocol.md 1.3.
class AddressPool {
public:
    AddressPool(IpPrefix v4, IpPrefix v6);

    /// Nothing when the pool is used up.
    std::optional<std::pair<IpAddress, IpAddress>> take();
    void mark_used(const IpAddress& v4, const IpAddress& v6);
    void release(const IpAddress& v4, const IpAddress& v6);

private:
    std::pair<IpAddress, IpAddress> at(std::uint32_t offset) const;

    IpPrefix v4_, v6_;
    std::uint32_t size_;
    std::uint32_t next_ = 1; // addresses come back only after a whole round: nobody inherits a warm one
    std::unordered_set<IpAddress> used_;
};

/// A host name as a DNS label: lower case, letters, digits and dashes, at most 63; "node" when nothing is left.
std::string dns_label(std::string_view hostname);

} // namespace tailrace
