// agent/coordination/c2n.hpp - requests that control sends to the node (control-protocol.md 5.7).
#pragma once
#include <functional>
#include <string>
#include <string_view>

namespace tailrace {

/// What control wants to know of us. Each gives JSON, and is asked when it does.
struct C2nAnswers {
    std::function<std::string()> connector_routes;
    std::function<std::string()> services;
};

/// Takes a raw HTTP/1.x request, gives a raw HTTP/1.1 response.
std::string answer_c2n(std::string_view request, const C2nAnswers& answers);

} // namespace tailrace
