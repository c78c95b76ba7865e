// tests/unit/addresses.hpp - addresses as tests write them. Text that is none ends the test program.
#pragma once
#include "base/net.hpp"

namespace tailrace {

inline IpPrefix prefix(std::string_view text) {
    return *IpPrefix::parse(text);
}

} // namespace tailrace
