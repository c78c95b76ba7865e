// `tailrace dns`: how names are looked up here. Words and JSON of the reference client (cli-localapi.md 5).
#include "agent/cli/commands.hpp"
#include "agent/local/pretty_json.hpp"
#include "base/json/json.hpp"
#include "base/text.hpp"
#include "proto/dns_message.hpp"

#include <algorithm>

namespace tailrace::cli {
namespace {

struct OsDnsJson {
    std::vector<std::string> nameservers, search_domains, match_domains;
};

std::string lines_of(const std::vector<std::string>& items, std::string_view if_none) {
    if (items.empty()) return fmt::format("  {}\n", if_none);
    std::string out;
    for (const std::string& item : items) out += fmt::format("  - {}\n", item);
    return out;
}

std::vector<std::string> addresses_of(const std::vector<wire::Resolver>& resolvers) {
    std::vector<std::string> out;
    for (const wire::Resolver& resolver : resolvers) out.push_back(resolver.addr);
    return out;
}

std::string section(std::string_view title, const std::string& body) {
    return fmt::format("\n{}\n{}", title, body);
}

std::string resolvers_json(const std::vector<wire::Resolver>& resolvers) {
    return json::write(resolvers);
}

/// RCodeSuccess and its like: Go's names, for scripts that know them.
std::string result_name(unsigned code) {
    constexpr const char* kNames[] = {"RCodeSuccess",   "RCodeFormatError",    "RCodeServerFailure",
                                      "RCodeNameError", "RCodeNotImplemented", "RCodeRefused"};
    return code < std::size(kNames) ? kNames[code] : fmt::format("{}", code);
}

} // namespace
} // namespace tailrace::cli

namespace tailrace {
template <>
struct JsonFields<cli::OsDnsJson> {
    static constexpr auto fields = field_table(field("Nameservers", &cli::OsDnsJson::nameservers),
                                               field("SearchDomains", &cli::OsDnsJson::search_domains),
                                               field("MatchDomains", &cli::OsDnsJson::match_domains));
};
} // namespace tailrace

namespace tailrace::cli {

Result<std::string> dns_status_text(const DnsStatus& facts, bool all) {
    const wire::DnsConfig& config = facts.config;
    std::string out = "\n=== 'Use Tailscale DNS' status ===\n\n";
    out +=
        facts.prefs.corp_dns
            ? "Tailscale DNS: enabled.\n\ntailraced answers for this machine. (Run \"tailrace set --accept-dns=false\" "
              "and it does not.)\n"
            : "Tailscale DNS: disabled.\n\n(Run \"tailrace set --accept-dns=true\" to let tailraced answer for this "
              "machine.)\n";
    out += "\n=== MagicDNS configuration ===\n\n";
    const bool magic = facts.status.current_tailnet && facts.status.current_tailnet->magic_dns_enabled;
    out += magic ? fmt::format("MagicDNS: enabled tailnet-wide (suffix = {})\n\n", facts.status.magic_dns_suffix)
                 : "MagicDNS: disabled tailnet-wide.\n\n";
    if (facts.status.self && !facts.status.self->dns_name.empty())
        out += fmt::format("Other devices in your tailnet can reach this device at {}\n", facts.status.self->dns_name);
    out += section("Resolvers (in preference order):",
                   lines_of(addresses_of(config.resolvers), "(no resolvers configured, system default will be used)"));
    std::vector<std::string> routes;
    for (const auto& [suffix, resolvers] : config.routes) {
        if (resolvers.empty() && suffix.ends_with("arpa") && !all) continue; // the tailnet's own addresses
        std::string to = resolvers.empty() ? "tailraced itself" : join(addresses_of(resolvers), ", ");
        routes.push_back(fmt::format("{:<30} -> {}", suffix, to));
    }
    out += section("Split DNS Routes:", lines_of(routes, "(no routes configured: split DNS disabled)"));
    out += section("Search Domains:", lines_of(config.domains, "(no search domains configured)"));
    if (all) {
        std::vector<std::string> nameservers, records;
        for (const IpAddress& address : config.nameservers) nameservers.push_back(address.text());
        for (const wire::DnsRecord& record : config.extra_records)
            records.push_back(
                fmt::format("{:<30} -> {}{}", record.name, record.type.empty() ? "" : record.type + " ", record.value));
        out += section("Fallback Resolvers:",
                       lines_of(addresses_of(config.fallback_resolvers), "(no fallback resolvers configured)"));
        out += section("Nameservers IP Addresses:", lines_of(nameservers, "(none were provided)"));
        out +=
            section("Certificate Domains:", lines_of(config.cert_domains, "(no certificate domains are configured)"));
        out += section("Additional DNS Records:", lines_of(records, "(no extra records are configured)"));
        out += section("Filtered suffixes when forwarding DNS queries as an exit node:",
                       lines_of(config.exit_node_filtered_set, "(no suffixes are filtered)"));
    }
    out += "\n=== System DNS configuration ===\n\n";
    if (!facts.os_trouble.empty()) return out + fmt::format("Not known: {}\n", facts.os_trouble);
    auto os = json::parse<OsDnsJson>(facts.os_json);
    if (!os) return os.error();
    if (os->nameservers.empty()) return out + "As it is without tailraced.\n";
    out += "Nameservers:\n" + lines_of(os->nameservers, "");
    return out + section("Search domains:", lines_of(os->search_domains, "(no search domains configured)"));
}

Result<std::string> dns_status_json(const DnsStatus& facts) {
    const wire::DnsConfig& config = facts.config;
    std::string out = fmt::format("{{\"TailscaleDNS\":{}", facts.prefs.corp_dns);
    if (facts.status.current_tailnet) {
        out += fmt::format(",\"CurrentTailnet\":{{\"MagicDNSEnabled\":{},\"MagicDNSSuffix\":",
                           facts.status.current_tailnet->magic_dns_enabled);
        json::append_string(out, facts.status.magic_dns_suffix);
        out += ",\"SelfDNSName\":";
        json::append_string(out, facts.status.self ? facts.status.self->dns_name : "");
        out += '}';
    }
    std::vector<std::string> nameservers;
    for (const IpAddress& address : config.nameservers) nameservers.push_back(address.text());
    out += ",\"Resolvers\":" + resolvers_json(config.resolvers) + ",\"SplitDNSRoutes\":" + json::write(config.routes) +
           ",\"FallbackResolvers\":" + resolvers_json(config.fallback_resolvers) +
           ",\"SearchDomains\":" + json::write(config.domains) + ",\"Nameservers\":" + json::write(nameservers) +
           ",\"CertDomains\":" + json::write(config.cert_domains) +
           ",\"ExtraRecords\":" + json::write(config.extra_records) +
           ",\"ExitNodeFilteredSet\":" + json::write(config.exit_node_filtered_set);
    if (facts.os_trouble.empty())
        out += ",\"SystemDNS\":" + facts.os_json;
    else {
        out += ",\"SystemDNSError\":";
        json::append_string(out, facts.os_trouble);
    }
    return out + "}";
}

Task<int> dns_status(LocalClient& client, bool all, bool json) {
    DnsStatus facts;
    auto status = co_await client.status();
    if (!status) co_return fail(status.error().message());
    facts.status = std::move(*status);
    auto prefs = co_await client.prefs();
    if (!prefs) co_return fail(prefs.error().message());
    facts.prefs = std::move(*prefs);
    auto config = co_await client.request("GET", "/localapi/v0/dns-config", "");
    if (!config) co_return fail(config.error().message());
    auto parsed = json::parse<wire::DnsConfig>(*config);
    if (!parsed) co_return fail(parsed.error().message());
    facts.config = std::move(*parsed);
    auto os = co_await client.request("GET", "/localapi/v0/dns-osconfig", "");
    if (os)
        facts.os_json = *os;
    else
        facts.os_trouble = os.error().message();
    auto text = json ? dns_status_json(facts) : dns_status_text(facts, all);
    if (!text) co_return fail(text.error().message());
    fmt::print("{}", json ? pretty_json(*text, "  ") + "\n" : *text);
    co_return 0;
}

Result<std::string> dns_query_text(const std::string& name, const std::string& type, std::string_view answer_json,
                                   bool json) {
    auto value = json::parse_value(answer_json);
    if (!value) return value.error();
    const auto* bytes = value->is_object() ? value->get_object().if_contains("Bytes") : nullptr;
    const auto* resolvers = value->is_object() ? value->get_object().if_contains("Resolvers") : nullptr;
    if (bytes == nullptr || !bytes->is_string()) return Error::make("the agent's answer is not understood");
    auto message = base64_decode(bytes->get_string().c_str());
    if (!message) return message.error();
    auto answer = parse_dns_answer(*message);
    if (!answer) return answer.error();
    std::vector<wire::Resolver> asked;
    if (resolvers != nullptr)
        if (auto read = json::read(*resolvers, asked); !read) return read.error();
    auto class_of = [](const DnsRecordText& record) {
        return record.dns_class == 1 ? std::string{"ClassINET"} : fmt::format("{}", record.dns_class);
    };
    auto type_of = [](const DnsRecordText& record) { return "Type" + dns_type_name(record.type); };
    if (json) {
        std::string out = "{\"Name\":";
        json::append_string(out, name);
        out += ",\"QueryType\":";
        json::append_string(out, type);
        out += ",\"Resolvers\":" + json::write(asked) + ",\"ResponseCode\":";
        json::append_string(out, result_name(answer->result));
        out += ",\"Answers\":[";
        for (const DnsRecordText& record : answer->answers) {
            if (&record != &answer->answers.front()) out += ',';
            out += "{\"Name\":";
            json::append_string(out, record.name);
            out += fmt::format(",\"TTL\":{},\"Class\":", record.ttl_seconds);
            json::append_string(out, class_of(record));
            out += ",\"Type\":";
            json::append_string(out, type_of(record));
            out += ",\"Body\":";
            json::append_string(out, record.body);
            out += '}';
        }
        return out + "]}";
    }
    std::string out = fmt::format("DNS query for \"{}\" ({}) using internal resolver:\n\n", name, type);
    if (asked.empty())
        out += "Answered by tailraced itself, not forwarded.\n";
    else
        out += "Forwarding to resolver: " + join(addresses_of(asked), ", ") + "\n";
    out += fmt::format("\nResponse code: {}\n", result_name(answer->result));
    if (answer->answers.empty()) return out + "No answers were received.\n";
    std::size_t width = 4;
    for (const DnsRecordText& record : answer->answers) width = std::max(width, record.name.size());
    out += fmt::format("\n{:<{}}  {:<5}  {:<9}  {:<9}  {}\n", "Name", width, "TTL", "Class", "Type", "Body");
    out += fmt::format("{:<{}}  {:<5}  {:<9}  {:<9}  {}\n", "----", width, "---", "-----", "----", "----");
    for (const DnsRecordText& record : answer->answers)
        out += fmt::format("{:<{}}  {:<5}  {:<9}  {:<9}  {}\n", record.name, width, record.ttl_seconds,
                           class_of(record), type_of(record), record.body);
    return out;
}

Task<int> dns_query(LocalClient& client, std::string name, std::string type, bool json) {
    auto number = parse_dns_type(type);
    if (!number) co_return fail(number.error().message());
    std::string shown = dns_type_name(*number);
    auto answer = co_await client.request(
        "GET", fmt::format("/localapi/v0/dns-query?name={}&type={}", percent_encode(name), shown), "");
    if (!answer) co_return fail(answer.error().message());
    auto text = dns_query_text(name, shown, *answer, json);
    if (!text) co_return fail(text.error().message());
    fmt::print("{}", json ? pretty_json(*text, "  ") + "\n" : *text);
    co_return 0;
}

} // namespace tailrace::cli
