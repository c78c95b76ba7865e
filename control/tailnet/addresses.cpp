#include "control/tailnet/addresses.hpp"

#include <algorithm>

namespace tailrace {

namespace {

bool is_reserved(const IpAddress& address) {
    static const IpPrefix kServices = *IpPrefix::parse("100.100.100.0/24");
    static const IpPrefix kChromeOs = *IpPrefix::parse("100.115.92.0/23");
    static const IpAddress kServiceV6 = *IpAddress::parse("fd7a:115c:a1e0::53");
    return kServices.contains(address) || kChromeOs.contains(address) || address == kServiceV6;
}

} // namespace

AddressPool::AddressPool(IpPrefix v4, IpPrefix v6) : v4_(v4.masked()), v6_(v6.masked()) {
    int host_bits = std::min(32 - v4_.bits(), 128 - v6_.bits());
    size_ = (std::uint32_t{1} << std::min(host_bits, 22)) - 1; // without the last address
}

std::pair<IpAddress, IpAddress> AddressPool::at(std::uint32_t offset) const {
    std::array<std::byte, 16> bytes{};
    std::copy_n(v6_.address().bytes().data(), 16, bytes.begin());
    std::uint32_t low = 0;
    for (int i = 12; i < 16; ++i) low = low << 8 | static_cast<std::uint8_t>(bytes[static_cast<std::size_t>(i)]);
    low += offset;
    for (int i = 15; i >= 12; --i, low >>= 8) bytes[static_cast<std::size_t>(i)] = std::byte(low & 0xff);
    return {IpAddress::v4(v4_.address().v4_value() + offset), IpAddress::v6(bytes)};
}

std::optional<std::pair<IpAddress, IpAddress>> AddressPool::take() {
    for (std::uint32_t tried = 0; tried < size_; ++tried) {
        auto pair = at(next_);
        next_ = next_ + 1 < size_ ? next_ + 1 : 1;
        if (is_reserved(pair.first) || is_reserved(pair.second)) continue;
        if (used_.contains(pair.first) || used_.contains(pair.second)) continue;
        mark_used(pair.first, pair.second);
        return pair;
    }
    return std::nullopt;
}

void AddressPool::mark_used(const IpAddress& v4, const IpAddress& v6) {
    used_.insert(v4);
    used_.insert(v6);
}

void AddressPool::release(const IpAddress& v4, const IpAddress& v6) {
    used_.erase(v4);
    used_.erase(v6);
}

std::string dns_label(std::string_view hostname) {
    std::string label;
    for (char c : to_lower(hostname.substr(0, hostname.find('.')))) {
        bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (plain)
            label += c;
        else if (!label.empty() && label.back() != '-' && c != '\'')
            label += '-';
    }
    if (label.size() > 63) label.resize(63);
    while (!label.empty() && label.back() == '-') label.pop_back();
    return label.empty() ? "node" : label;
}

} // namespace tailrace
