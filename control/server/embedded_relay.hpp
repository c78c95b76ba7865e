// control/server/embedded_relay.hpp - a relay for small set-ups that needs no address, port or certificate of its own.
#pragma once
#include "base/fd.hpp"
#include "base/io/http.hpp"
#include "base/io/reactor.hpp"
#include "base/log.hpp"
#include "proto/keys.hpp"

#include <functional>
#include <memory>
#include <string>
#include <sys/types.h>

namespace tailrace {

/// Runs tailrace-relay as a child: what a stranger sends to the relay cannot hurt the tailnet's state. Clients connect
/// to the address of the control server, by TLS, and are passed on over a Unix socket, with their address. A child that
/// ends is started again; clients that connect in between wait, for the socket is ours. The child ends with us, however
/// we end.
class EmbeddedRelay {
public:
    struct Options {
        std::string executable; ///< of tailrace-relay
        std::string state_dir;  ///< of the relay; made by it
        std::string socket;     ///< the path of the Unix socket
        std::string hostname;   ///< that clients dial
        int stun_port = 3478;   ///< UDP, on all addresses; -1: no STUN
        std::string verify_url; ///< whom the relay asks about clients
        log::Level log_level = log::Level::Info;
        /// The relay's key, which the TLS in front of it shows to clients. Told after each start of the relay.
        std::function<void(const NodeKey& key)> on_key;
    };
    static Result<std::unique_ptr<EmbeddedRelay>> start(Reactor& reactor, Options options);
    ~EmbeddedRelay();

    /// Whether this request is for the relay: /derp and what is below it, /generate_204.
    static bool is_for_relay(const HttpRequest& request);
    /// From here on the connection is the relay's, the answer to this request included.
    Task<HttpResponse> forward(HttpRequest request);
    /// Tells the relay to drain, and waits for its end, a few seconds at most.
    Task<void> stop();

private:
    EmbeddedRelay(Reactor& reactor, Options options, Fd listener)
        : reactor_(reactor), options_(std::move(options)), listener_(std::move(listener)), ended_(reactor) {}
    Result<void> spawn_child();
    Task<void> keep_alive();
    Task<void> ask_for_key();
    /// Until the child has ended; its wait status.
    Task<int> wait_for_end();

    Reactor& reactor_;
    Options options_;
    Fd listener_;
    pid_t child_ = -1;
    bool stopping_ = false;
    Event ended_;
};

/// tailrace-relay beside our own executable, else the one of the PATH. Empty when there is none.
std::string find_relay_executable();

} // namespace tailrace
