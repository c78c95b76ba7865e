// agent/peerapi/dns_proxy.hpp - DNS over HTTP for peers whose exit node we are (dns.md 6): what they ask goes to the
// resolvers of this host, as if its own programs asked.
#pragma once
#include "base/io/http.hpp"
#include "base/io/reactor.hpp"
#include "base/net.hpp"

#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace tailrace {

inline constexpr const char* kResolvConf = "/etc/resolv.conf";

/// The nameservers of a resolv.conf(5), as they are written.
std::vector<std::string> nameservers_in(std::string_view resolv_conf);
/// Of these the first few that can be asked: none of a tailnet's own, which would ask us.
std::vector<Endpoint> resolvers_in(std::string_view resolv_conf);

bool is_dns_request(const HttpRequest& request);
/// The DNS message that a peer sent (GET ?dns=, or POST), or what to say instead. Pure.
std::variant<Bytes, HttpResponse> dns_message_of(const HttpRequest& request);

/// The whole of it; takes at most kDnsPatience.
constexpr auto kDnsPatience = std::chrono::seconds{5};
Task<HttpResponse> answer_dns_request(Reactor& reactor, HttpRequest request, std::string resolv_conf);
/// Asks one after the other until one answers. `query` passes parse_dns_query(). The answer has its ID.
Task<Result<Bytes>> ask_resolvers(Reactor& reactor, std::vector<Endpoint> resolvers, Bytes query, Duration patience);

} // namespace tailrace
