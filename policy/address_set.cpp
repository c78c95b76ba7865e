// policy/address_set.cpp - sets of addresses as ordered, disjoint ranges.
#include "policy/address_set.hpp"

#include <algorithm>
#include <optional>

namespace tailrace {
namespace {

/// The address before this one; nothing before the first of its family.
std::optional<IpAddress> previous(const IpAddress& address) {
    std::array<std::byte, 16> bytes{};
    const auto from = address.bytes();
    std::copy(from.begin(), from.end(), bytes.begin());
    for (std::size_t i = from.size(); i-- > 0;) {
        if (bytes[i] != std::byte{0}) {
            bytes[i] = static_cast<std::byte>(std::to_integer<unsigned>(bytes[i]) - 1);
            return IpAddress::from_bytes(BytesView{bytes}.first(from.size()));
        }
        bytes[i] = std::byte{0xff};
    }
    return std::nullopt;
}

IpRange range_of(std::string_view first, std::string_view last) {
    return {*IpAddress::parse(first), *IpAddress::parse(last)};
}

} // namespace

AddressSet::AddressSet(std::vector<IpRange> ranges) {
    std::sort(ranges.begin(), ranges.end());
    for (const auto& range : ranges) {
        if (!ranges_.empty() && ranges_.back().first.bits() == range.first.bits()) {
            auto& last = ranges_.back();
            const auto behind = last.last.next();
            if (!behind.valid() || range.first <= behind) {
                last.last = std::max(last.last, range.last);
                continue;
            }
        }
        ranges_.push_back(range);
    }
}

void AddressSet::add(const IpRange& range) {
    auto ranges = std::move(ranges_);
    ranges.push_back(range);
    *this = AddressSet{std::move(ranges)};
}

void AddressSet::remove(const IpRange& range) {
    std::vector<IpRange> kept;
    for (const auto& old : ranges_) {
        if (!old.overlaps(range)) {
            kept.push_back(old);
            continue;
        }
        if (old.first < range.first) kept.push_back({old.first, *previous(range.first)});
        if (range.last < old.last) kept.push_back({range.last.next(), old.last});
    }
    ranges_ = std::move(kept);
}

std::vector<IpRange>::const_iterator AddressSet::at_or_behind(const IpAddress& address) const {
    return std::partition_point(ranges_.begin(), ranges_.end(),
                                [&](const IpRange& range) { return range.last < address; });
}

bool AddressSet::contains(const IpAddress& address) const {
    const auto found = at_or_behind(address);
    return found != ranges_.end() && found->contains(address);
}

bool AddressSet::contains(const IpRange& range) const {
    const auto found = at_or_behind(range.first);
    return found != ranges_.end() && found->contains(range.first) && found->contains(range.last);
}

bool AddressSet::overlaps(const IpRange& range) const {
    const auto found = at_or_behind(range.first);
    return found != ranges_.end() && found->overlaps(range);
}

const std::vector<IpRange>& internet_ranges() {
    // Everything but 10/8, 100.64/10, 169.254/16, 172.16/12 and 192.168/16; loopback and multicast are not excluded by
    // the service.
    static const std::vector<IpRange> kRanges = {
        range_of("0.0.0.0", "9.255.255.255"),
        range_of("11.0.0.0", "100.63.255.255"),
        range_of("100.128.0.0", "169.253.255.255"),
        range_of("169.255.0.0", "172.15.255.255"),
        range_of("172.32.0.0", "192.167.255.255"),
        range_of("192.169.0.0", "255.255.255.255"),
        range_of("2000::", "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    };
    return kRanges;
}

const std::vector<std::string>& tailnet_range_texts() {
    static const std::vector<std::string> kTexts = {"100.115.94.0-100.127.255.255", "100.64.0.0-100.115.91.255",
                                                    "fd7a:115c:a1e0::/48"};
    return kTexts;
}

const std::vector<IpRange>& tailnet_ranges() {
    static const std::vector<IpRange> kRanges = {range_of("100.64.0.0", "100.115.91.255"),
                                                 range_of("100.115.94.0", "100.127.255.255"),
                                                 IpRange::of(tailscale_ula_prefix())};
    return kRanges;
}

std::string range_text(const IpRange& range) {
    if (range.first == range.last) return range.first.text();
    const auto prefixes = range.prefixes();
    return prefixes.size() == 1 ? prefixes.front().text() : range.text();
}

} // namespace tailrace
