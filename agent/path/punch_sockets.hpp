// agent/path/punch_sockets.hpp - many UDP sockets, each on a port of its own, all connected to one remote endpoint.
#pragma once
#include "base/fd.hpp"
#include "base/io/reactor.hpp"
#include "base/net.hpp"
#include "base/result.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

namespace tailrace {

class PunchSockets {
public:
    /// As many of `count` as there can be; none is an error. `mark` is SO_MARK.
    static Result<std::unique_ptr<PunchSockets>> open(Reactor& reactor, const Endpoint& remote, std::size_t count,
                                                      std::uint32_t mark);
    /// A socket that holds this port and is never read; no descriptor when somebody else has the port.
    static Fd hold(std::uint16_t port);

    std::size_t size() const { return sockets_.size(); }
    /// One datagram from each. Fails when the kernel does not let one go.
    Result<void> send(BytesView datagram);

    /// A datagram, or the ICMP error that somebody answered with (the socket is gone then).
    struct Arrival {
        std::uint16_t port = 0;
        Result<Bytes> datagram;
    };
    /// Waits for some; ECANCELED after close().
    Task<Result<std::vector<Arrival>>> receive();
    /// Gives a socket away: it stays open when the others go.
    Fd take(std::uint16_t port);
    void close() { ready_.close(); }

private:
    PunchSockets(Reactor& reactor, Fd ready) : ready_(reactor, std::move(ready)) {}
    std::vector<Arrival> read_all();

    Descriptor ready_; ///< an epoll set of them all
    std::map<std::uint16_t, Fd> sockets_;
};

} // namespace tailrace
