#include "agent/coordination/c2n.hpp"
#include "base/text.hpp"

#include <fmt/format.h>

namespace tailrace {
namespace {

std::string response(int status, std::string_view reason, std::string_view body,
                     std::string_view type = "text/plain; charset=utf-8") {
    return fmt::format("HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n{}", status, reason, type,
                       body.size(), body);
}

} // namespace

std::string answer_c2n(std::string_view request, const C2nAnswers& answers) {
    std::size_t head_end = request.find("\r\n\r\n");
    if (head_end == std::string_view::npos) return response(400, "Bad Request", "malformed request\n");
    std::string_view head = request.substr(0, head_end), body = request.substr(head_end + 4);
    auto lines = split(head, '\n');
    auto words = split(trim(lines[0]), ' ');
    if (words.size() != 3 || !words[2].starts_with("HTTP/1."))
        return response(400, "Bad Request", "malformed request\n");
    std::string_view path = words[1].substr(0, words[1].find('?'));
    for (std::size_t i = 1; i < lines.size(); ++i) {
        auto colon = lines[i].find(':');
        if (colon == std::string_view::npos || !equals_ignoring_case(trim(lines[i].substr(0, colon)), "content-length"))
            continue;
        auto length = parse_number<std::size_t>(trim(lines[i].substr(colon + 1)));
        if (!length || *length > body.size()) return response(400, "Bad Request", "malformed request\n");
        body = body.substr(0, *length);
    }
    if (path == "/echo") return response(200, "OK", body);
    const auto* asked = path == "/appconnector/routes" ? &answers.connector_routes
                        : path == "/vip-services"      ? &answers.services
                                                       : nullptr;
    if (asked != nullptr) {
        if (words[0] != "GET") return response(405, "Method Not Allowed", "bad method\n");
        return response(200, "OK", (*asked)(), "application/json");
    }
    if (path == "/logtail/flush") return "HTTP/1.1 204 No Content\r\n\r\n";
    return response(400, "Bad Request", "unknown c2n path\n");
}

} // namespace tailrace
