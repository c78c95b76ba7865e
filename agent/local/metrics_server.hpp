// agent/local/metrics_server.hpp - `tailraced --metrics-listen`: GET /metrics for Prometheus, and nothing else.
#pragma once
#include "agent/backend.hpp"
#include "base/io/http1.hpp"
#include "base/io/socket.hpp"

namespace tailrace {

class MetricsServer {
public:
    static constexpr int kMostConnections = 32; ///< more are closed at once

    MetricsServer(Reactor& reactor, Backend& backend) : reactor_(reactor), backend_(backend) {}
    /// Serves until the listener is closed.
    Task<void> run(Listener& listener);

private:
    Task<void> serve(std::unique_ptr<Stream> stream);
    Task<HttpResponse> handle(HttpRequest request);

    Reactor& reactor_;
    Backend& backend_;
    int connections_ = 0;
};

} // namespace tailrace
