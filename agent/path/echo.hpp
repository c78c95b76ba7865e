// agent/path/echo.hpp - how far a host is, by ICMP over the real network.
#pragma once
#include "base/io/reactor.hpp"
#include "base/net.hpp"

#include <cstdint>

namespace tailrace {

/// One echo request to an IPv4 address and the time to its answer; ETIMEDOUT when there is none. `mark`: SO_MARK.
Task<Result<Duration>> measure_echo(Reactor& reactor, IpAddress to, std::uint32_t mark, Duration timeout);

/// Whether an IPv4 packet, header included, answers the request with this number. Pure.
bool is_echo_reply(BytesView packet, std::uint64_t number);

} // namespace tailrace
