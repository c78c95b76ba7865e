// policy/address_set.hpp - a set of addresses of both families.
#pragma once
#include "base/net.hpp"

#include <string>
#include <vector>

namespace tailrace {

/// Kept as disjoint ranges in order, neighbours joined, IPv4 before IPv6.
class AddressSet {
public:
    AddressSet() = default;
    /// Cheaper than adding one by one.
    explicit AddressSet(std::vector<IpRange> ranges);

    void add(const IpRange& range);
    void remove(const IpRange& range);

    bool empty() const { return ranges_.empty(); }
    bool contains(const IpAddress& address) const;
    bool contains(const IpRange& range) const;
    bool overlaps(const IpRange& range) const;
    const std::vector<IpRange>& ranges() const { return ranges_; }

private:
    /// The first range that ends at or behind `address`.
    std::vector<IpRange>::const_iterator at_or_behind(const IpAddress& address) const;

    std::vector<IpRange> ranges_;
};

/// What autogroup:internet stands for: everything public, in wire order.
const std::vector<IpRange>& internet_ranges();

/// The sources that `*` stands for besides routes: the tailnet's own ranges, in wire order.
const std::vector<std::string>& tailnet_range_texts();
const std::vector<IpRange>& tailnet_ranges();

/// A range as one wire word: an address, a prefix where it is exactly one, or first-last.
std::string range_text(const IpRange& range);

} // namespace tailrace
