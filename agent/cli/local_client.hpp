// agent/cli/local_client.hpp - asks the agent over its Unix socket.
#pragma once
#include "agent/local/status.hpp"
#include "agent/store/prefs.hpp"
#include "base/io/http1.hpp"
#include "base/io/socket.hpp"

#include <memory>
#include <string>

namespace tailrace::cli {

/// What the agent says while it happens: one JSON object a line.
class Bus {
public:
    explicit Bus(std::unique_ptr<Http1Client> client) : client_(std::move(client)) {}
    /// Empty at the end of the stream.
    Task<Result<std::string>> next_line();
    void close() { client_->stream().close(); }

private:
    std::unique_ptr<Http1Client> client_;
    std::string arrived_;
};

class LocalClient {
public:
    LocalClient(Reactor& reactor, std::string socket) : reactor_(reactor), socket_(std::move(socket)) {}

    /// The body of a 2xx answer; everything else is an error with the agent's own words. code() is the HTTP status.
    Task<Result<std::string>> request(std::string method, std::string target, std::string body);
    Task<Result<std::unique_ptr<Bus>>> watch(int mask);
    /// Any answer that comes line by line.
    Task<Result<std::unique_ptr<Bus>>> stream(std::string target);

    Task<Result<Status>> status();
    Task<Result<Prefs>> prefs();
    Task<Result<void>> edit_prefs(std::string masked_prefs);
    /// Goes into the agent's log with what is asked for; "--reason".
    void say_why(std::string reason) { reason_ = std::move(reason); }
    Reactor& reactor() { return reactor_; }

private:
    Task<Result<std::unique_ptr<Http1Client>>> connect();
    /// Warns once, on the standard error, when the agent is of another version than we.
    void look_at_version(const HttpResponse& response);
    Reactor& reactor_;
    std::string socket_, reason_;
    bool looked_at_version_ = false;
};

} // namespace tailrace::cli
