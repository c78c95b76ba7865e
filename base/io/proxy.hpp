// base/io/proxy.hpp - connections through the HTTP proxy of a network that lets nothing else out.
#pragma once
#include "base/io/socket.hpp"
#include "base/net.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tailrace {

struct HttpProxy {
    std::string host;
    std::uint16_t port = 0;
    std::string authorization; ///< the value of Proxy-Authorization, empty for none; secret
    bool operator==(const HttpProxy&) const = default;
    std::string text() const; ///< host:port
};

/// What HTTPS_PROXY, HTTP_PROXY and NO_PROXY say, or else the same names in lower case. Pure. They mean what they mean
/// to the reference client (golang.org/x/net/http/httpproxy): NO_PROXY holds "*", addresses, prefixes and names, each
/// with a port or without; a name stands for those below it too, and only for them when it begins with a dot.
class ProxySettings {
public:
    /// `variable` gives the value of an environment variable, "" where there is none.
    static ProxySettings read(const std::function<std::string(const std::string& name)>& variable);
    /// As they were when this program began.
    static const ProxySettings& of_environment();

    /// Through which proxy to reach a server, by TLS or without; none: directly, as always to this machine. An error
    /// when the setting that applies makes no sense.
    Result<std::optional<HttpProxy>> find(bool tls, std::string_view host, std::uint16_t port) const;

private:
    struct Exception {
        std::optional<IpPrefix> prefix;
        std::string name; ///< in lower case; matches itself unless it begins with a dot, and what ends with it
        std::uint16_t port = 0;
    };
    bool is_excepted(std::string_view host, std::uint16_t port) const;

    std::string https_, http_;
    std::vector<Exception> exceptions_;
    bool all_excepted_ = false;
};

/// Asks the proxy (CONNECT) for a connection to a server, whose name the proxy looks up.
Task<Result<std::unique_ptr<Stream>>> dial_through(Reactor& reactor, HttpProxy proxy, std::string host,
                                                   std::uint16_t port, DialOptions options);

} // namespace tailrace
