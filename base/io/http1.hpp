// base/io/http1.hpp - HTTP/1.1 server and client over any Stream, with upgrade. Parsing by Boost.Beast.
#pragma once
#include "base/io/http.hpp"

namespace tailrace {

struct Http1ServerOptions {
    std::size_t header_limit_bytes = 16 * 1024;
    std::size_t body_limit_bytes = 1 << 20;
    Duration request_timeout = std::chrono::seconds{30}; ///< from the first byte to the end of a request
    Duration idle_timeout = std::chrono::minutes{2};     ///< between requests
};

/// A response that came whole by another way, as the answer to a request inside another protocol: without a length its
/// body goes on to the end.
Result<HttpResponse> parse_http1_response(std::string_view text);

/// Serves requests until the client leaves or a handler upgrades. Malformed requests get a 4xx and the connection
/// closes.
Task<void> serve_http1(std::unique_ptr<Stream> stream, HttpHandler handler, Http1ServerOptions options);

/// One connection of a client; requests one after the other.
class Http1Client {
public:
    explicit Http1Client(std::unique_ptr<Stream> stream) : stream_(std::move(stream)) {}

    /// The whole exchange. Bodies above `body_limit_bytes` are an error. Host is taken from request.authority.
    Task<Result<HttpResponse>> request(HttpRequest request, std::size_t body_limit_bytes);
    /// Sends and reads the head only; then read_body_some() until it gives "", or take_stream() after a 101.
    Task<Result<HttpResponse>> start(HttpRequest request);
    Task<Result<std::string>> read_body_some();
    /// The connection with whatever has been read beyond the head.
    std::unique_ptr<Stream> take_stream();
    Stream& stream() { return *stream_; }

private:
    struct Parser;
    struct ParserDeleter {
        void operator()(Parser* parser) const;
    };
    std::unique_ptr<Stream> stream_;
    Bytes arrived_;
    std::unique_ptr<Parser, ParserDeleter> parser_;
};

} // namespace tailrace
