// agent/path/echo.hpp - how far a host is, by ICMP over the real network.
#pragma once
#include "base/io/reactor.hpp"
#include "base/net.hpp"

#include <cstdint>

namespace tailrace {

/// One echo request and the time to its answer; ETIMEDOUT when there is none. `mark`: SO_MARK.
Task<Result<Duration>> measure_echo(Reactor& reactor, IpAddress to, std::uint32_t mark, Duration timeout);

/// Whether an IPv4 packet, header included, answers the request with this number. Pure.
bool is_echo_reply(BytesView packet, std::uint64_t number);
/// The same of an ICMPv6 message, without IP header. Pure.
bool is_echo_reply6(BytesView message, std::uint64_t number);

} // namespace tailrace
