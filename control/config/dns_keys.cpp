#include "control/config/dns_keys.hpp"

#include "base/text.hpp"

#include <algorithm>
#include <utility>

namespace tailrace {
namespace {

using yaml::BadConfig;
using yaml::checked;
using yaml::scalar;

/// An address, with a port where it is not 53; or what clients of Tailscale know by a name:
/// "https://dns.nextdns.io/ID".
Result<wire::Resolver> check_nameserver(const std::string& text) {
    auto address = IpAddress::parse(text);
    auto endpoint = Endpoint::parse(text);
    const bool is_address = (address && address->valid()) || (endpoint && endpoint->valid() && endpoint->port != 0);
    if (!is_address && !(text.starts_with("https://") && text.size() > std::string_view{"https://"}.size()))
        return Error::make("\"{}\" is no address of a resolver, such as 10.0.0.53, nor a URL with https://", text);
    return wire::Resolver{text, {}, false};
}

std::vector<wire::Resolver> nameservers_of(const YAML::Node& node, const std::string& key) {
    std::vector<wire::Resolver> out;
    for (const std::string& text : yaml::scalars(node, key)) {
        auto resolver = checked(check_nameserver(text), node, key);
        if (std::ranges::find(out, resolver) != out.end())
            throw BadConfig{node.Mark().line, fmt::format("{}: {} stands there twice", key, text)};
        out.push_back(std::move(resolver));
    }
    return out;
}

yaml::Handler split_into(DnsSettings& settings) {
    return [&settings](const YAML::Node& node, const std::string& key) {
        if (node.IsNull()) return;
        if (!node.IsMap()) throw BadConfig{node.Mark().line, fmt::format("{} wants \"domain: resolvers\" lines", key)};
        for (const auto& entry : node) {
            std::string domain = checked(check_domain(scalar(entry.first, key)), entry.first, key);
            auto resolvers = nameservers_of(entry.second, domain);
            if (resolvers.empty())
                throw BadConfig{
                    entry.first.Mark().line,
                    fmt::format("{}: {} needs a resolver: without one nobody would know its names", key, domain)};
            if (!settings.split.emplace(domain, std::move(resolvers)).second)
                throw BadConfig{entry.first.Mark().line, fmt::format("{}: {} stands there twice", key, domain)};
        }
    };
}

wire::DnsRecord record_of(const YAML::Node& node) {
    wire::DnsRecord record;
    yaml::read_map(node, "extra_records",
                   {{"name", yaml::parsed_into(record.name, check_domain)},
                    {"type", yaml::text_into(record.type)},
                    {"value", yaml::text_into(record.value)}});
    auto address = IpAddress::parse(record.value);
    int line = node.Mark().line;
    if (record.name.empty()) throw BadConfig{line, "extra_records: name is missing"};
    if (!address || !address->valid())
        throw BadConfig{line, fmt::format("extra_records: {}: value wants an IP address", record.name)};
    const std::string type = address->is_v4() ? "A" : "AAAA";
    if (!record.type.empty() && record.type != type)
        throw BadConfig{line,
                        fmt::format("extra_records: {}: {} has type {}; others than A and AAAA are known to no client",
                                    record.name, record.value, type)};
    record.type = type;
    return record;
}

yaml::Handler records_into(DnsSettings& settings) {
    return [&settings](const YAML::Node& node, const std::string& key) {
        if (node.IsNull()) return;
        if (!node.IsSequence())
            throw BadConfig{node.Mark().line, fmt::format("{} wants a list of name, type and value", key)};
        for (const auto& item : node) settings.extra_records.push_back(record_of(item));
    };
}

yaml::Handler search_into(DnsSettings& settings) {
    return [&settings](const YAML::Node& node, const std::string& key) {
        for (const std::string& text : yaml::scalars(node, key))
            settings.search_domains.push_back(checked(check_domain(text), node, key));
    };
}

} // namespace

Result<std::string> check_domain(std::string domain) {
    if (!domain.empty() && domain.back() == '.') domain.pop_back();
    domain = to_lower(domain);
    if (domain.size() > 200) return Error::make("longer than 200 characters");
    for (std::string_view label : split(domain, '.')) {
        bool good = !label.empty() && label.size() <= 63 && label.front() != '-' && label.back() != '-';
        for (char c : label) good = good && ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-');
        if (!good) return Error::make("\"{}\" is not a domain name", domain);
    }
    return domain;
}

yaml::Handler dns_settings_into(DnsSettings& settings) {
    auto global = [&settings](const YAML::Node& node, const std::string& key) {
        settings.nameservers = nameservers_of(node, key);
    };
    return yaml::map_of({{"magic_dns", yaml::parsed_into(settings.magic_dns, yaml::parse_bool)},
                         {"nameservers", yaml::map_of({{"global", global}, {"split", split_into(settings)}})},
                         {"search_domains", search_into(settings)},
                         {"extra_records", records_into(settings)}});
}

} // namespace tailrace
