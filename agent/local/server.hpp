// agent/local/server.hpp - the agent's HTTP over a Unix socket (cli-localapi.md 7, 8).
#pragma once
#include "agent/backend.hpp"
#include "base/io/http1.hpp"
#include "base/io/socket.hpp"

#include <memory>
#include <string>

namespace tailrace {

class LocalServer {
public:
    LocalServer(Reactor& reactor, Backend& backend) : reactor_(reactor), backend_(backend) {}

    /// Serves until the listener is closed.
    Task<void> run(Listener& listener);
    /// From now on changes of preferences are refused with a sentence that names `file`; "" allows them.
    void lock_prefs(std::string file) { prefs_file_ = std::move(file); }
    /// One request of the user `uid`. For tests and the fuzzer too.
    Task<HttpResponse> handle(HttpRequest request, uid_t uid);

private:
    Task<void> serve(std::unique_ptr<Stream> stream, uid_t uid);
    Task<HttpResponse> route(HttpRequest request, bool may_write);
    bool may_write(uid_t uid) const;
    HttpResponse watch_bus(int mask);
    HttpResponse capture_disco();
    HttpResponse watch_packets(FlowWatcher::Wants wants);
    Result<void> check_lock(const Prefs& wanted) const;
    /// A user whom this host does not have could operate nothing; one of before may have gone meanwhile.
    Result<void> check_operator(const Prefs& wanted) const;

    Reactor& reactor_;
    Backend& backend_;
    std::string prefs_file_; ///< empty: preferences are not locked
};

/// Why a request is refused before anybody looks at its path, or "": browsers must not get in.
std::string refuse_foreign_request(const HttpRequest& request);

} // namespace tailrace
