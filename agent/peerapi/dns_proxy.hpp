// agent/peerapi/dns_proxy.hpp - DNS over HTTP for peers whose exit node we are (dns.md 6): what they ask goes to the
// resolvers of this host, as if its own programs asked.
#pragma once
#include "base/io/http.hpp"
#include "base/io/reactor.hpp"
#include "base/net.hpp"

#include <functional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace tailrace {

/// The nameservers of a resolv.conf(5), as they are written.
std::vector<std::string> nameservers_in(std::string_view resolv_conf);
/// Of these the first few that can be asked: none of a tailnet's own, which would ask us.
std::vector<Endpoint> resolvers_in(std::string_view resolv_conf);

bool is_dns_request(const HttpRequest& request);
/// The DNS message that a peer sent (GET ?dns=, or POST), or what to say instead. Pure.
std::variant<Bytes, HttpResponse> dns_message_of(const HttpRequest& request);

using AskNames = std::function<Task<Result<Bytes>>(Bytes)>;
/// The whole of it. `ask` gets what passes parse_dns_query().
Task<HttpResponse> answer_dns_request(HttpRequest request, AskNames ask);

} // namespace tailrace
