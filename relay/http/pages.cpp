#include "relay/http/pages.hpp"

#include "base/text.hpp"

#include <openssl/sha.h>

#include <algorithm>

namespace tailrace::relay {
namespace {

constexpr std::size_t kMaxChallenge = 64;
constexpr std::string_view kText = "text/plain; charset=utf-8";
constexpr std::string_view kHtml = "text/html; charset=utf-8";
constexpr std::string_view kHomePage =
    "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>tailrace-relay</title></head><body>"
    "<h1>DERP</h1><p>This is a relay of a tailnet. It passes on sealed packets between machines that cannot reach each "
    "other directly; it cannot read them.</p></body></html>\n";

bool is_legal_challenge(std::string_view text) {
    auto good = [](unsigned char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' ||
               c == '_' || c == ':';
    };
    return !text.empty() && text.size() <= kMaxChallenge && std::all_of(text.begin(), text.end(), good);
}

std::string no_content(const HttpHead& head) {
    std::string fields = "Cache-Control: no-cache, no-store, must-revalidate, no-transform, max-age=0\r\n";
    std::string_view challenge = head.get("X-Tailscale-Challenge");
    if (is_legal_challenge(challenge)) fields += fmt::format("X-Tailscale-Response: response {}\r\n", challenge);
    return write_response(204, "", "", head, fields);
}

std::string probe(const HttpHead& head) {
    if (head.method != "GET" && head.method != "HEAD")
        return write_response(405, kText, "use GET\n", head, "Allow: GET, HEAD\r\n");
    return write_response(200, kText, "", head, "Access-Control-Allow-Origin: *\r\n");
}

// Host and target go into a header of ours: nothing that could end a line gets there (head.cpp), and no foreign host.
std::string to_https(const HttpHead& head, const PageContext& context) {
    if (head.method != "GET" && head.method != "HEAD") return write_response(400, kText, "Use HTTPS\n", head);
    std::string host = context.hostname;
    if (host.empty()) host = std::string{head.get("Host").substr(0, head.get("Host").find(':'))};
    if (host.find(':') != std::string::npos) host = "[" + host + "]";
    if (host.empty()) return write_response(400, kText, "Use HTTPS\n", head);
    std::string_view target = head.target.starts_with('/') ? std::string_view{head.target} : head.path();
    return write_response(302, kText, "Use HTTPS\n", head, fmt::format("Location: https://{}{}\r\n", host, target));
}

Answer upgrade_to_websocket(const HttpHead& head, bool ideal) {
    std::string_view key = head.get("Sec-WebSocket-Key");
    if (key.empty() || key.size() > 100 || head.get("Sec-WebSocket-Version") != "13")
        return {write_response(400, kText, "not a WebSocket request\n", head), {}, false};
    std::string salted = std::string{key} + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; // RFC 6455 section 1.3
    std::array<std::byte, SHA_DIGEST_LENGTH> digest{};
    SHA1(reinterpret_cast<const unsigned char*>(salted.data()), salted.size(),
         reinterpret_cast<unsigned char*>(digest.data()));
    std::string response =
        fmt::format("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    "Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: derp\r\n\r\n",
                    base64_encode(digest));
    return {"", Upgrade{std::move(response), true, ideal}, false};
}

Answer derp(const HttpHead& head, const PageContext& context) {
    std::string_view wanted = head.get("Upgrade");
    bool websocket = equals_ignoring_case(wanted, "websocket");
    if (!websocket && !equals_ignoring_case(wanted, "derp"))
        return {write_response(426, kText, "DERP requires connection upgrade\n", head, "Upgrade: DERP\r\n"), {}, false};
    bool ideal = head.get("Ideal-Node").empty();
    if (websocket && head.has_token("Sec-WebSocket-Protocol", "derp")) return upgrade_to_websocket(head, ideal);
    if (head.get("Derp-Fast-Start") == "1") return {"", Upgrade{"", false, ideal}, false};
    std::string response = fmt::format("HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n"
                                       "Derp-Version: 2\r\nDerp-Public-Key: {}\r\n\r\n",
                                       hex_encode(context.server_key.view()));
    return {"", Upgrade{std::move(response), false, ideal}, false};
}

} // namespace

std::string write_response(int status, std::string_view content_type, std::string_view body, const HttpHead& head,
                           std::string_view more_fields) {
    std::string out = fmt::format(
        "HTTP/1.1 {} {}\r\n{}{}Strict-Transport-Security: max-age=63072000; includeSubDomains\r\n"
        "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'; form-action 'none'; base-uri 'self'\r\n"
        "X-Frame-Options: DENY\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n",
        status, status_reason(status),
        content_type.empty() ? std::string{} : fmt::format("Content-Type: {}\r\n", content_type), more_fields);
    if (status != 204) out += fmt::format("Content-Length: {}\r\n", body.size());
    out += "\r\n";
    if (head.method != "HEAD") out += body;
    return out;
}

Answer answer(const HttpHead& head, const PageContext& context) {
    auto page = [](std::string response) { return Answer{std::move(response), {}, false}; };
    std::string_view path = head.path();
    if (context.door == Door::Metrics) {
        if (path == "/metrics") return {"", {}, true};
        if (path == "/health") return page(write_response(200, kText, "ok\n", head));
        return page(write_response(404, kText, "not found: /metrics and /health are here\n", head));
    }
    if (head.method == "CONNECT")
        return page(write_response(context.tls ? 403 : 404, kText, "this relay is no proxy\n", head));
    if (path == "/generate_204") return page(no_content(head));
    if (context.door == Door::HttpOnly) return page(to_https(head, context));
    if (path == "/derp") return derp(head, context);
    if (path == "/derp/probe" || path == "/derp/latency-check") return page(probe(head));
    // We resolve no names for others: a client takes an empty answer as "ask the next relay".
    if (path == "/bootstrap-dns") return page(write_response(200, "application/json", "", head));
    if (path == "/robots.txt") return page(write_response(200, kText, "User-agent: *\nDisallow: /\n", head));
    if (path == "/metrics") {
        if (context.peer_may_debug) return {"", {}, true};
        return page(write_response(403, kText, "only from this machine or the tailnet\n", head));
    }
    return page(write_response(200, kHtml, kHomePage, head));
}

} // namespace tailrace::relay
