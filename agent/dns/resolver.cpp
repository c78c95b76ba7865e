#include "agent/dns/resolver.hpp"

#include "agent/router/via6.hpp"
#include "base/text.hpp"
#include "proto/dns_wire.hpp"

#include <algorithm>
#include <charconv>
#include <optional>

namespace tailrace {
namespace {

constexpr const char* kSymbolicName = "magicdns.localhost-tailscale-daemon.";

bool is_below(std::string_view name, std::string_view suffix) {
    return name.size() > suffix.size() && name.ends_with(suffix) && name[name.size() - suffix.size() - 1] == '.';
}

/// Questions for services in the neighbourhood, which nobody far away can answer. Source: dns.md 3.3
bool is_bonjour(std::string_view name) {
    auto dot = name.find('.');
    if (dot == std::string_view::npos || !name.substr(dot + 1).starts_with("_dns-sd._udp.")) return false;
    std::string_view first = name.substr(0, dot);
    return first == "b" || first == "db" || first == "r" || first == "dr" || first == "lb";
}

std::optional<std::uint32_t> parse_site(std::string_view text) {
    int base = 10;
    if (text.starts_with("0x") || text.starts_with("0X")) {
        base = 16;
        text.remove_prefix(2);
    }
    std::uint32_t value = 0;
    auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (text.empty() || problem != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

/// fd7a:115c:a1e0:ab12:4843:cd96:6200::/104 stands for the last 24 bits of 100.x. Source: linux-router.md 1
IpAddress unmapped_v4(const IpAddress& address) {
    static const IpPrefix range = *IpPrefix::parse("fd7a:115c:a1e0:ab12:4843:cd96:6200::/104");
    if (!address.is_v6() || !range.contains(address)) return address;
    Reader last{address.bytes().subspan(12)};
    return IpAddress::v4(0x64000000u | (last.be32() & 0xffffffu));
}

} // namespace

IpAddress address_of_pointer(std::string_view name) {
    constexpr std::string_view kV4 = ".in-addr.arpa", kV6 = ".ip6.arpa";
    if (name.ends_with(kV4)) {
        std::uint32_t value = 0;
        auto parts = split(name.substr(0, name.size() - kV4.size()), '.');
        if (parts.size() != 4) return {};
        for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
            auto number = parse_number<std::uint8_t>(*part);
            if (!number || (part->size() > 1 && part->front() == '0')) return {};
            value = value << 8 | *number;
        }
        return IpAddress::v4(value);
    }
    constexpr std::size_t kNibbles = 63; // 32 of them and the dots between
    if (!name.ends_with(kV6) || name.size() != kNibbles + kV6.size()) return {};
    std::string digits;
    for (std::size_t i = 0; i < kNibbles; ++i)
        if (i % 2 == 0)
            digits += name[i];
        else if (name[i] != '.')
            return {};
    std::ranges::reverse(digits);
    auto bytes = hex_decode(digits);
    return bytes ? IpAddress::from_bytes(*bytes) : IpAddress{};
}

IpAddress via_address(std::string_view name) {
    auto dot = name.find('.');
    std::string_view first = name.substr(0, dot);
    if (dot != std::string_view::npos) {
        std::string_view rest = name.substr(dot + 1);
        if (rest != "ts.net" && rest != "tailscale.net" && !is_below(rest, "ts.net") &&
            !is_below(rest, "tailscale.net"))
            return {};
    }
    constexpr std::string_view kVia = "-via-";
    auto at = first.rfind(kVia);
    if (at == std::string_view::npos) return {};
    std::string dotted{first.substr(0, at)};
    std::ranges::replace(dotted, '-', '.');
    auto address = IpAddress::parse(dotted);
    auto site = parse_site(first.substr(at + kVia.size()));
    if (!address || !address->is_v4() || !site) return {};
    Writer out;
    out.bytes(via_range().address().bytes().first(8));
    out.be32(*site);
    out.bytes(address->bytes());
    return IpAddress::from_bytes(out.view());
}

DnsResolver::DnsResolver(EffectiveDns dns, Names names, std::vector<DnsUpstream> defaults)
    : dns_(std::move(dns)), defaults_(std::move(defaults)) {
    bool only_v6 = false;
    if (!names.nodes.empty()) {
        std::string own = plain_dns_name(names.nodes.front().name);
        if (auto dot = own.find('.'); dot != std::string::npos) suffix_ = own.substr(dot + 1);
        only_v6 = !names.nodes.front().addresses.empty() &&
                  std::ranges::all_of(names.nodes.front().addresses, &IpAddress::is_v6);
    }
    auto given = [&](Addresses addresses) {
        bool has_v4 = std::ranges::any_of(addresses, &IpAddress::is_v4);
        std::erase_if(addresses, [&](const IpAddress& address) {
            if (only_v6) return address.is_v4();
            return address.is_v6() && has_v4 && !names.ipv6_beside_ipv4;
        });
        return addresses;
    };
    // Extra records go before nodes.
    for (const wire::DnsRecord& record : dns_.extra_records) {
        if (!record.type.empty() && record.type != "A" && record.type != "AAAA") continue;
        auto address = IpAddress::parse(record.value);
        std::string name = plain_dns_name(record.name);
        if (!address || !address->valid() || name.empty()) continue;
        names_[name].push_back(*address);
        pointers_.emplace(*address, name + ".");
    }
    for (DnsNode& node : names.nodes) {
        std::string name = plain_dns_name(node.name);
        if (name.empty()) continue;
        for (const IpAddress& address : node.addresses) pointers_.emplace(address, name + ".");
        Addresses addresses = given(std::move(node.addresses));
        if (node.with_subdomains) with_subdomains_.insert(name);
        if (dns_.proxied && !suffix_.empty() && is_below(name, suffix_))
            names_.try_emplace(name.substr(0, name.size() - suffix_.size() - 1), addresses);
        names_.try_emplace(std::move(name), std::move(addresses));
    }
    std::string symbolic = plain_dns_name(kSymbolicName);
    names_[symbolic] = names.service;
    for (const IpAddress& address : names.service) pointers_[address] = kSymbolicName;
}

const DnsResolver::Addresses* DnsResolver::find(const std::string& name) const {
    if (auto found = names_.find(name); found != names_.end()) return &found->second;
    if (with_subdomains_.empty()) return nullptr;
    for (auto dot = name.find('.'); dot != std::string::npos; dot = name.find('.', dot + 1)) {
        std::string above = name.substr(dot + 1);
        if (with_subdomains_.contains(above)) return &names_.at(above);
    }
    return nullptr;
}

std::string DnsResolver::zone_of(const std::string& name) const {
    const DnsRoute* route = find_dns_route(dns_.routes, name);
    return route != nullptr && route->upstreams.empty() ? route->suffix : std::string{};
}

Bytes DnsResolver::negative(BytesView query, const std::string& name, DnsResult result, const WallTime& now) const {
    DnsReply reply;
    reply.result = result;
    reply.zone = zone_of(name);
    reply.serial = static_cast<std::uint32_t>(now.seconds);
    return write_dns_reply(query, reply);
}

Bytes DnsResolver::answer(BytesView query, const DnsQuery& question, const std::string& name,
                          const Addresses& addresses, const WallTime& now) const {
    DnsReply reply;
    switch (question.type) {
    case dns_type::kNs:
    case dns_type::kSoa:
    case dns_type::kAxfr:
    case dns_type::kHinfo:
        reply.result = DnsResult::NotImp;
        return write_dns_reply(query, reply);
    case dns_type::kA:
    case dns_type::kAaaa:
    case dns_type::kAny:
        for (const IpAddress& address : addresses) {
            if (question.type != dns_type::kAny && address.is_v6() != (question.type == dns_type::kAaaa)) continue;
            reply.address = address;
            return write_dns_reply(query, reply);
        }
        return negative(query, name, DnsResult::Success, now);
    default:
        return write_dns_reply(query, reply);
    }
}

const std::vector<DnsUpstream>& DnsResolver::upstreams_for(std::string_view name) const {
    const DnsRoute* route = find_dns_route(dns_.routes, name);
    return route != nullptr ? route->upstreams : defaults_;
}

DnsResolver::Verdict DnsResolver::resolve_pointer(BytesView query, const std::string& name, const WallTime& now) const {
    if (is_bonjour(name)) {
        DnsReply reply;
        reply.result = DnsResult::NxDomain;
        reply.authoritative = false;
        return write_dns_reply(query, reply);
    }
    IpAddress address = unmapped_v4(address_of_pointer(name));
    if (auto found = pointers_.find(address); address.valid() && found != pointers_.end()) {
        DnsReply reply;
        reply.pointer = found->second;
        return write_dns_reply(query, reply);
    }
    if (!zone_of(name).empty()) return negative(query, name, DnsResult::NxDomain, now);
    return Forward{upstreams_for(name)};
}

DnsResolver::Verdict DnsResolver::resolve(BytesView query, const WallTime& now) const {
    auto question = parse_dns_query(query);
    if (!question) return write_dns_format_error(query);
    if (question->dns_class != dns_wire::kInternet) return Forward{defaults_};
    std::string name = plain_dns_name(question->name);
    if (name == "onion" || is_below(name, "onion")) return negative(query, name, DnsResult::NxDomain, now);
    if (question->type == dns_type::kPtr) return resolve_pointer(query, name, now);
    if (IpAddress via = via_address(name); via.valid()) {
        bool wants = question->type == dns_type::kAaaa || question->type == dns_type::kAny;
        if (wants || question->type == dns_type::kA) return answer(query, *question, name, {via}, now);
    }
    if (const Addresses* addresses = find(name)) return answer(query, *question, name, *addresses, now);
    if (!zone_of(name).empty()) return negative(query, name, DnsResult::NxDomain, now);
    return Forward{upstreams_for(name)};
}

} // namespace tailrace
