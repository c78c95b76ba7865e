// relay/net/listen.hpp - the sockets of the relay: listening, accepting, dialling, all without waiting.
#pragma once
#include "base/fd.hpp"
#include "base/net.hpp"
#include "base/result.hpp"

namespace tailrace::relay {

/// An unspecified IPv6 address serves both families. Fails with a sentence that says what to do about a port in use.
Result<Fd> listen_tcp(const Endpoint& at);
Result<Fd> bind_udp(const Endpoint& at);
Endpoint local_endpoint(int fd);

struct Accepted {
    Fd socket;
    Endpoint peer; ///< the zero value for a Unix socket
};
/// code() is EAGAIN when nobody waits.
Result<Accepted> accept_from(int listener);
/// Begins to connect; the socket becomes writable when that has come to an end, which connect_outcome() tells.
Result<Fd> start_connect(const Endpoint& to);
Result<void> connect_outcome(int fd);

} // namespace tailrace::relay
