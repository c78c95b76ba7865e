// agent/coordination/c2n.hpp - requests that control sends to the node (control-protocol.md 5.7).
#pragma once
#include <functional>
#include <string>
#include <string_view>

namespace tailrace {

/// Takes a raw HTTP/1.x request, gives a raw HTTP/1.1 response. `connector_routes` gives JSON; it is asked where
/// control wants to know.
std::string answer_c2n(std::string_view request, const std::function<std::string()>& connector_routes);

} // namespace tailrace
