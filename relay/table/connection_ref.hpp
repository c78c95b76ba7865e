// relay/table/connection_ref.hpp - names one connection of the whole relay, from any core.
#pragma once
#include <compare>
#include <cstdint>

namespace tailrace::relay {

/// A place in a core's list of connections. Places are used again.
using Slot = std::uint32_t;

/// `generation` tells the connections apart that had the same place one after the other.
struct ConnectionRef {
    std::uint32_t core = 0;
    Slot slot = 0;
    std::uint32_t generation = 0;
    auto operator<=>(const ConnectionRef&) const = default;
};

} // namespace tailrace::relay
