#include "relay/http/head.hpp"

#include "base/text.hpp"

#include <algorithm>

namespace tailrace::relay {
namespace {

constexpr std::size_t kMaxFields = 100;

bool is_token(std::string_view text) {
    auto good = [](unsigned char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               std::string_view{"!#$%&'*+-.^_`|~"}.find(static_cast<char>(c)) != std::string_view::npos;
    };
    return !text.empty() && std::all_of(text.begin(), text.end(), good);
}

// Where the head ends (behind the empty line), or 0.
std::size_t end_of_head(std::string_view arrived) {
    auto crlf = arrived.find("\r\n\r\n");
    auto lf = arrived.find("\n\n");
    if (crlf == std::string_view::npos && lf == std::string_view::npos) return 0;
    return std::min(crlf == std::string_view::npos ? crlf : crlf + 4, lf == std::string_view::npos ? lf : lf + 2);
}

// Gives start line and fields of a whole head.
Result<std::string_view> parse_lines(std::string_view text, HttpHead& head) {
    std::string_view first;
    bool is_first = true;
    for (std::string_view line : split(text, '\n')) {
        if (line.ends_with('\r')) line.remove_suffix(1);
        if (line.find_first_of(std::string_view{"\r\0", 2}) != std::string_view::npos)
            return Error::make("HTTP head: a control character");
        if (is_first) {
            first = line;
            is_first = false;
            continue;
        }
        if (line.empty()) continue; // the end
        auto colon = line.find(':');
        if (colon == std::string_view::npos || !is_token(line.substr(0, colon)))
            return Error::make("HTTP head: a line that is no field");
        if (head.fields.size() == kMaxFields) return Error::make("HTTP head: more than {} fields", kMaxFields);
        head.fields.emplace_back(line.substr(0, colon), trim(line.substr(colon + 1)));
    }
    return first;
}

Result<std::optional<HttpHead>> parse_head(std::string_view arrived, auto read_start_line) {
    std::size_t size = end_of_head(arrived);
    if (size == 0 || size > kMaxHeadBytes) {
        if (arrived.size() >= kMaxHeadBytes) return Error::make("HTTP head: longer than {} bytes", kMaxHeadBytes);
        return std::optional<HttpHead>{};
    }
    HttpHead head;
    head.size = size;
    auto first = parse_lines(arrived.substr(0, size), head);
    if (!first) return first.error();
    if (!read_start_line(*first, head)) return Error::make("HTTP head: the first line is not one of HTTP/1");
    return std::optional<HttpHead>{std::move(head)};
}

bool is_http1(std::string_view version) {
    return version.starts_with("HTTP/1.");
}

} // namespace

std::string_view HttpHead::path() const {
    std::string_view path = target;
    if (auto scheme = path.find("://"); scheme != std::string_view::npos && !path.starts_with('/')) {
        auto slash = path.find('/', scheme + 3);
        path = slash == std::string_view::npos ? "/" : path.substr(slash);
    }
    return path.substr(0, path.find_first_of("?#"));
}

std::string_view HttpHead::get(std::string_view name) const {
    for (const auto& [field, value] : fields)
        if (equals_ignoring_case(field, name)) return value;
    return {};
}

bool HttpHead::has_token(std::string_view name, std::string_view token) const {
    for (const auto& [field, value] : fields) {
        if (!equals_ignoring_case(field, name)) continue;
        for (std::string_view part : split(value, ','))
            if (equals_ignoring_case(trim(part), token)) return true;
    }
    return false;
}

Result<std::optional<HttpHead>> parse_request_head(std::string_view arrived) {
    return parse_head(arrived, [](std::string_view line, HttpHead& head) {
        auto words = split(line, ' ');
        if (words.size() != 3 || !is_token(words[0]) || words[1].empty() || !is_http1(words[2])) return false;
        head.method = words[0];
        head.target = words[1];
        return true;
    });
}

Result<std::optional<HttpHead>> parse_response_head(std::string_view arrived) {
    return parse_head(arrived, [](std::string_view line, HttpHead& head) {
        auto words = split(line, ' ');
        if (words.size() < 2 || !is_http1(words[0])) return false;
        auto status = parse_number<int>(words[1]);
        if (!status || *status < 100 || *status > 999) return false;
        head.status = *status;
        return true;
    });
}

} // namespace tailrace::relay
