// Questions of this host's programs, what resolvers answer (also to peers of an app connector), and the file that says
// who is asked.
#include "agent/app_connector/app_connector.hpp"
#include "agent/dns/resolv_conf.hpp"
#include "agent/dns/resolver.hpp"
#include "agent/dns/server.hpp"

#include <cstdint>
#include <cstdlib>

using namespace tailrace;

namespace {

DnsResolver a_tailnet() {
    wire::DnsConfig config;
    config.proxied = true;
    config.domains = {"tail.lab"};
    config.routes["corp.example"] = {{"10.0.0.53", {}, false}};
    config.extra_records = {{"db.corp.example", "A", "10.0.0.1"}};
    wire::Node self;
    self.name = "alice.tail.lab.";
    self.addresses = {*IpPrefix::parse("100.64.0.1/32"), *IpPrefix::parse("fd7a:115c:a1e0::1/128")};
    DnsResolver::Names names;
    names.nodes = {{self.name, {self.addresses[0].address(), self.addresses[1].address()}, true},
                   {"bob.tail.lab.", {*IpAddress::parse("100.64.0.2")}, false}};
    names.service = {*IpAddress::parse("100.100.100.100")};
    return DnsResolver{effective_dns(config, self, Prefs{}, nullptr, false), std::move(names), {}};
}

AppConnector a_connector() {
    AppConnector out;
    out.configure({{"*.corp.example", "bob.tail.lab", "corp.example"}, {*IpPrefix::parse("198.51.100.0/24")}}, true);
    return out;
}

void learn(BytesView answer) {
    AppConnector connector = a_connector();
    const bool is_new = connector.observe(answer);
    if (connector.observe(answer)) std::abort(); // all is known by now
    auto routes = connector.routes_beside({});
    if (!is_new && routes.size() != 1) std::abort();
    if (connector.routes_beside(routes) != routes) std::abort();
    for (const IpPrefix& route : routes)
        if (route.is_default() || route.address().is_loopback() || is_tailscale_address(route.address())) std::abort();
    auto again = parse_app_connector_routes(write_app_connector_routes(connector.routes()));
    if (!again || *again != connector.routes()) std::abort();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    static const DnsResolver tailnet = a_tailnet();
    BytesView message{reinterpret_cast<const std::byte*>(bytes), size};
    auto verdict = tailnet.resolve(message, WallTime::from_unix(1));
    if (auto* answer = std::get_if<Bytes>(&verdict); answer != nullptr && !answer->empty()) {
        auto question = parse_dns_query(message);
        if (question && !is_dns_answer(message, *answer)) std::abort(); // of another question
        if (question && !parse_dns_answer(*answer)) std::abort();       // not understood by ourselves
        (void)fit_udp_answer(message, std::move(*answer));
    }
    (void)parse_dns_answer(message);
    learn(message);
    Bytes changed = to_bytes(message);
    limit_dns_udp_size(changed, 1232);
    if (changed.size() != size) std::abort();

    std::string_view text = as_chars(message);
    (void)address_of_pointer(text);
    (void)via_address(text);
    (void)parse_dns_upstream(text);
    (void)resolv_conf_owner(text);
    std::string ours = resolv_conf_text({*IpAddress::parse("100.100.100.100")}, search_domains_in(text), text);
    if (!is_our_resolv_conf(ours)) std::abort();
    return 0;
}
