// agent/coordination/control_link.hpp - from a server's URL to HTTP/2 inside Noise.
#pragma once
#include "agent/coordination/dial_plan.hpp"
#include "base/io/http2.hpp"
#include "proto/keys.hpp"

#include <memory>
#include <optional>
#include <string>

namespace tailrace {

/// Reaches one control server. Each link() is a new connection.
class ControlDialer {
public:
    struct Options {
        std::uint32_t mark = 0; ///< SO_MARK of the connections
        int capability_version = 0;
        Duration deadline = std::chrono::seconds{10};
    };
    ControlDialer(Reactor& reactor, Url server, Options options)
        : reactor_(reactor), server_(std::move(server)), options_(options) {}

    /// One question by HTTP/1.1, below the path of the server's URL. Certificates are checked.
    Task<Result<HttpResponse>> ask(HttpRequest request, std::size_t body_limit_bytes);
    /// GET /key. Certificates are checked here: this is where trust begins.
    Task<Result<MachineKey>> fetch_key();
    /// Cleartext and TLS in a race (3.2); certificates don't matter, Noise proves who answers.
    Task<Result<std::shared_ptr<Http2Client>>> link(MachineKey server_key, MachinePrivateKey machine);
    const Url& server() const { return server_; }

private:
    struct Race;
    Task<Result<std::unique_ptr<Stream>>> connect(DialTarget target, bool check_certificate);
    Task<Result<std::shared_ptr<Http2Client>>> upgrade(DialTarget target, MachineKey server_key,
                                                       MachinePrivateKey machine);
    Task<void> run_in_race(std::shared_ptr<Race> race, DialTarget target, MachineKey server_key,
                           MachinePrivateKey machine);

    Reactor& reactor_;
    Url server_;
    Options options_;
    std::optional<TimePoint> last_dial_;
};

} // namespace tailrace
