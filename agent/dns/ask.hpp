// agent/dns/ask.hpp - asks resolvers: DNS over UDP and TCP, and a peer over HTTP (dns.md 4.3, 6).
//
// Sockets carry no mark: where a route of the tailnet leads to a resolver (table 52) it is asked through the tunnel,
// with an exit node in use every one is, and nothing of DNS leaves past it. Others are asked as the host's own programs
// would.
#pragma once
#include "agent/dns/effective.hpp"
#include "base/bytes.hpp"
#include "base/io/reactor.hpp"

#include <vector>

namespace tailrace {

/// How a question came to us, and so how it is asked first.
enum class DnsTransport { Udp, Tcp };

/// `query` passes parse_dns_query(). Asks all at once; the first that knows an answer wins, and where none does the
/// first refusal is the answer. It has the query's ID. An error: nobody has said anything in time.
Task<Result<Bytes>> ask_upstreams(Reactor& reactor, std::vector<DnsUpstream> upstreams, Bytes query,
                                  DnsTransport transport, Duration patience);
/// Asks one after the other until one answers.
Task<Result<Bytes>> ask_in_turn(Reactor& reactor, std::vector<DnsUpstream> upstreams, Bytes query, Duration patience);

} // namespace tailrace
