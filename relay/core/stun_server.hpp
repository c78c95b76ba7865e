// relay/core/stun_server.hpp - tells clients which address they are seen at.
#pragma once
#include "base/fd.hpp"
#include "relay/core/counters.hpp"

#include <cstddef>

namespace tailrace::relay {

/// Answers our kind of clients and is silent to everybody else (proto/stun.hpp).
class StunServer {
public:
    explicit StunServer(Fd socket) : socket_(std::move(socket)) {}
    int fd() const { return socket_.get(); }
    /// Answers what waits, a bounded number of datagrams.
    void on_readable(Counters& counters);

private:
    Fd socket_;
};

} // namespace tailrace::relay
