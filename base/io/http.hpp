// base/io/http.hpp - what HTTP/1.1 and HTTP/2 have in common: requests, responses, URLs.
#pragma once
#include "base/io/stream.hpp"

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tailrace {

/// Header fields in order. Names compare without case; HTTP/2 needs them in lower case.
class HttpHeaders {
public:
    HttpHeaders() = default;
    HttpHeaders(std::initializer_list<std::pair<std::string, std::string>> fields) : fields_(fields) {}
    void add(std::string name, std::string value) { fields_.emplace_back(std::move(name), std::move(value)); }
    /// The first value, or "" when there is none.
    std::string_view get(std::string_view name) const;
    bool has(std::string_view name) const;
    /// True when a comma-separated header holds `token`, ignoring case ("Connection: foo, Upgrade").
    bool has_token(std::string_view name, std::string_view token) const;
    const std::vector<std::pair<std::string, std::string>>& all() const { return fields_; }

private:
    std::vector<std::pair<std::string, std::string>> fields_;
};

struct HttpRequest {
    std::string method = "GET";
    std::string target = "/"; ///< path and query as sent
    HttpHeaders headers;
    std::string body;
    std::string authority; ///< Host or :authority
    std::string scheme;    ///< HTTP/2 only
    Endpoint peer;         ///< who asks, when known

    /// The path without query, percent-decoded.
    std::string path() const;
    /// The first value of a query parameter, decoded; "" when absent.
    std::string query(std::string_view name) const;
};

/// Writes a body that is not known at once (HTTP/1.1 chunks). Fails when the client has gone.
class BodyWriter {
public:
    virtual ~BodyWriter() = default;
    virtual Task<Result<void>> write(std::string data) = 0;
};

struct HttpResponse {
    int status = 200;
    HttpHeaders headers;
    std::string body;
    /// HTTP/1.1 server: after a 101 head was written, owns the connection. With status 0 no head is written.
    std::function<Task<void>(std::unique_ptr<Stream>)> upgrade;
    /// HTTP/1.1 server: writes the body piece by piece instead of `body`.
    std::function<Task<void>(BodyWriter&)> stream;

    static HttpResponse text(int status, std::string body);
    static HttpResponse json(int status, std::string body);
};

using HttpHandler = std::function<Task<HttpResponse>(HttpRequest)>;

struct Url {
    std::string scheme; ///< "http" or "https"
    std::string host;   ///< without brackets
    std::uint16_t port = 0;
    std::string target; ///< begins with "/"
    bool explicit_port = false;

    /// Only http and https. A missing port is 80 or 443.
    static Result<Url> parse(std::string_view text);
    /// host:port as a Host header has it; the port is left out when it is the scheme's own.
    std::string authority() const;
};

std::string percent_decode(std::string_view text);
std::string percent_encode(std::string_view text);
std::string_view status_reason(int status);

} // namespace tailrace
