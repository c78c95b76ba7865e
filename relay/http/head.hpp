// relay/http/head.hpp - the head of an HTTP/1 request or response, as far as a relay needs it.
#pragma once
#include "base/result.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tailrace::relay {

constexpr std::size_t kMaxHeadBytes = 16 * 1024;

/// Of a request: method, target. Of a response: status. Lines may end in CR LF or LF.
struct HttpHead {
    std::string method, target; ///< "GET", "/derp?x=1"
    int status = 0;
    std::vector<std::pair<std::string, std::string>> fields;
    std::size_t size = 0; ///< of the head; what follows is the body, or another protocol

    std::string_view path() const; ///< the target up to "?"; of "http://host/x" it is "/x"
    /// The first value, or ""; names compare without case.
    std::string_view get(std::string_view name) const;
    /// True when one of the comma-separated values is `token`, without case.
    bool has_token(std::string_view name, std::string_view token) const;
};

/// Nothing while the head is incomplete; an error when it can't be one or exceeds kMaxHeadBytes.
Result<std::optional<HttpHead>> parse_request_head(std::string_view arrived);
Result<std::optional<HttpHead>> parse_response_head(std::string_view arrived);

} // namespace tailrace::relay
