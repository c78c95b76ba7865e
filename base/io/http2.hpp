// base/io/http2.hpp - HTTP/2 with prior knowledge over any Stream, server and client. Framing by nghttp2.
//
// Routing is by path alone; any scheme and authority is accepted (control-protocol.md 3.3).
#pragma once
#include "base/io/http.hpp"

#include <functional>
#include <memory>

namespace tailrace {

struct Http2Options {
    std::size_t body_limit_bytes = 1 << 20; ///< of a request on a server
    std::uint32_t concurrent_streams = 250; ///< that a server allows a client
    std::uint32_t window_bytes = 4 << 20;   ///< per stream and for the connection, of what we receive
};

namespace detail {
class Http2Session;
struct Http2StreamState;
} // namespace detail

/// One request on a server and the way to answer it. Outlives the connection harmlessly: writes then fail.
class Http2Exchange {
public:
    explicit Http2Exchange(std::shared_ptr<detail::Http2StreamState> state);
    ~Http2Exchange(); ///< an unanswered or unfinished exchange is reset
    Http2Exchange(const Http2Exchange&) = delete;
    Http2Exchange& operator=(const Http2Exchange&) = delete;

    const HttpRequest& request() const;
    /// The whole answer at once.
    Task<Result<void>> respond(HttpResponse response);
    /// Sends the head; then write() pieces and end() it. Header names must be lower case.
    Result<void> start(int status, HttpHeaders headers);
    /// Returns when the piece has been handed to the connection's socket: at most one piece is in flight.
    Task<Result<void>> write(std::shared_ptr<const std::string> piece);
    void end();
    /// True when the client has reset the stream or the connection is gone.
    bool closed() const;
    /// Called once when that happens.
    void on_closed(std::function<void()> callback);

private:
    std::shared_ptr<detail::Http2StreamState> state_;
};

using Http2Handler = std::function<Task<void>(std::shared_ptr<Http2Exchange>)>;

/// Serves a connection until it ends. Each request, once complete, is handled in a coroutine of its own.
Task<Result<void>> serve_http2(std::unique_ptr<Stream> stream, Http2Handler handler, Http2Options options);

/// An answer on a client: the head is there, the body arrives.
class Http2Answer {
public:
    explicit Http2Answer(std::shared_ptr<detail::Http2StreamState> state);
    ~Http2Answer(); ///< resets the stream when its body has not been read to the end
    Http2Answer(const Http2Answer&) = delete;
    Http2Answer& operator=(const Http2Answer&) = delete;

    int status() const;
    const HttpHeaders& headers() const;
    /// The next bytes of the body; empty at its end. An error when the stream or connection broke.
    Task<Result<std::string>> read_some();
    /// All of it.
    Task<Result<std::string>> read_all(std::size_t limit_bytes);

private:
    std::shared_ptr<detail::Http2StreamState> state_;
};

/// A client connection: any number of requests at a time.
class Http2Client {
public:
    /// Takes the stream and starts talking.
    static std::shared_ptr<Http2Client> start(std::unique_ptr<Stream> stream, Http2Options options);
    ~Http2Client(); ///< closes the connection

    /// Sends a request and waits for the head of the answer.
    Task<Result<std::shared_ptr<Http2Answer>>> request(HttpRequest request);
    bool closed() const;
    void close();

private:
    explicit Http2Client(std::shared_ptr<detail::Http2Session> session);
    std::shared_ptr<detail::Http2Session> session_;
};

} // namespace tailrace
