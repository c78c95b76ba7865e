#include "policy/tables_local_nets.hpp"

#include <algorithm>

namespace tailrace {
namespace {

IpPrefix prefix(const char* text) {
    return *IpPrefix::parse(text);
}

IpAddress previous(const IpAddress& address) {
    std::vector<std::byte> bytes(address.bytes().begin(), address.bytes().end());
    for (std::size_t i = bytes.size(); i-- > 0;) {
        bool borrow = bytes[i] == std::byte{0};
        bytes[i] = static_cast<std::byte>(std::to_integer<int>(bytes[i]) - 1);
        if (!borrow) break;
    }
    return IpAddress::from_bytes(bytes);
}

/// A set of addresses, as ranges.
class AddressSet {
public:
    void add(const IpPrefix& added) { ranges_.push_back(IpRange::of(added)); }

    void remove(const IpPrefix& removed) {
        IpRange hole = IpRange::of(removed);
        std::vector<IpRange> rest;
        for (const IpRange& range : ranges_) {
            if (!range.overlaps(hole)) {
                rest.push_back(range);
                continue;
            }
            if (range.first < hole.first) rest.push_back({range.first, previous(hole.first)});
            if (hole.last < range.last) rest.push_back({hole.last.next(), range.last});
        }
        ranges_ = std::move(rest);
    }

    std::vector<IpPrefix> prefixes() {
        std::sort(ranges_.begin(), ranges_.end());
        std::vector<IpRange> merged;
        for (const IpRange& range : ranges_) {
            bool joins = !merged.empty() && merged.back().first.bits() == range.first.bits() &&
                         (range.first <= merged.back().last || range.first == merged.back().last.next());
            if (joins)
                merged.back().last = std::max(merged.back().last, range.last);
            else
                merged.push_back(range);
        }
        std::vector<IpPrefix> all;
        for (const IpRange& range : merged) {
            auto some = range.prefixes();
            all.insert(all.end(), some.begin(), some.end());
        }
        return all;
    }

private:
    std::vector<IpRange> ranges_;
};

/// Source: tailscale ipn/ipnlocal/local.go, shrinkDefaultRoute and removeFromDefaultRoute.
void add_shrunk(AddressSet& set, const IpPrefix& route, const std::vector<IpPrefix>& interfaces) {
    AddressSet internet;
    internet.add(route);
    for (const IpPrefix& attached : interfaces) {
        if (attached.address().bits() != route.address().bits() || is_tailscale_address(attached.address())) continue;
        if (!attached.is_single()) internet.remove(attached);
    }
    for (const IpPrefix& attached : interfaces) {
        if (attached.address().bits() != route.address().bits() || is_tailscale_address(attached.address())) continue;
        internet.add(IpPrefix::single(attached.address()));
    }
    static const std::vector<IpPrefix> never = {
        prefix("192.168.0.0/16"), prefix("172.16.0.0/12"), prefix("10.0.0.0/8"),
        prefix("169.254.0.0/16"), prefix("224.0.0.0/4"),   prefix("100.64.0.0/10"),
        prefix("fe80::/10"),      prefix("ff00::/8"),      prefix("fd7a:115c:a1e0::/48")};
    for (const IpPrefix& removed : never) internet.remove(removed);
    for (const IpPrefix& kept : internet.prefixes()) set.add(kept);
}

} // namespace

std::vector<IpPrefix> local_nets(const LocalNetsInput& input) {
    AddressSet set;
    for (const IpAddress& address : input.own_addresses) set.add(IpPrefix::single(address));
    for (const IpAddress& address : input.service_addresses) set.add(IpPrefix::single(address));
    for (const IpPrefix& route : input.routes) {
        if (route.is_default())
            add_shrunk(set, route, input.interfaces);
        else
            set.add(route.masked());
    }
    if (input.app_connector) {
        set.add(prefix("0.0.0.0/32"));
        set.add(prefix("::/128"));
    }
    return set.prefixes();
}

} // namespace tailrace
