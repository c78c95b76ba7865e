// agent/coordination/c2n.hpp - requests that control sends to the node (control-protocol.md 5.7).
#pragma once
#include <string>
#include <string_view>

namespace tailrace {

/// Takes a raw HTTP/1.x request, gives a raw HTTP/1.1 response. Pure.
std::string answer_c2n(std::string_view request);

} // namespace tailrace
