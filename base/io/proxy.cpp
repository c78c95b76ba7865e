#include "base/io/proxy.hpp"
#include "base/io/http1.hpp"
#include "base/text.hpp"

#include <algorithm>
#include <cstdlib>

namespace tailrace {
namespace {

std::string join_port(std::string_view host, std::uint16_t port) {
    bool v6 = host.find(':') != std::string_view::npos;
    return fmt::format("{}{}{}:{}", v6 ? "[" : "", host, v6 ? "]" : "", port);
}

bool is_this_machine(std::string_view host) {
    auto address = IpAddress::parse(host);
    return host == "localhost" || (address && address->is_loopback());
}

std::string plain_name(std::string_view host) {
    while (host.ends_with('.')) host.remove_suffix(1);
    return to_lower(host);
}

/// [http://][name[:password]@]host[:port]
Result<HttpProxy> parse_proxy(std::string_view variable, std::string_view text) {
    constexpr std::string_view kScheme = "http://";
    auto at = text.find("://");
    if (at == std::string_view::npos)
        at = 0;
    else if (to_lower(text.substr(0, at + 3)) != kScheme)
        return Error::make("{} names a proxy that is spoken to by {}; only http:// is supported", variable,
                           text.substr(0, at));
    else
        at = kScheme.size();
    std::string_view authority = text.substr(at, text.find_first_of("/?#", at) - at);
    HttpProxy proxy;
    if (auto end = authority.rfind('@'); end != std::string_view::npos) {
        std::string_view user = authority.substr(0, end);
        auto colon = user.find(':');
        std::string name = percent_decode(user.substr(0, colon));
        std::string password = colon == std::string_view::npos ? "" : percent_decode(user.substr(colon + 1));
        proxy.authorization = "Basic " + base64_encode(as_bytes(name + ":" + password));
        authority.remove_prefix(end + 1);
    }
    auto url = Url::parse(std::string{kScheme} + std::string{authority});
    // Not the whole value in the message: it may hold a password.
    if (!url) return Error::make("{} is not the URL of a proxy, such as http://proxy.example.com:3128", variable);
    proxy.host = url->host;
    proxy.port = url->port;
    return proxy;
}

} // namespace

std::string HttpProxy::text() const {
    return join_port(host, port);
}

ProxySettings ProxySettings::read(const std::function<std::string(const std::string& name)>& variable) {
    auto either = [&](const std::string& name) {
        std::string value = variable(name);
        return std::string{trim(value.empty() ? variable(to_lower(name)) : value)};
    };
    ProxySettings out;
    out.https_ = either("HTTPS_PROXY");
    out.http_ = either("HTTP_PROXY");
    const std::string exceptions = either("NO_PROXY");
    for (std::string_view piece : split(exceptions, ',')) {
        std::string text = plain_name(trim(piece));
        if (text.empty()) continue;
        if (text == "*") out.all_excepted_ = true;
        Exception exception;
        auto take_prefix = [&](std::string_view from) {
            if (auto prefix = IpPrefix::parse(from))
                exception.prefix = *prefix;
            else if (auto address = IpAddress::parse(from); address && address->valid())
                exception.prefix = IpPrefix::single(*address);
            return exception.prefix.has_value();
        };
        if (!take_prefix(text)) {
            auto endpoint = Endpoint::parse(text); // of an address, with its port
            auto colon = text.rfind(':');
            if (endpoint && endpoint->valid()) {
                exception.prefix = IpPrefix::single(endpoint->address);
                exception.port = endpoint->port;
            } else if (colon != std::string::npos) {
                auto port = parse_number<std::uint16_t>(std::string_view{text}.substr(colon + 1));
                if (!port) continue;
                exception.port = *port;
                text.resize(colon);
            }
            if (text.starts_with("*.")) text.erase(0, 1);
            if (!exception.prefix) exception.name = text;
        }
        out.exceptions_.push_back(std::move(exception));
    }
    return out;
}

const ProxySettings& ProxySettings::of_environment() {
    static const ProxySettings settings = read([](const std::string& name) {
        const char* value = std::getenv(name.c_str());
        return std::string{value == nullptr ? "" : value};
    });
    return settings;
}

bool ProxySettings::is_excepted(std::string_view host, std::uint16_t port) const {
    if (all_excepted_ || is_this_machine(host)) return true;
    auto address = IpAddress::parse(host);
    bool is_address = address && address->valid();
    return std::ranges::any_of(exceptions_, [&](const Exception& exception) {
        if (exception.port != 0 && exception.port != port) return false;
        if (exception.prefix) return is_address && exception.prefix->contains(address->unmapped());
        if (is_address) return false;
        bool below_only = exception.name.starts_with('.');
        return below_only ? host.ends_with(exception.name)
                          : host == exception.name || host.ends_with("." + exception.name);
    });
}

Result<std::optional<HttpProxy>> ProxySettings::find(bool tls, std::string_view host, std::uint16_t port) const {
    const std::string& text = tls ? https_ : http_;
    if (text.empty() || is_excepted(plain_name(host), port)) return std::optional<HttpProxy>{};
    auto proxy = parse_proxy(tls ? "HTTPS_PROXY" : "HTTP_PROXY", text);
    if (!proxy) return proxy.error();
    return std::optional{std::move(*proxy)};
}

Task<Result<std::unique_ptr<Stream>>> dial_through(Reactor& reactor, HttpProxy proxy, std::string host,
                                                   std::uint16_t port, DialOptions options) {
    TimePoint deadline = reactor.now() + options.timeout;
    if (is_this_machine(proxy.host)) options.mark = 0;
    auto socket = co_await dial_tcp(reactor, proxy.host, proxy.port, options);
    if (!socket) co_return socket.error().with("proxy {}", proxy.text());
    Http1Client http{std::move(*socket)};
    bool late = false;
    Timer timer{reactor};
    timer.after(std::max<Duration>(deadline - reactor.now(), Duration{}), [&] {
        late = true;
        http.stream().close();
    });
    HttpRequest request;
    request.method = "CONNECT";
    request.target = request.authority = join_port(host, port);
    if (!proxy.authorization.empty()) request.headers.add("Proxy-Authorization", proxy.authorization);
    auto response = co_await http.start(std::move(request));
    timer.cancel();
    std::string asked = fmt::format("proxy {}: CONNECT {}", proxy.text(), join_port(host, port));
    if (late) co_return Error::from_errno(ETIMEDOUT, "{}", asked);
    if (!response) co_return response.error().with("{}", asked);
    if (response->status == 407)
        co_return Error::make("{}: it wants {} name and password, in the proxy's URL as http://NAME:PASSWORD@{}", asked,
                              proxy.authorization.empty() ? "a" : "another", proxy.text());
    if (response->status / 100 != 2)
        co_return Error::make("{}: it answered {} ({})", asked, response->status, status_reason(response->status));
    co_return http.take_stream();
}

} // namespace tailrace
