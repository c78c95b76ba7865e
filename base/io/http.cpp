#include "base/io/http.hpp"

#include "base/text.hpp"

namespace tailrace {

std::string_view HttpHeaders::get(std::string_view name) const {
    for (const auto& [key, value] : fields_)
        if (equals_ignoring_case(key, name)) return value;
    return {};
}

bool HttpHeaders::has(std::string_view name) const {
    for (const auto& [key, value] : fields_)
        if (equals_ignoring_case(key, name)) return true;
    return false;
}

bool HttpHeaders::has_token(std::string_view name, std::string_view token) const {
    for (const auto& [key, value] : fields_) {
        if (!equals_ignoring_case(key, name)) continue;
        for (auto part : split(value, ','))
            if (equals_ignoring_case(trim(part), token)) return true;
    }
    return false;
}

std::string HttpRequest::path() const {
    std::string_view whole = target;
    return percent_decode(whole.substr(0, whole.find('?')));
}

std::string HttpRequest::query(std::string_view name) const {
    auto mark = target.find('?');
    if (mark == std::string::npos) return {};
    for (auto part : split(std::string_view{target}.substr(mark + 1), '&')) {
        auto equals = part.find('=');
        if (percent_decode(part.substr(0, equals)) != name) continue;
        if (equals == std::string_view::npos) return {};
        std::string value{part.substr(equals + 1)};
        for (char& c : value)
            if (c == '+') c = ' ';
        return percent_decode(value);
    }
    return {};
}

HttpResponse HttpResponse::text(int status, std::string body) {
    HttpResponse out;
    out.status = status;
    out.headers.add("content-type", "text/plain; charset=utf-8");
    out.body = std::move(body);
    return out;
}

HttpResponse HttpResponse::json(int status, std::string body) {
    HttpResponse out;
    out.status = status;
    out.headers.add("content-type", "application/json");
    out.body = std::move(body);
    return out;
}

Result<Url> Url::parse(std::string_view text) {
    Url url;
    auto colon = text.find("://");
    if (colon == std::string_view::npos)
        return Error::make("\"{}\" is not a URL: it must begin with http:// or https://", text);
    url.scheme = to_lower(text.substr(0, colon));
    if (url.scheme != "http" && url.scheme != "https")
        return Error::make("\"{}\" is not a URL that can be used here: it must begin with http:// or https://", text);
    std::string_view rest = text.substr(colon + 3);
    auto slash = rest.find_first_of("/?#");
    std::string_view authority = rest.substr(0, slash);
    url.target = slash == std::string_view::npos ? "/" : std::string{rest.substr(slash)};
    if (url.target.front() != '/') url.target.insert(0, "/");
    url.target = url.target.substr(0, url.target.find('#'));
    if (authority.find('@') != std::string_view::npos) return Error::make("\"{}\" must not contain a user name", text);
    auto port_at = authority.rfind(':');
    if (!authority.empty() && authority.back() == ']') port_at = std::string_view::npos;
    url.port = url.scheme == "https" ? 443 : 80;
    if (port_at != std::string_view::npos) {
        auto port = parse_number<std::uint16_t>(authority.substr(port_at + 1));
        if (!port || *port == 0) return Error::make("\"{}\" is not a URL: the port is wrong", text);
        url.port = *port;
        url.explicit_port = true;
        authority = authority.substr(0, port_at);
    }
    if (authority.size() > 2 && authority.front() == '[' && authority.back() == ']')
        authority = authority.substr(1, authority.size() - 2);
    if (authority.empty() || authority.find_first_of(" \t\r\n") != std::string_view::npos)
        return Error::make("\"{}\" is not a URL: the host is missing", text);
    url.host = std::string{authority};
    return url;
}

std::string Url::authority() const {
    std::string name = host.find(':') == std::string::npos ? host : "[" + host + "]";
    bool own = port == (scheme == "https" ? 443 : 80);
    return own ? name : fmt::format("{}:{}", name, port);
}

std::string percent_decode(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '%' && i + 2 < text.size()) {
            if (auto byte = hex_decode(text.substr(i + 1, 2))) {
                out += static_cast<char>((*byte)[0]);
                i += 2;
                continue;
            }
        }
        out += text[i];
    }
    return out;
}

std::string percent_encode(std::string_view text) {
    std::string out;
    for (char c : text) {
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                     c == '_' || c == '.' || c == '~';
        if (plain)
            out += c;
        else
            out += fmt::format("%{:02X}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    }
    return out;
}

std::string_view status_reason(int status) {
    switch (status) {
    case 101:
        return "Switching Protocols";
    case 200:
        return "OK";
    case 201:
        return "Created";
    case 202:
        return "Accepted";
    case 204:
        return "No Content";
    case 302:
        return "Found";
    case 400:
        return "Bad Request";
    case 401:
        return "Unauthorized";
    case 403:
        return "Forbidden";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 409:
        return "Conflict";
    case 411:
        return "Length Required";
    case 412:
        return "Precondition Failed";
    case 413:
        return "Content Too Large";
    case 426:
        return "Upgrade Required";
    case 429:
        return "Too Many Requests";
    case 431:
        return "Request Header Fields Too Large";
    case 500:
        return "Internal Server Error";
    case 501:
        return "Not Implemented";
    case 502:
        return "Bad Gateway";
    case 503:
        return "Service Unavailable";
    default:
        return "Status";
    }
}

} // namespace tailrace
